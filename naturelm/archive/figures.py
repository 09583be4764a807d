"""How far a run has come, in numbers: the same for the screen, the log, machines, the run record and Prometheus."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from naturelm.machine import Gpu
from naturelm.text import duration

# The rate is that of the last minutes: starting up and yesterday's nodes say nothing about the rest.
_RATE_OVER_S = 600.0
_RATE_STEP_S = 5.0


@dataclass(frozen=True, slots=True)
class Figures:
    """A run at one moment.

    Attributes
    ----------
    elapsed_s : float
        Since the work began.
    sound_s, total_s : float
        Seconds of sound done by this run, and what it was to do.
    times_real_time : float
        Seconds of sound per second, over the last ten minutes.
    left_s : float or None
        Seconds until the end at that rate; None before the first segment is done.
    segments, windows, gated, detections, failed : int
        Done by this run; `gated` of the windows skipped the model, `failed` recordings are not `ok`.
    queues : dict of str to int
        Blocks of work that wait for a stage or are in it, by stage.
    gpus : tuple of Gpu
        Of the machine that the run was started on.
    cluster : dict
        On Ray: `nodes` that are alive, their `cpus` and `gpus`.
    """

    elapsed_s: float = 0.0
    sound_s: float = 0.0
    total_s: float = 0.0
    times_real_time: float = 0.0
    left_s: float | None = None
    segments: int = 0
    windows: int = 0
    gated: int = 0
    detections: int = 0
    failed: int = 0
    queues: Mapping[str, int] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    cluster: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON-serialisable; seconds and rates are rounded."""
        values = asdict(self)
        return {key: round(value, 1) if isinstance(value, float) else value for key, value in values.items()}

    def __str__(self) -> str:
        return ", ".join(
            filter(None, [f"{duration(self.sound_s)} of {duration(self.total_s)}", self.left, self.rates])
        )

    def without_outlook(self) -> Figures:
        """The same, of a run that has no future and no queues any more."""
        return replace(self, left_s=None, queues={}, gpus=(), cluster={})

    @property
    def left(self) -> str:
        """How long it will take and when it ends by this machine's clock; "" where that is unknown."""
        if not self.left_s:
            return ""
        finish = dt.datetime.now() + dt.timedelta(seconds=self.left_s)
        day = f"{finish:%a} " if finish.date() != dt.date.today() else ""
        return f"{duration(self.left_s)} left (until {day}{finish:%H:%M})"

    @property
    def rates(self) -> str:
        """Everything but how far the run has come."""
        parts = [f"{self.times_real_time:.0f} × real time", f"{self.detections} detections"]
        if self.gated:
            parts.append(f"{self.gated} of {self.windows} windows gated")
        parts.append(f"{self.failed} failed")
        parts.extend(f"{stage} {depth}" for stage, depth in self.queues.items())
        if self.cluster.get("nodes", 1) > 1:
            parts.append("{nodes} nodes with {cpus:g} CPUs and {gpus:g} GPUs".format_map(self.cluster))
        parts.extend(str(gpu) for gpu in self.gpus)
        return ", ".join(parts)


class Meter:
    """Turns counts into figures.

    Parameters
    ----------
    total_s : float
        Seconds of sound that the run is to do.
    """

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._began = time.monotonic()
        self._points: deque[tuple[float, float]] = deque([(self._began, 0.0)])
        self._seen = Figures(total_s=total_s)

    def saw(self, counts: Counts) -> None:
        """Take the counts as they are now."""
        self._seen = Figures(
            sound_s=counts.sound_s,
            total_s=self._total_s,
            segments=counts.segments,
            windows=counts.windows,
            gated=counts.gated,
            detections=counts.detections.total(),
            failed=len(counts.failures),
        )

    def read(self, queues: Mapping[str, int], gpus: tuple[Gpu, ...], cluster: Mapping[str, float]) -> Figures:
        """The figures now, of the counts seen last; another thread may see meanwhile."""
        seen, now = self._seen, time.monotonic()
        if now - self._points[-1][0] >= _RATE_STEP_S:
            self._points.append((now, seen.sound_s))
        while len(self._points) > 2 and now - self._points[1][0] > _RATE_OVER_S:
            self._points.popleft()
        then, sound_then_s = self._points[0]
        rate = (seen.sound_s - sound_then_s) / (now - then) if now > then else 0.0
        return replace(
            seen,
            elapsed_s=now - self._began,
            times_real_time=rate,
            left_s=max(self._total_s - seen.sound_s, 0.0) / rate if rate else None,
            queues=dict(queues),
            gpus=gpus,
            cluster=dict(cluster),
        )


@dataclass(slots=True)
class Counts:
    """What a run did.

    Attributes
    ----------
    recordings : Counter
        Recordings of the archive by status, those of earlier runs included under "done before".
    segments, windows : int
        Committed by this run.
    gated : int
        Windows of those that the gate kept from the model.
    sound_s : float
        Seconds of sound in those segments.
    unreachable : int
        Segments left to a later run, because the place where they lie failed.
    left : int
        Segments left to a later run in all: the run ended early, or they are unreachable.
    answers, captions, embeddings : int
        Rows written.
    detections : Counter
        Rows written, by label.
    failures : list of str
        One sentence for each recording that is not `ok`.
    wall_s : float
        Seconds the run took.
    """

    recordings: Counter[str] = field(default_factory=Counter)
    segments: int = 0
    windows: int = 0
    gated: int = 0
    sound_s: float = 0.0
    unreachable: int = 0
    left: int = 0
    answers: int = 0
    captions: int = 0
    embeddings: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def times_real_time(self) -> float:
        return self.sound_s / self.wall_s if self.wall_s > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        """JSON-serialisable, as the run record keeps it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"times_real_time": self.times_real_time}
