"""GUANO, the metadata block that bat and bird recorders write into WAV files.

Source: GUANO specification 1.0 (riggsd/guano-spec): UTF-8 lines `Namespace|Field:value` in a `guan` chunk. Converters
keep the block as a comment in FLAC and other formats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from naturelm.recordings.names import checked_position

_BEGINNING = "GUANO|Version"
# Above what any detector samples at, a time expansion would be counted twice.
_HIGHEST_RATE_HZ = 1_000_000
_LARGEST_EXPANSION = 100
# Lengths in GUANO are rounded.
_LENGTH_TOLERANCE = 0.05


@dataclass(frozen=True)
class GuanoFacts:
    """What a GUANO block says; None where it says nothing.

    Attributes
    ----------
    start_local, utc_offset_minutes, latitude, longitude
        See `names.NameFacts`.
    time_expansion : float, optional
        `TE`: how many times slower than life the file plays.
    sample_rate_hz, length_s : float, optional
        `Samplerate` and `Length`: of the sound as it was, and so unlike the file's where it plays slower.
    problem : str, optional
        What the block says of time and cannot be used.
    """

    start_local: datetime | None = None
    utc_offset_minutes: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    time_expansion: float | None = None
    sample_rate_hz: float | None = None
    length_s: float | None = None
    problem: str | None = None

    def expansion_of(self, sample_rate_hz: int, frames: int) -> float:
        """How many times slower than life a file plays whose header says so many samples at this rate; mostly 1.

        `TE` says so, and is not believed where the file's own length or rate shows that it plays at the speed of life:
        a converter may have undone the expansion. Without it `Samplerate` says so where `Length` agrees: a file that
        was resampled keeps both.
        """
        played_s = frames / sample_rate_hz
        factor = self.time_expansion
        if factor is not None:
            if factor <= 1 or factor > _LARGEST_EXPANSION or sample_rate_hz * factor > _HIGHEST_RATE_HZ:
                return 1
            return 1 if self.length_s and _is_near(played_s, self.length_s) else factor
        if not self.sample_rate_hz or not self.length_s:
            return 1
        factor = self.sample_rate_hz / sample_rate_hz
        is_whole = factor.is_integer() and 2 <= factor <= _LARGEST_EXPANSION
        return factor if is_whole and _is_near(played_s, factor * self.length_s) else 1


def is_guano(text: str) -> bool:
    """Whether a comment is a GUANO block."""
    return text.lstrip().startswith(_BEGINNING)


def parse_guano(text: str) -> GuanoFacts:
    """Read the fields that say when, where and how slowly; damaged lines are passed over."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    stated = fields.get("Timestamp", "")
    start_local, offset_minutes = _timestamp(stated)
    latitude, longitude = None, None
    # The order is latitude, longitude, between them a blank; some writers put a comma.
    if position := re.fullmatch(r"\(?([-+\d.]+)[ ,]+([-+\d.]+)\)?", fields.get("Loc Position", "")):
        latitude, longitude = checked_position(position[1], position[2])
    return GuanoFacts(
        start_local,
        offset_minutes,
        latitude,
        longitude,
        _positive(fields.get("TE", "")),
        _positive(fields.get("Samplerate", "")),
        _positive(fields.get("Length", "")),
        f"the GUANO timestamp {stated[:40]!r} is not a valid time"
        if stated and start_local is None
        else None,
    )


def _timestamp(text: str) -> tuple[datetime | None, int | None]:
    """ISO 8601, with `T` or a blank between date and time, with or without an offset."""
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        return None, None
    if len(text) <= len("2025-05-03"):  # a date alone is not a start
        return None, None
    offset = stamp.utcoffset()
    return stamp.replace(tzinfo=None), None if offset is None else round(offset.total_seconds() / 60)


def _positive(text: str) -> float | None:
    # More digits are not a measurement.
    try:
        number = float(text[:40])
    except ValueError:
        return None
    return number if 0 < number < 1e12 else None


def _is_near(seconds: float, expected_s: float) -> bool:
    return abs(seconds - expected_s) <= _LENGTH_TOLERANCE * expected_s
