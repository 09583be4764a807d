"""From recordings to segments, the units of work and of commit: pure arithmetic."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from naturelm.config.archive import WindowSettings
from naturelm.ids import segment_id
from naturelm.recordings import Recording
from naturelm.windows import Window, plan_windows, window_count


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of neighbouring windows of one recording.

    Attributes
    ----------
    recording : Recording
        What the header says of the recording.
    first_window, window_count : int
        Indices of its windows, as the recording's claimed duration gives them.
    start_s, end_s : float
        The sound to decode: from the first window's start to the last one's end.
    own_end_s : float
        Where the next segment starts (the last one: the recording's end). Windows may overlap across
        segments; the seconds from `start_s` to here are counted by this segment alone.
    """

    recording: Recording
    first_window: int
    window_count: int
    start_s: float
    end_s: float
    own_end_s: float

    @property
    def id(self) -> str:
        return segment_id(self.recording.recording_id, self.first_window)

    @property
    def day(self) -> Day:
        return Day.of(self.recording)

    def windows(self, decoded_end_s: float, settings: WindowSettings) -> list[Window]:
        """The segment's windows in a recording whose sound ends at `decoded_end_s`."""
        return plan_windows(
            decoded_end_s, settings.length_s, settings.hop_s, self.first_window, self.window_count
        )


@dataclass(frozen=True, slots=True, order=True)
class Day:
    """A station and the local date on which recordings start: the unit of publishing.

    `date` is an ISO date, or "" where it is not known.
    """

    station: str
    date: str

    @classmethod
    def of(cls, recording: Recording) -> Day:
        start = recording.start_local
        return cls.on(recording.station, start.date() if start else None)

    @classmethod
    def on(cls, station: str, date: dt.date | None) -> Day:
        return cls(station, date.isoformat() if date else "")

    def as_date(self) -> dt.date | None:
        return dt.date.fromisoformat(self.date) if self.date else None


def cut_segments(recording: Recording, settings: WindowSettings, segment_windows: int) -> list[Segment]:
    """Cut a recording into segments of `segment_windows` windows.

    A recording without windows (too short, unreadable) is one empty segment, so that its row is
    committed like any other.
    """
    duration_s = recording.duration_s or 0.0
    length_s, hop_s = settings.length_s, settings.hop_s
    count = window_count(duration_s, length_s, hop_s) if recording.has_sound else 0
    if not count:
        return [Segment(recording, 0, 0, 0.0, duration_s, duration_s)]
    segments = []
    for first in range(0, count, segment_windows):
        following = min(first + segment_windows, count)
        end_s = min((following - 1) * hop_s + length_s, duration_s)
        own_end_s = following * hop_s if following < count else duration_s
        segments.append(Segment(recording, first, following - first, first * hop_s, end_s, own_end_s))
    return segments


@dataclass(frozen=True, slots=True)
class Read:
    """Segments of one recording that are decoded in one pass, in order."""

    recording: Recording
    segments: tuple[Segment, ...]

    @property
    def sound_s(self) -> float:
        return sum(segment.end_s - segment.start_s for segment in self.segments)


def group_reads(segments: Iterable[Segment], done: Collection[str]) -> list[Read]:
    """What remains to be decoded, longest first.

    Segments of a seekable recording are read apart, so that all workers share a long one. MP3 and its
    like are decoded from the start whatever part is wanted: their segments are one read.
    """
    apart: list[Read] = []
    together: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.id in done:
            continue
        if segment.recording.seekable:
            apart.append(Read(segment.recording, (segment,)))
        else:
            together.setdefault(segment.recording.recording_id, []).append(segment)
    reads = apart + [Read(parts[0].recording, tuple(parts)) for parts in together.values()]
    # Longest first: no worker is left alone with a long read at the end of the night.
    return sorted(reads, key=lambda read: (-read.sound_s, read.recording.path, read.segments[0].first_window))
