"""What an archive holds, according to headers and names: hours, stations, dates, pauses, overlaps, broken files."""

from __future__ import annotations

import datetime as dt
import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from naturelm.recordings import Recording
from naturelm.recordings.name_patterns import AmbiguousNames, ambiguous_names
from naturelm.recordings.times import clock_remark

# Recorders round the time in a name to a second, and start the next file while they close the last.
_TOLERANCE_S = 2.0
# A pause is one start missed, not a start that came a little late.
_LONGER_THAN_USUAL = 1.5


@dataclass(slots=True)
class Pause:
    """Time between two recordings of a station: without sound, or with twice as much (`seconds` below 0)."""

    station: str
    after: str
    at: dt.datetime
    seconds: float


@dataclass(slots=True)
class StationSurvey:
    """What is there of one station."""

    recordings: int = 0
    sound_s: float = 0.0
    first: dt.datetime | None = None
    last: dt.datetime | None = None


@dataclass(slots=True)
class Survey:
    """What an archive holds.

    Attributes
    ----------
    recordings : int
    sound_s : float
        As headers claim.
    statuses : Counter
        Recordings by status.
    broken : list of str
        One sentence for each recording that is not `ok`.
    stations : dict of str to StationSurvey
        In alphabetical order.
    dates : int
        Station-days on which recordings start.
    without_time, without_utc : int
        Recordings whose start is not known, and those of which only local time is.
    copies : int
        Recordings that have the content of another one.
    ambiguous : list of AmbiguousNames
        Names that may contain a time and need a pattern.
    clocks : list of str
        One sentence for each recording whose clock is doubtful.
    remarks : list of str
        One sentence for each thing in metadata that was corrected or cannot be used.
    gaps : list of Pause
        Between recordings whose starts lie further apart than is usual at the station; the longest first.
    overlaps : list of Pause
        Recordings that begin before the one before them ends; the longest first.
    """

    recordings: int = 0
    sound_s: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    stations: dict[str, StationSurvey] = field(default_factory=dict)
    dates: int = 0
    without_time: int = 0
    without_utc: int = 0
    copies: int = 0
    ambiguous: list[AmbiguousNames] = field(default_factory=list)
    clocks: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    gaps: list[Pause] = field(default_factory=list)
    overlaps: list[Pause] = field(default_factory=list)


def copied(recordings: Sequence[Recording]) -> list[tuple[Recording, Recording]]:
    """Recordings with the same content as an earlier one, each after that one: a card that was copied twice."""
    first: dict[str, Recording] = {}
    copies = []
    for recording in recordings:
        if recording.content is not None and recording.size_bytes:
            original = first.setdefault(recording.content, recording)
            if original is not recording:
                copies.append((original, recording))
    return copies


def survey(recordings: Sequence[Recording]) -> Survey:
    """Count what recordings hold, and look for pauses and overlaps between those of each station."""
    found = Survey(recordings=len(recordings), ambiguous=ambiguous_names(recordings))
    now = dt.datetime.now()
    days = set()
    by_station: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        found.statuses[recording.status] += 1
        if recording.status != "ok":
            found.broken.append(f"{recording.path}: {recording.status} ({recording.error})")
        if recording.has_sound:
            found.sound_s += recording.duration_s or 0.0
        start = recording.start_local
        found.without_time += start is None
        found.without_utc += start is not None and recording.start_time is None
        if start is not None:
            days.add((recording.station, start.date()))
        clock = clock_remark(start, now)
        if clock is not None:
            found.clocks.append(f"{recording.path}: {clock}")
        found.remarks.extend(f"{recording.path}: {remark}" for remark in recording.remarks)
        by_station[recording.station].append(recording)
    found.dates = len(days)
    found.copies = len(copied(recordings))
    for station in sorted(by_station):
        own = by_station[station]
        starts = [recording.start_local for recording in own if recording.start_local is not None]
        found.stations[station] = StationSurvey(
            len(own),
            sum(recording.duration_s or 0.0 for recording in own if recording.has_sound),
            min(starts, default=None),
            max(starts, default=None),
        )
        _look_between(own, found)
    found.gaps.sort(key=lambda pause: -pause.seconds)
    found.overlaps.sort(key=lambda pause: pause.seconds)
    return found


def _look_between(recordings: Sequence[Recording], found: Survey) -> None:
    """Pauses between the recordings of one station.

    UTC counts where it is known of all, so that a change of the clocks is not a gap.
    """
    known = [r for r in recordings if r.start_local is not None and r.duration_s is not None]
    in_utc = all(recording.start_time is not None for recording in known)

    def start(recording: Recording) -> dt.datetime:
        time = recording.start_time if in_utc else recording.start_local
        assert time is not None
        return time

    known.sort(key=lambda recording: (start(recording), recording.path))
    apart_s = [(start(after) - start(before)).total_seconds() for before, after in itertools.pairwise(known)]
    if not apart_s:
        return
    usual_s = statistics.median(apart_s)
    for (before, after), interval_s in zip(itertools.pairwise(known), apart_s, strict=True):
        assert before.duration_s is not None
        assert after.start_local is not None
        pause_s = interval_s - before.duration_s
        pause = Pause(before.station, before.path, after.start_local, pause_s)
        if pause_s < -_TOLERANCE_S:
            found.overlaps.append(pause)
        elif pause_s > _TOLERANCE_S and interval_s > _LONGER_THAN_USUAL * usual_s:
            found.gaps.append(pause)
