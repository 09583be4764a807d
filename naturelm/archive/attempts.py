"""Who is at work on what: so that nothing that kills its worker can go round for ever, and a run can end early.

A segment that kills the process of its model (a poison segment) would be given to a fresh process again and again. A
`Register` outlives the workers: they report to it what they begin and end. What was begun three times and never ended
is given up, with status `crashed`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Protocol

from naturelm.archive.stages import DecodedSegment
from naturelm.config.archive import ArchiveConfig
from naturelm.results.rows import AnsweredSegment
from naturelm.segments import Read

ATTEMPTS = 3
"""Attempts at one segment after which it is given up."""

# After an attempt that failed so many windows fewer are processed at once: most often memory was what it lacked.
_SHRINK = 8


class Register:
    """What was begun and not ended, by key; and whether the run is to end early.

    Not for several threads at once.
    """

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._longest_s = 0.0
        self._stopping = False

    def earlier(self, keys: Sequence[str]) -> list[int] | None:
        """For each key, how often it was begun and never ended; None where nothing is to be begun any more."""
        return None if self._stopping else [self._begun[key] for key in keys]

    def begin(self, keys: Sequence[str]) -> list[int] | None:
        """Take note of an attempt; returns what `earlier` does."""
        earlier = self.earlier(keys)
        if earlier is not None:
            self._begun.update(keys)
            self._since |= dict.fromkeys(keys, time.monotonic())
        return earlier

    def end(self, keys: Sequence[str]) -> None:
        """Take note that an attempt ended, well or with an error that the worker survived."""
        for key in keys:
            self._begun.pop(key, None)
            since = self._since.pop(key, None)
            if since is not None:
                self._longest_s = max(self._longest_s, time.monotonic() - since)

    def stop(self) -> None:
        """Have nothing begun any more."""
        self._stopping = True

    def longest_s(self) -> float:
        """Seconds that the longest attempt took: so long may a run continue after `stop`."""
        return self._longest_s


class Registered(Protocol):
    """A `Register`, here or in another process."""

    def earlier(self, keys: Sequence[str]) -> list[int] | None: ...

    def begin(self, keys: Sequence[str]) -> list[int] | None: ...

    def end(self, keys: Sequence[str]) -> None: ...


class Asking(Protocol):
    """What puts the queries to segments: `stages.Ask`."""

    def __call__(self, decoded: Sequence[DecodedSegment], shrink: int = 1) -> list[AnsweredSegment]: ...


class Decoding(Protocol):
    """What decodes a read: `stages.Decode`."""

    def __call__(self, read: Read) -> Iterator[DecodedSegment]: ...


class MakeAsk(Protocol):
    """What loads the model: the class `stages.Ask`."""

    def __call__(self, config: ArchiveConfig, threads: int | None = None) -> Asking: ...


class DeviceLostError(RuntimeError):
    """The GPU answers no call of this process any more: only a fresh process gets it back."""


class CarefulAsk:
    """Puts the queries to segments so that none of them can end the run.

    Segments go to the model together, so that short ones fill a batch. Those at which a process died, or of which one
    made the model fail, are asked one by one and in ever smaller batches; the one that fails for itself is `crashed`.

    Parameters
    ----------
    ask : Asking
        The stage.
    register : Registered
        Outlives this process where it may die.
    """

    def __init__(self, ask: Asking, register: Registered) -> None:
        self._ask = ask
        self._register = register

    def __call__(self, decoded: Sequence[DecodedSegment]) -> list[AnsweredSegment]:
        """Answer segments; fewer than were given where the run is to end early.

        Raises
        ------
        DeviceLostError
            Nothing more can be answered in this process.
        """
        attempts = self._register.earlier([part.segment.id for part in decoded])
        if attempts is None:
            return []
        answered = self._together(list(compress(decoded, [not number for number in attempts])))
        for part in decoded:
            if part.segment.id not in answered:
                alone = self._alone(part)
                if alone is None:
                    break
                answered[part.segment.id] = alone
        return [answered[part.segment.id] for part in decoded if part.segment.id in answered]

    def _together(self, decoded: list[DecodedSegment]) -> dict[str, AnsweredSegment]:
        ids = [part.segment.id for part in decoded]
        if not ids or self._register.begin(ids) is None:
            return {}
        try:
            answered = dict(zip(ids, self._ask(decoded), strict=True))
        except Exception as error:
            _check_device(error)
            answered = {ids[0]: self._again(decoded[0], 1, error)} if len(ids) == 1 else {}
        self._register.end(ids)
        return answered

    def _alone(self, part: DecodedSegment) -> AnsweredSegment | None:
        begun = self._register.begin([part.segment.id])
        if begun is None:
            return None
        (attempts,) = begun
        if attempts >= ATTEMPTS:
            return crashed(part, f"the process of the model died on it {ATTEMPTS} times")
        try:
            (answered,) = self._ask([part], _SHRINK**attempts)
        except Exception as error:
            _check_device(error)
            answered = self._again(part, attempts + 1, error)
        self._register.end([part.segment.id])
        return answered

    def _again(self, part: DecodedSegment, attempts: int, error: Exception) -> AnsweredSegment:
        while attempts < ATTEMPTS:
            try:
                return self._ask([part], _SHRINK**attempts)[0]
            except Exception as again:
                _check_device(again)
                error, attempts = again, attempts + 1
        message = " ".join(str(error).split())[:200]
        return crashed(
            part, f"the model failed on it ({type(error).__name__}{': ' if message else ''}{message})"
        )


def decode_carefully(decode: Decoding, read: Read, register: Registered) -> Iterator[DecodedSegment]:
    """Decode a read, or give it up where it has killed the process three times; nothing where the run is to end."""
    key = f"read of {read.segments[0].id}"
    begun = register.begin([key])
    if begun is None:
        return
    if begun[0] < ATTEMPTS:
        yield from decode(read)
    else:
        reason = f"the process that decodes died on it {ATTEMPTS} times"
        yield from (DecodedSegment(segment, b"", (), 0.0, "crashed", reason) for segment in read.segments)
    register.end([key])


def crashed(part: DecodedSegment, reason: str) -> AnsweredSegment:
    """The result of a segment that was decoded and given up."""
    return AnsweredSegment(part.segment, (), (), part.decoded_s, "crashed", reason)


def _check_device(error: Exception) -> None:
    # After such an error every call of the process fails, whatever it is about.
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error):
        raise DeviceLostError(str(error)) from error
