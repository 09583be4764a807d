"""What recorders write into file names: the time, its UTC offset, the place, the station.

The patterns of `PATTERNS` are read, each written by a known recorder. A date in no such pattern is read where its
digits can be a date in one way only (see `readings`). Everything else is unknown, never guessed.
docs/contributing/adding-a-recorder.md shows how to add a recorder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from naturelm.recordings.readings import readings
from naturelm.recordings.times import is_possible_offset


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
        `half` (`AM` or `PM`), `offset` (`Z`, `+0200`, `-03:30`, `(UTC-5)`), `station`; or instead of all these,
        `unix_seconds` (hexadecimal, UTC). With a match of `doubtful_offset` even the local time is in doubt, and the
        pattern does not count. Without a group `station`, the text before the time is the station where it is written
        as `STATION_20190522_223000`.
    """

    recorders: str
    example: str
    regex: re.Pattern[str]


_YEAR = r"(?P<year>(?:19|20)\d\d)"
_MONTH_DAY = r"(?P<month>\d\d)(?P<day>\d\d)"
_DATE = rf"{_YEAR}(?P<dash>[-_.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
_SHORT_DATE = rf"(?P<year>\d\d){_MONTH_DAY}"
_CLOCK = r"(?P<hour>\d\d)(?P<colon>[-:_. ]?)(?P<minute>\d\d)(?P=colon)(?P<second>\d\d)"
_SHORT_CLOCK = r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)"
_HALF = r"(?:[ _]?(?P<half>[AaPp][Mm])(?![A-Za-z]))?"
# Behind a point, or milliseconds behind a `_` at the end of the name.
_FRACTION = r"(?:[.,](?P<fraction>\d{3,9})(?=Z?(?![0-9A-Za-z]))|_(?P<milliseconds>\d{3})(?=\.[^.]*$|$))?"
_OFFSET = (
    r"(?:[_ ]?(?P<offset>Z|[+-]\d\d:?\d\d|(?<=\d)\+\d\d|\(?(?:UTC|GMT)(?:[+-]\d{1,2}(?::?\d\d)?)?\)?)(?![0-9A-Za-z+-])"
    # `123456-9_` may be an offset cut short.
    r"|(?P<doubtful_offset>[+-]\d{1,7})(?![0-9A-Za-z]))?"
)
_NO_DIGIT_BEFORE, _NO_DIGIT_AFTER = r"(?<!\d)", r"(?!\d)"
_ALONE_BEFORE, _ALONE_AFTER = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"

