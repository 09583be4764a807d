"""Which segments a run does, and which of them first: pure arithmetic.

Whole segments are chosen and not windows: a segment is committed once and whole, so that another choice
later can neither do a window twice nor leave one out.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from naturelm.config.archive import Order, SelectionSettings, WindowSettings
from naturelm.config.spans import DAY_MINUTES, parse_dates, parse_hours
from naturelm.errors import NaturelmError
from naturelm.recordings import Recording
from naturelm.recordings.sun import sun_times
from naturelm.segments import Read, Segment, cut_segments
from naturelm.text import composed, suggestion

# More windows than any recording has.
_WHOLE = 1 << 40
# Where the position, and with it the sun, is not known.
_USUAL_SUNRISE_H = 6.0


class Selection:
    """Says which segments are wanted.

    Parameters
    ----------
    settings : SelectionSettings
        A segment is within dates and hours if one of its windows starts there, by the local time at which the
        sound was made. One whose time is not known is within none, or with `include_undated` within all.
    hop_s : float
        Seconds between window starts.
    """

    def __init__(self, settings: SelectionSettings, hop_s: float) -> None:
        self._stations = frozenset(composed(name) for name in settings.stations)
        self._dates = parse_dates(settings.dates) if settings.dates else None
        self._hours = parse_hours(settings.hours) if settings.hours else ((0, DAY_MINUTES),)
        self._needs_time = bool(settings.dates or settings.hours)
        self._include_undated = settings.include_undated
        self._sample = settings.sample
        self._hop_s = hop_s

    def choose(self, segments: Iterable[Segment]) -> list[Segment]:
        """The wanted ones, in the order given.

        The sample is taken of each station's segments in each hour of the day, evenly over the dates; what
        `sample: 0.1` chooses is part of what `sample: 0.2` does. Recordings without windows stay: their rows
        cost nothing.
        """
        wanted = [segment for segment in segments if self.holds(segment)]
        kept = [index for index, segment in enumerate(wanted) if not segment.window_count]
        sound = [index for index, segment in enumerate(wanted) if segment.window_count]
        for members in _strata([wanted[index] for index in sound]).values():
            share = math.ceil(self._sample * len(members) - 1e-9)
            kept += [sound[member] for member in members[:share]]
        return [wanted[index] for index in sorted(kept)]

    def holds(self, segment: Segment) -> bool:
        """Whether a segment lies at the stations and within the dates and hours."""
        if self._stations and segment.recording.station not in self._stations:
            return False
        if not self._needs_time:
            return True
        first = start_of(segment)
        if first is None:
            return self._include_undated
        last = first + dt.timedelta(seconds=max(0, segment.window_count - 1) * self._hop_s)
        day = first.date()
        while day <= last.date():
            from_minute = _minute(first) if day == first.date() else 0.0
            to_minute = _minute(last) if day == last.date() else float(DAY_MINUTES)
            if self._is_wanted(day) and any(a <= to_minute and from_minute < b for a, b in self._hours):
                return True
            day += dt.timedelta(days=1)
        return False

    def _is_wanted(self, day: dt.date) -> bool:
        return self._dates is None or any(first <= day <= last for first, last in self._dates)


def check_selection(
    recordings: Sequence[Recording], settings: SelectionSettings, windows: WindowSettings
) -> int:
    """Check that stations, dates and hours match something, and count what has no time to match them by.

    Returns
    -------
    int
        Recordings that dates and hours leave out because their start time is not known.

    Raises
    ------
    NaturelmError
        No recording is from one of the stations, or none lies within the dates, the hours, or both at the stations.
    """
    stations = {recording.station for recording in recordings}
    for name in settings.stations:
        if composed(name) not in stations:
            raise NaturelmError(
                f"--stations: no recording is from station {name!r}; {suggestion(name, stations)}"
            )
    if not (settings.dates or settings.hours):
        return 0
    sound = [recording for recording in recordings if recording.status == "ok"]
    undated = sum(recording.start_local is None for recording in sound)
    for flags, chosen in (
        ("--dates", settings.model_copy(update={"hours": None, "stations": ()})),
        ("--hours", settings.model_copy(update={"dates": None, "stations": ()})),
        ("--dates, --hours and --stations together", settings),
    ):
        if not _matches_any(sound, chosen, windows):
            starts = sorted(recording.start_local for recording in sound if recording.start_local is not None)
            there = (
                f"recordings start between {starts[0]:%Y-%m-%d %H:%M} and {starts[-1]:%Y-%m-%d %H:%M}, local time"
                if starts
                else "no recording has a known start time"
            )
            without = (
                f"; {undated} have no known start time (--include-undated)" if starts and undated else ""
            )
            raise NaturelmError(f"{flags}: nothing is within {_described(chosen)}; {there}{without}")
    return 0 if settings.include_undated else undated


def _matches_any(
    recordings: Sequence[Recording], settings: SelectionSettings, windows: WindowSettings
) -> bool:
    if not (settings.dates or settings.hours):
        return True
    selection = Selection(settings, windows.hop_s)
    # One segment that is the whole recording lies within whatever a part of it lies within.
    return any(
        selection.holds(segment)
        for recording in recordings
        for segment in cut_segments(recording, windows, _WHOLE)
    )


def _described(settings: SelectionSettings) -> str:
    return " ".join(filter(None, [settings.dates, settings.hours, *settings.stations]))


def in_order(reads: Sequence[Read], order: Order) -> list[Read]:
    """Reads with those first that `order` wants first; `longest-first` is how `group_reads` has them."""
    if order == "longest-first":
        return list(reads)
    if order == "spread":
        share = [0.0] * len(reads)
        for stratum, members in _strata([read.segments[0] for read in reads]).items():
            # Strata of equal size must not all take their turn at the same moment.
            phase = _phase(stratum)
            for rank, index in enumerate(members):
                share[index] = (rank + phase) / len(members)
        return [reads[index] for index in sorted(range(len(reads)), key=share.__getitem__)]
    if order == "dawn-first":
        return sorted(reads, key=lambda read: (_from_sunrise_h(read.segments[0]), *_when(read.segments[0])))
    known = [read for read in reads if start_of(read.segments[0]) is not None]
    unknown = [read for read in reads if start_of(read.segments[0]) is None]
    return sorted(known, key=lambda read: _when(read.segments[0]), reverse=order == "newest") + unknown


def start_of(segment: Segment) -> dt.datetime | None:
    """Local time of a segment's first sample."""
    start = segment.recording.start_local
    return None if start is None else start + dt.timedelta(seconds=segment.start_s)


