"""What recorders write into file names: the time, its UTC offset, the place, the station.

Only the patterns of `PATTERNS` are read, each written by a known recorder; everything else is unknown, never guessed.
docs/contributing/adding-a-recorder.md shows how to add one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple


@dataclass(frozen=True)
class NameFacts:
    """What a file name says; None where it says nothing.

    Attributes
    ----------
    start_local : datetime, optional
        The recorder's clock at the first sample, without zone.
    utc_offset_minutes : int, optional
        Minutes that clock is ahead of UTC.
    latitude, longitude : float, optional
        Degrees north and east.
    station : str, optional
        The recorder's prefix.
    """

    start_local: datetime | None = None
    utc_offset_minutes: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    station: str | None = None


class NamePattern(NamedTuple):
    """One way of writing a time into a file name.

    Attributes
    ----------
    recorders : str
        What writes such names.
    example : str
        Such a name.
    regex : re.Pattern
        Searched for in the name with its extension. Groups by name: `year` (two or four digits), `month`, `day`,
        `hour`, `minute`, and where the recorder writes them `second`, `fraction` (digits after the decimal point),
        `offset` (`Z`, `+0200`, `-03:30`), `station`; or instead of all these, `unix_seconds` (hexadecimal, UTC).
        With a match of `doubtful_offset` even the local time is in doubt, and the pattern does not count. Without a
        group `station`, the text before the time is the station where it is written as `STATION_20190522_223000`.
    """

    recorders: str
    example: str
    regex: re.Pattern[str]


PATTERNS: tuple[NamePattern, ...] = (
    NamePattern(
        "AudioMoth before 2019: seconds since 1970 in hexadecimal",
        "5B07DEA0.WAV",
        # Eight decimal digits are more likely a date or a counter.
        re.compile(r"^(?!\d{8}\.)(?P<unix_seconds>[0-9A-F]{8})(?=\.[^.]+$)"),
    ),
    NamePattern(
        "Song Meter, AudioMoth, Swift, Olympus, Zoom, Frontier Labs BAR-LT",
        "S4A03895_20190522_223000.wav",
        re.compile(
            r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<dash>[-_.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
            r"[T_$ \-]"
            r"(?P<hour>\d\d)(?P<colon>[-:_.]?)(?P<minute>\d\d)(?P=colon)(?P<second>\d\d)(?!\d)"
            r"(?:[.,](?P<fraction>\d{3,9})(?![0-9A-Za-z]))?"
            # `123456-9_` may be an offset cut short.
            r"(?P<offset>Z(?![A-Za-z])|[+-]\d\d:?\d\d(?!\d)|(?P<doubtful_offset>[+-]\d{1,7}(?!\d)))?"
        ),
    ),
    NamePattern(
        "SoundTrap: serial number, then yymmddhhmmss",
        "671629352.181204100002.wav",
        re.compile(
            r"^\d+\.(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)"
            r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?![0-9A-Za-z])"
        ),
    ),
    NamePattern(
        "several: fourteen digits that stand alone",
        "20070513081940.wav",
        re.compile(
            r"(?<![0-9A-Za-z])(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)"
            r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?![0-9A-Za-z])"
        ),
    ),
    NamePattern(
        "several: hhmm-ddmmyyyy",
        "2359-01012015.mp3",
        re.compile(
            r"(?<![0-9A-Za-z])(?P<hour>\d\d)(?P<minute>\d\d)-"
            r"(?P<day>\d\d)(?P<month>\d\d)(?P<year>(?:19|20)\d\d)(?![0-9A-Za-z])"
        ),
    ),
)
"""Tried in this order; the first that gives a possible time counts."""

_SIGNED_POSITION = re.compile(r"(?<=[_ \[(])([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)(?!\.?\d)")
_SPACED_POSITION = re.compile(r"(?<=[_ \[(])(-?\d{1,2}\.\d+)[ ,]+(-?\d{1,3}\.\d+)(?=[_ \])])")
_STATION = re.compile(
    r"^(?P<station>[^\s~]*?[A-Za-z][^\s~]*?)(?:_(?:[01ABab]|0\+1))?_(?:19|20)\d{6}[_$]\d{6}(?!\d)"
)
_SERIAL_NUMBER = re.compile(r"[0-9A-F]{16}")

_AUDIOMOTH_FIRST, _AUDIOMOTH_LAST = 2017, 2037


def parse_name(name: str) -> NameFacts:
    """Read a recording's file name.

    Parameters
    ----------
    name : str
        File name with its extension, without directories.

    Returns
    -------
    NameFacts
        An impossible date (month 13) is no date; `24:00:00` is the next midnight. A position needs a date
        before it. Fractions of a second survive to the microsecond.

    Examples
    --------
    >>> parse_name("weird20180801_240000-1030.wav").start_local
    datetime.datetime(2018, 8, 2, 0, 0)
    """
    for pattern in PATTERNS:
        match = pattern.regex.search(name)
        if match is None:
            continue
        written = match.groupdict()
        if written.get("doubtful_offset"):
            continue
        start_local = _unix_time(written) if written.get("unix_seconds") else _local_time(written)
        if start_local is None:
            continue
        latitude, longitude = _position(name[match.end() :])
        station = written.get("station") or _station(name)
        return NameFacts(start_local, _offset_minutes(written), latitude, longitude, station)
    return NameFacts()


def _station(name: str) -> str | None:
    match = _STATION.match(name)
    # AudioMoths put their serial number there, which says which recorder it was and not where.
    if match is None or _SERIAL_NUMBER.fullmatch(match["station"]):
        return None
    return match["station"]


def _unix_time(written: dict[str, str]) -> datetime | None:
    start = datetime.fromtimestamp(int(written["unix_seconds"], 16), UTC).replace(tzinfo=None)
    return start if _AUDIOMOTH_FIRST <= start.year <= _AUDIOMOTH_LAST else None


def _local_time(written: dict[str, str]) -> datetime | None:
    year, month, day, hour, minute, second = (
        int(written.get(unit) or 0) for unit in ("year", "month", "day", "hour", "minute", "second")
    )
    midnight_after = (hour, minute, second) == (24, 0, 0)
    microsecond = int((written.get("fraction") or "0").ljust(6, "0")[:6])
    try:
        start = datetime(
            year if year > 99 else 2000 + year,
            month,
            day,
            0 if midnight_after else hour,
            minute,
            second,
            microsecond,
        )
    except ValueError:
        return None
    return start + timedelta(days=1) if midnight_after else start


def _offset_minutes(written: dict[str, str]) -> int | None:
    text = "Z" if written.get("unix_seconds") else written.get("offset")
    if text is None:
        return None
    if text == "Z":
        return 0
    hours, minutes = int(text[1:3]), int(text[-2:])
    if hours > 14 or minutes > 59:
        return None
    return (-1 if text[0] == "-" else 1) * (60 * hours + minutes)


def _position(rest: str) -> tuple[float | None, float | None]:
    # One character of overlap: the offset or the time may end right where `_` begins.
    match = _SIGNED_POSITION.search(rest) or _SPACED_POSITION.search(rest)
    return checked_position(match[1], match[2]) if match else (None, None)


def checked_position(latitude: str, longitude: str) -> tuple[float | None, float | None]:
    """Degrees north and east, or (None, None) where they are no place on Earth.

    0, 0 is what a receiver without a fix reports, not a place where anyone records.
    """
    try:
        north, east = float(latitude), float(longitude)
    except ValueError:
        return None, None
    if not (-90 <= north <= 90 and -180 <= east <= 180) or (north, east) == (0.0, 0.0):
        return None, None
    return north, east
