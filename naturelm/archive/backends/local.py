"""The job in this process, without Ray: for small archives, debugging and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from naturelm.archive.attempts import CarefulAsk, DeviceLostError, MakeAsk, Register
from naturelm.archive.stages import Ask, Decode, DecodedSegment
from naturelm.archive.stopping import Stop
from naturelm.config.archive import ArchiveConfig
from naturelm.errors import RunStopped
from naturelm.results.rows import AnsweredSegment
from naturelm.segments import Read

_WINDOWS_PER_CALL = 64


def answer_here(
    reads: Sequence[Read], config: ArchiveConfig, stop: Stop, make_ask: MakeAsk = Ask
) -> Iterator[AnsweredSegment]:
    """Decode and answer one batch after the other; segments come in the order of `reads`.

    Raises
    ------
    NaturelmError
        The model cannot be loaded.
    RunStopped
        The GPU failed.
    """
    register = Register()
    decode, ask = Decode(config), CarefulAsk(make_ask(config, threads=1), register)
    waiting: list[DecodedSegment] = []
    try:
        for read in reads:
            for decoded in decode(read):
                if stop.asked(register.longest_s()):
                    return
                waiting.append(decoded)
                if sum(len(part.windows) for part in waiting) >= _WINDOWS_PER_CALL:
                    yield from ask(waiting)
                    waiting = []
        if waiting and not stop.asked(register.longest_s()):
            yield from ask(waiting)
    except DeviceLostError as error:
        raise RunStopped(f"the GPU failed ({error}); run the same command again") from error
    finally:
        decode.close()