def even_order(count: int) -> npt.NDArray[np.int64]:
    """0 … count − 1 so that every beginning is spread evenly: first 0, then the middle, then the quarters.

    The van der Corput sequence: indices in the order of their reversed bits.
    """
    bits = max(1, (count - 1).bit_length())
    index = np.arange(1 << bits, dtype=np.int64)
    mirrored = np.zeros_like(index)
    for bit in range(bits):
        mirrored |= ((index >> bit) & 1) << (bits - 1 - bit)
    return mirrored[mirrored < count]


def _strata(segments: Sequence[Segment]) -> dict[Hashable, list[int]]:
    """Indices of the segments of each station and hour of the day, every beginning even over the dates."""
    strata: dict[Hashable, list[int]] = defaultdict(list)
    for index, segment in enumerate(segments):
        start = start_of(segment)
        strata[segment.recording.station, start.hour if start else None].append(index)
    even: dict[Hashable, list[int]] = {}
    for stratum, members in strata.items():
        members.sort(key=lambda index: _when(segments[index]))
        # Not every stratum begins with the first date.
        first = int(_phase(stratum) * len(members))
        even[stratum] = [members[(first + rank) % len(members)] for rank in even_order(len(members))]
    return even


def _phase(stratum: Hashable) -> float:
    """A number in [0, 1) that looks random and is the same on every machine."""
    return zlib.crc32(repr(stratum).encode()) / (1 << 32)


def _when(segment: Segment) -> tuple[dt.datetime, str, int]:
    return start_of(segment) or dt.datetime.min, segment.recording.path, segment.first_window


def _minute(time: dt.datetime) -> float:
    return time.hour * 60 + time.minute + time.second / 60


def _from_sunrise_h(segment: Segment) -> float:
    start = start_of(segment)
    if start is None:
        return math.inf
    place = segment.recording
    sunrise_h = _USUAL_SUNRISE_H
    if place.latitude is not None and place.longitude is not None and place.utc_offset_minutes is not None:
        sunrise_h = _sunrise_h(place.latitude, place.longitude, start.date(), place.utc_offset_minutes)
    away_h = abs(_minute(start) / 60 - sunrise_h)
    return min(away_h, 24 - away_h)


@functools.lru_cache(maxsize=4096)
def _sunrise_h(latitude: float, longitude: float, date: dt.date, utc_offset_minutes: int) -> float:
    up_h = sun_times(latitude, longitude, date, utc_offset_minutes).up_h
    return _USUAL_SUNRISE_H if up_h is None else up_h
