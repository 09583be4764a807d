"""What a run did, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


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
    answers, captions : int
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
    detections: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def times_real_time(self) -> float:
        return self.sound_s / self.wall_s if self.wall_s > 0 else 0.0
