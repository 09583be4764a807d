"""The job in this process, without Ray: how every run begins unless workers or a cluster are given."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from naturelm.archive.attempts import CarefulAsk, DeviceLostError, MakeAsk, Register
from naturelm.archive.stages import Ask, Decode, DecodedSegment
from naturelm.archive.stopping import Stop
from naturelm.config.archive import ArchiveConfig
from naturelm.errors import RunStopped
from naturelm.machine import usable_cores
from naturelm.results.rows import AnsweredSegment
from naturelm.segments import Read

_WINDOWS_PER_CALL = 64
# Batches that are decoded while the model works on another.
_AHEAD = 1
_LOOK_EVERY_S = 0.2


def answer_here(
    reads: Sequence[Read],
    config: ArchiveConfig,
    stop: Stop,
    make_ask: MakeAsk = Ask,
    leave: Callable[[], bool] = lambda: False,
) -> Iterator[AnsweredSegment]:
    """Answer one batch after the other while the next one is decoded; segments come in the order of `reads`.

    Parameters
    ----------
    reads, config, stop, make_ask
        As of `naturelm.archive.job.process_archive`.
    leave : callable
        Whether to leave the rest to others; called after each batch.

    Raises
    ------
    NaturelmError
        The model cannot be loaded.
    RunStopped
        The GPU failed.
    """
    register = Register()
    with _decoded_ahead(reads, config, lambda: stop.asked(register.longest_s())) as batches:
        try:
            # Decoding begins while the model is loaded.
            ask = CarefulAsk(make_ask(config, threads=usable_cores()), register)
            for batch in batches:
                if stop.asked(register.longest_s()):
                    return
                yield from ask(batch)
                if leave():
                    return
        except DeviceLostError as error:
            raise RunStopped(f"the GPU failed ({error}); run the same command again") from error


@contextmanager
def _decoded_ahead(
    reads: Sequence[Read], config: ArchiveConfig, is_over: Callable[[], bool]
) -> Iterator[Iterator[list[DecodedSegment]]]:
    """Segments in batches, decoded by a thread, which ends with the context."""
    decode, left = Decode(config), threading.Event()
    ready: queue.Queue[list[DecodedSegment] | BaseException | None] = queue.Queue(_AHEAD)

    def put(item: list[DecodedSegment] | BaseException | None) -> None:
        while not left.is_set():
            try:
                ready.put(item, timeout=_LOOK_EVERY_S)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in _batches(reads, decode, lambda: left.is_set() or is_over()):
                put(batch)
            put(None)
        except BaseException as error:  # raised again by who waits for the batch
            put(error)

    def batches() -> Iterator[list[DecodedSegment]]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=work, name="decode", daemon=True)
    thread.start()
    try:
        yield batches()
    finally:
        left.set()
        decode.close()  # what is being decoded is not waited for
        thread.join()
        decode.close()


def _batches(
    reads: Sequence[Read], decode: Decode, is_over: Callable[[], bool]
) -> Iterator[list[DecodedSegment]]:
    """Segments of about `_WINDOWS_PER_CALL` windows together; none where the run is over."""
    waiting: list[DecodedSegment] = []
    for read in reads:
        if is_over():
            return
        for decoded in decode(read):
            if is_over():
                return
            waiting.append(decoded)
            if sum(len(part.windows) for part in waiting) >= _WINDOWS_PER_CALL:
                yield waiting
                waiting = []
    if waiting:
        yield waiting