PATTERNS: tuple[NamePattern, ...] = (
    NamePattern(
        "AudioMoth before 2019: seconds since 1970 in hexadecimal",
        "5B07DEA0.WAV",
        # Eight decimal digits are more likely a date or a counter.
        re.compile(r"^(?!\d{8}\.)(?P<unix_seconds>[0-9A-Fa-f]{8})(?=\.[^.]+$)"),
    ),
    NamePattern(
        "Frontier Labs BAR-LT: from one time to another, milliseconds without a point",
        "S20240205T035946676+1000_E20240205T040546676+1000.wav",
        re.compile(
            rf"{_NO_DIGIT_BEFORE}{_YEAR}{_MONTH_DAY}T{_SHORT_CLOCK}(?P<milliseconds>\d{{3}}){_NO_DIGIT_AFTER}{_OFFSET}"
        ),
    ),
    NamePattern(
        "Song Meter, AudioMoth, Swift, Olympus, Zoom, Frontier Labs BAR-LT, Loggerhead, AMAR, icListen",
        "S4A03895_20190522_223000.wav",
        re.compile(
            rf"{_NO_DIGIT_BEFORE}{_DATE}(?:[T_$]|__|--?| (?:(?:-|at) )?){_CLOCK}{_NO_DIGIT_AFTER}"
            rf"{_HALF}{_FRACTION}{_OFFSET}"
        ),
    ),
    NamePattern(
        "BirdNET-Pi: behind a species and a confidence, or not",
        "Strix_aluco-96-2024-05-04-birdnet-23:59:21.mp3",
        re.compile(
            rf"{_NO_DIGIT_BEFORE}{_DATE}-birdnet-(?:RTSP_\d+-)?{_CLOCK}{_NO_DIGIT_AFTER}{_FRACTION}{_OFFSET}"
        ),
    ),
    NamePattern(
        "Frontier Labs, some firmware: blanks in place of zeros",
        "202405 8T020000+1000_REC.flac",
        re.compile(
            rf"{_NO_DIGIT_BEFORE}{_YEAR}(?P<month>[ \d]\d)(?P<day>[ \d]\d)T"
            rf"(?P<hour>[ \d]\d)(?P<minute>[ \d]\d)(?P<second>[ \d]\d){_NO_DIGIT_AFTER}{_FRACTION}{_OFFSET}"
        ),
    ),
    NamePattern(
        "Arbimon, phones: to the minute, with a separator that a counter does not have",
        "LAKE-2024-05-10_05-30.flac",
        re.compile(
            rf"{_NO_DIGIT_BEFORE}{_YEAR}(?P<dash>[-_.])(?P<month>\d\d)(?P=dash)(?P<day>\d\d)[T_ \-]"
            rf"(?P<hour>\d\d)[-:_.h](?P<minute>\d\d)(?![0-9:])(?![-_.]\d\d(?!\d)){_HALF}{_OFFSET}"
        ),
    ),
    NamePattern(
        "ISO 8601 to the minute",
        "20240510T0530Z.wav",
        re.compile(rf"{_NO_DIGIT_BEFORE}{_DATE}T(?P<hour>\d\d):?(?P<minute>\d\d)(?![0-9:]){_OFFSET}"),
    ),
    NamePattern(
        "SoundTrap: serial number, then yymmddhhmmss",
        "671629352.181204100002.wav",
        re.compile(rf"^\d+\.{_SHORT_DATE}{_SHORT_CLOCK}{_ALONE_AFTER}"),
    ),
    NamePattern(
        "several: fourteen digits that stand alone or behind a word",
        "REC20240510053000.wav",
        re.compile(
            rf"(?:{_ALONE_BEFORE}|(?<=[A-Za-z][A-Za-z])){_YEAR}{_MONTH_DAY}{_SHORT_CLOCK}"
            rf"(?:[.,]?(?P<fraction>\d{{3}}))?(?=Z?(?![0-9A-Za-z])){_OFFSET}"
        ),
    ),
    NamePattern(
        "several: hhmm-ddmmyyyy",
        "2359-01012015.mp3",
        re.compile(
            rf"{_ALONE_BEFORE}(?P<hour>\d\d)(?P<minute>\d\d)-(?P<day>\d\d)(?P<month>\d\d){_YEAR}{_ALONE_AFTER}"
        ),
    ),
    NamePattern(
        "Zoom H1n and its like: yymmdd-hhmmss",
        "240507-224636.WAV",
        re.compile(rf"^{_SHORT_DATE}-{_SHORT_CLOCK}(?=[._ ]|$)"),
    ),
    NamePattern(
        "WISPR: yymmdd_hhmmss",
        "WISPR_240504_195202.flac",
        re.compile(rf"(?:^|_)WISPR_{_SHORT_DATE}_{_SHORT_CLOCK}{_NO_DIGIT_AFTER}"),
    ),
    NamePattern(
        "HARP: yymmdd_hhmmss",
        "SOCAL26H_080604_123456.x.wav",
        re.compile(rf"_{_SHORT_DATE}_{_SHORT_CLOCK}(?=(?:\.d[f\d]*\d+)?\.x\.(?:wav|flac)$|\.xwav$)"),
    ),
    NamePattern(
        "Samsung phones: yymmdd_hhmmss",
        "Voice 240510_053000.m4a",
        re.compile(rf"^Voice {_SHORT_DATE}_{_SHORT_CLOCK}{_NO_DIGIT_AFTER}"),
    ),
)
"""Tried in this order; the first that gives a possible time counts."""

_SIGNED_POSITION = re.compile(r"(?<=[_ \[(])([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)(?!\.?\d)")
_SPACED_POSITION = re.compile(r"(?<=[_ \[(])(-?\d{1,2}\.\d+)[ ,]+(-?\d{1,3}\.\d+)(?=[_ \])])")
_STATION = re.compile(
    r"^(?P<station>[^\s~]*?[A-Za-z][^\s~]*?)(?:_(?:[01ABab]|0\+1))?"
    r"(?:_(?:19|20)\d{6}[_$]\d{6}(?!\d)|[-_](?:19|20)\d\d-\d\d-\d\d[_T]\d\d[-_.:]\d\d|_\d{6}_\d{6}(?!\d))"
)
_SERIAL_NUMBER = re.compile(r"[0-9A-F]{16}")
# Prefixes that name the kind of recorder or file, or what a detector made of it.
_NOT_STATIONS = frozenset({
    "WISPR", "REC", "RECORDING", "VOICE", "AUDIO", "AUD", "VID", "IMG", "NOID", "NO_ID", "NOISE", "UNKNOWN",
})  # fmt: skip
# Bat detectors write what they take a bat for: three letters of the genus and three of the species.
_BAT_SPECIES = re.compile(
    r"(?:ANT|BAR|COR|EPT|EUD|EUM|HYP|IDI|LAS|MIN|MIO|MOL|MOR|MYO|NYC|OTO|PAR|PER|PIP|PLE|RHI|TAD|VES)[A-Z]{3}"
)

