"""Whether this process or Ray ends a run sooner: small archives end before Ray has started its workers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from naturelm.config.archive import JobSettings
from naturelm.results.rows import AnsweredSegment
from naturelm.segments import Read
from naturelm.text import duration

# What Ray takes until its workers have answered as much as this process in the same time: its own start, and that of
# workers that load the model again (docs/benchmarks).
RAY_START_S = 25.0
# Fewer say too little of the rate.
_LEAST_WINDOWS = 128


def begins_here(job: JobSettings) -> bool:
    """Whether a run begins in this process: where nothing is said of workers or a cluster, or no worker is wanted."""
    unsaid = job.address is None and job.max_workers is None and job.gpus_per_worker is None
    return job.workers == 0 or (job.workers is None and unsaid)


def worth_starting_ray(workers: int) -> float:
    """Seconds that are left in this process from which on so many workers on Ray end sooner; infinity for one."""
    return math.inf if workers < 2 else RAY_START_S * workers / (workers - 1)


class Pace:
    """How fast this process answers, and what is left.

    Parameters
    ----------
    reads : sequence of Read
        All that is to be answered.
    patience_s : float
        If this process needs longer for what is left, Ray ends sooner.
    """

    def __init__(self, reads: Sequence[Read], patience_s: float) -> None:
        self._reads = reads
        self._patience_s = patience_s
        self._answered: set[str] = set()
        self._left = sum(segment.window_count for read in reads for segment in read.segments)
        self._timed = 0
        self._began: float | None = None
        self.reason = ""
        """Why the rest is left to Ray, for people; empty where it is not."""

    def saw(self, answered: AnsweredSegment) -> None:
        """Count a segment."""
        self._answered.add(answered.segment.id)
        self._left -= answered.segment.window_count
        self._timed += answered.segment.window_count

    def is_too_slow(self) -> bool:
        """Whether Ray would end sooner; called after each batch, of which the first one starts the clock."""
        if self._began is None:
            self._began, self._timed = time.monotonic(), 0
            return False
        if self._timed < _LEAST_WINDOWS:
            return False
        rate = self._timed / (time.monotonic() - self._began)
        left_s = self._left / rate
        if left_s <= self._patience_s:
            return False
        self.reason = (
            f"this process answers {rate:.1f} windows/s and would take {duration(left_s)} for the rest; "
            "continuing with workers on Ray (--workers 0 stays in this process)"
        )
        return True

    @property
    def left(self) -> list[Read]:
        """What is not answered yet, in the same order."""
        rest = (
            replace(read, segments=tuple(s for s in read.segments if s.id not in self._answered))
            for read in self._reads
        )
        return [read for read in rest if read.segments]
