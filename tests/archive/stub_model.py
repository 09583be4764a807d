"""A model without weights, whose answers follow from the sound; and one that fails where a file's name says so."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from naturelm.archive.stages import DecodedSegment
from naturelm.config.archive import ArchiveConfig
from naturelm.models.answer import Answer
from naturelm.results.rows import AnsweredSegment

SLEEP_S = "NATURELM_TEST_SLEEP_S"
"""Seconds a segment, from the environment."""
ASLEEP = "NATURELM_TEST_ASLEEP"
"""A file that is there once a segment is being answered, from the environment."""


class StubAsk:
    """Answers with a digest of what was decoded, after a nap."""

    def __init__(self, config: ArchiveConfig, threads: int | None = None) -> None:
        self._queries = config.queries
        self._sleep_s = float(os.environ.get(SLEEP_S, "0"))

    def __call__(self, decoded: Sequence[DecodedSegment], shrink: int = 1) -> list[AnsweredSegment]:
        return [self._answer(part, shrink) for part in decoded]

    def _answer(self, part: DecodedSegment, shrink: int) -> AnsweredSegment:
        if ASLEEP in os.environ:
            Path(os.environ[ASLEEP]).touch()
        # Back to Python now and then, as a model is: a signal that comes just before a long sleep waits for its end.
        ends = time.monotonic() + self._sleep_s
        while time.monotonic() < ends:
            time.sleep(min(self._sleep_s, 0.05))
        digest = hashlib.blake2b(part.pcm, digest_size=8).hexdigest()
        answers = tuple(
            tuple(
                Answer(f"{query.id} {digest} {window.index}", (1,), 0.5, (0.5,), (3,))
                for query in self._queries
            )
            for window in part.windows
        )
        return AnsweredSegment(part.segment, part.windows, answers, part.decoded_s, part.status, part.error)


class FaultyAsk(StubAsk):
    """Fails on recordings by their names: `poison` kills the process, `error` raises, `big` needs small batches."""

    def _answer(self, part: DecodedSegment, shrink: int) -> AnsweredSegment:
        path = part.segment.recording.path
        if "poison" in path:
            os.kill(os.getpid(), signal.SIGKILL)
        if "error" in path:
            raise RuntimeError("no kernel for this")
        if "big" in path and shrink < 8:
            raise MemoryError("not enough of it")
        return super()._answer(part, shrink)