_AUDIOMOTH_FIRST, _AUDIOMOTH_LAST = 2017, 2037
# Of a year, and of a month, day, hour and minute with blanks in place of zeros.
_LEAST_DIGITS = 8


def parse_name(name: str) -> NameFacts:
    """Read a recording's file name.

    Parameters
    ----------
    name : str
        File name with its extension, without directories.

    Returns
    -------
    NameFacts
        An impossible date (month 13) is not used; `24:00:00` is the next midnight. A position needs a date
        before it. Fractions of a second survive to the microsecond.

    Examples
    --------
    >>> parse_name("weird20180801_240000-1030.wav").start_local
    datetime.datetime(2018, 8, 2, 0, 0)
    """
    has_date = sum(map(str.isdigit, name)) >= _LEAST_DIGITS
    for pattern in PATTERNS:
        match = pattern.regex.search(name) if has_date or "unix_seconds" in pattern.regex.groupindex else None
        if match is None:
            continue
        written = match.groupdict()
        if written.get("doubtful_offset"):
            continue
        start_local = _unix_time(written) if written.get("unix_seconds") else _local_time(written)
        if start_local is not None:
            return _facts(name, match.end(), start_local, _offset_minutes(written), written.get("station"))
    possible = list(readings(name))
    if len(possible) == 1 and possible[0].is_sure:
        return _facts(name, possible[0].end, possible[0].start_local, None, None)
    return NameFacts()


def _facts(
    name: str, end: int, start_local: datetime, offset_minutes: int | None, station: str | None
) -> NameFacts:
    latitude, longitude = _position(name[end:])
    return NameFacts(start_local, offset_minutes, latitude, longitude, station or station_in_name(name))


def station_in_name(name: str) -> str | None:
    """The prefix by which a file name says its station; None where it has none.

    The serial number that AudioMoths put there says which recorder it was and not where, and a species' code what a
    detector took the sound for.
    """
    match = _STATION.match(name)
    if match is None:
        return None
    prefix = match["station"]
    is_species = _BAT_SPECIES.fullmatch(prefix) or prefix.upper() in _NOT_STATIONS
    return None if is_species or _SERIAL_NUMBER.fullmatch(prefix) else prefix


def _unix_time(written: dict[str, str]) -> datetime | None:
    start = datetime.fromtimestamp(int(written["unix_seconds"], 16), UTC).replace(tzinfo=None)
    return start if _AUDIOMOTH_FIRST <= start.year <= _AUDIOMOTH_LAST else None


def _local_time(written: dict[str, str]) -> datetime | None:
    year, month, day, hour, minute, second = (
        int(written.get(unit) or 0) for unit in ("year", "month", "day", "hour", "minute", "second")
    )
    if half := written.get("half"):
        hour = hour % 12 + (12 if half.upper() == "PM" else 0)
    midnight_after = (hour, minute, second) == (24, 0, 0)
    fraction = written.get("fraction") or written.get("milliseconds") or "0"
    try:
        start = datetime(
            year if year > 99 else 2000 + year,
            month,
            day,
            0 if midnight_after else hour,
            minute,
            second,
            int(fraction.ljust(6, "0")[:6]),
        )
    except ValueError:
        return None
    return start + timedelta(days=1) if midnight_after else start


def _offset_minutes(written: dict[str, str]) -> int | None:
    text = "Z" if written.get("unix_seconds") else written.get("offset")
    if text is None:
        return None
    sign = re.search(r"([+-])(\d{1,2}):?(\d\d)?", text)
    if sign is None:
        return 0
    hours, minutes = int(sign[2]), int(sign[3] or 0)
    offset = (-1 if sign[1] == "-" else 1) * (60 * hours + minutes)
    return offset if minutes <= 59 and is_possible_offset(offset) else None


def _position(rest: str) -> tuple[float | None, float | None]:
    # One character of overlap: the offset or the time may end right where `_` begins.
    match = _SIGNED_POSITION.search(rest) or _SPACED_POSITION.search(rest)
    return checked_position(match[1], match[2]) if match else (None, None)


def checked_position(latitude: str, longitude: str) -> tuple[float | None, float | None]:
    """Degrees north and east, or (None, None) where they are not on Earth.

    0, 0 is what a receiver without a fix reports, not a place where anyone records.
    """
    try:
        north, east = float(latitude), float(longitude)
    except ValueError:
        return None, None
    if not (-90 <= north <= 90 and -180 <= east <= 180) or (north, east) == (0.0, 0.0):
        return None, None
    return north, east
