"""The job in this process, without Ray: for small archives, debugging and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from naturelm.config import ArchiveConfig
from naturelm.pipeline.plan import Read
from naturelm.pipeline.rows import AnsweredSegment
from naturelm.pipeline.stages import Ask, Decode, DecodedSegment

_WINDOWS_PER_CALL = 64


def answer_here(reads: Sequence[Read], config: ArchiveConfig) -> Iterator[AnsweredSegment]:
    """Decode and answer one batch after the other; segments come in the order of `reads`."""
    decode, ask = Decode(config), Ask(config, threads=1)
    waiting: list[DecodedSegment] = []
    try:
        for read in reads:
            for decoded in decode(read):
                waiting.append(decoded)
                if sum(len(part.windows) for part in waiting) >= _WINDOWS_PER_CALL:
                    yield from ask(waiting)
                    waiting = []
        if waiting:
            yield from ask(waiting)
    finally:
        decode.close()
