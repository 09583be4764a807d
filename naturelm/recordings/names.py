"""What recorders write into file names: the time, its UTC offset, the place, the station.

Only patterns that a recorder is known to write are read; everything else is unknown, never guessed:

====================================  ==========================================================
`PREFIX_20190522_223000`              Song Meter, AudioMoth with its serial number, Swift
`PREFIX_0+1_20171121$143444`          Song Meter with its channels
`20190522_223000`, `20190522-223000`  AudioMoth, Olympus, Zoom
`20091219T070006.789123+1130_00600`   Frontier Labs BAR-LT; also `2019-05-22T22:30:00Z`
`S2024…+1000_E2024…_-12.3+78.9`       Frontier Labs, from one time to another; position
`5B07DEA0`                            AudioMoth before 2019: seconds since 1970, hexadecimal, UTC
`671629352.181204100002`              SoundTrap: serial number, `YYMMDDhhmmss`
`20070513081940`                      fourteen digits that stand alone
`2359-01012015`                       `hhmm-DDMMYYYY`
====================================  ==========================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


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


_CLOCK = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<dash>[-_.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"[T_$ \-]"
    r"(?P<hour>\d\d)(?P<colon>[-:_.]?)(?P<minute>\d\d)(?P=colon)(?P<second>\d\d)(?!\d)"
    r"(?:[.,](?P<fraction>\d{3,9})(?![0-9A-Za-z]))?"
    r"(?P<offset>Z(?![A-Za-z])|[+-]\d\d:?\d\d(?!\d)|(?P<odd_offset>[+-]\d{1,7}(?!\d)))?"
)
_FOURTEEN_DIGITS = re.compile(
    r"(?<![0-9A-Za-z])(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)"
    r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?![0-9A-Za-z])"
)
_SOUNDTRAP = re.compile(
    r"^\d+\.(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?![0-9A-Za-z])"
)
_CLOCK_FIRST = re.compile(
    r"(?<![0-9A-Za-z])(?P<hour>\d\d)(?P<minute>\d\d)-(?P<day>\d\d)(?P<month>\d\d)(?P<year>(?:19|20)\d\d)(?![0-9A-Za-z])"
)
_HEXADECIMAL = re.compile(r"[0-9A-F]{8}(?=\.[^.]+$)")
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
    if match := _HEXADECIMAL.match(name):
        return _audiomoth_seconds(match[0])
    for pattern in (_CLOCK, _SOUNDTRAP, _FOURTEEN_DIGITS, _CLOCK_FIRST):
        match = pattern.search(name)
        # `123456-9_` may be an offset cut short: then even the local time is in doubt.
        if match is None or match.groupdict().get("odd_offset"):
            continue
        start_local = _datetime(match)
        offset_minutes = _offset_minutes(match.groupdict().get("offset"))
        if start_local is None:
            continue
        latitude, longitude = _position(name[match.end() :])
        return NameFacts(start_local, offset_minutes, latitude, longitude, _station(name))
    return NameFacts()


def _station(name: str) -> str | None:
    match = _STATION.match(name)
    # AudioMoths put their serial number there, which says which recorder it was and not where.
    if match is None or _SERIAL_NUMBER.fullmatch(match["station"]):
        return None
    return match["station"]


def _audiomoth_seconds(digits: str) -> NameFacts:
    # Eight decimal digits are more likely a date or a counter than a time in hexadecimal.
    start = datetime.fromtimestamp(int(digits, 16), UTC)
    if digits.isdecimal() or not _AUDIOMOTH_FIRST <= start.year <= _AUDIOMOTH_LAST:
        return NameFacts()
    return NameFacts(start_local=start.replace(tzinfo=None), utc_offset_minutes=0)


def _datetime(match: re.Match[str]) -> datetime | None:
    parts = match.groupdict()
    year = int(parts["year"])
    hour, minute, second = int(parts["hour"]), int(parts["minute"]), int(parts.get("second") or 0)
    midnight_after = (hour, minute, second) == (24, 0, 0)
    microsecond = int((parts.get("fraction") or "0").ljust(6, "0")[:6])
    try:
        start = datetime(
            year if year > 99 else 2000 + year,
            int(parts["month"]),
            int(parts["day"]),
            0 if midnight_after else hour,
            minute,
            second,
            microsecond,
        )
    except ValueError:
        return None
    return start + timedelta(days=1) if midnight_after else start


def _offset_minutes(text: str | None) -> int | None:
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
