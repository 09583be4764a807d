"""GUANO, the metadata block that bat and bird recorders write into WAV files.

Source: GUANO specification 1.0 (riggsd/guano-spec): UTF-8 lines `Namespace|Field:value` in a `guan` chunk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from naturelm.recordings.names import checked_position


@dataclass(frozen=True)
class GuanoFacts:
    """What a GUANO block says of time and place; None where it says nothing. See `names.NameFacts`."""

    start_local: datetime | None = None
    utc_offset_minutes: int | None = None
    latitude: float | None = None
    longitude: float | None = None


def parse_guano(text: str) -> GuanoFacts:
    """Read `Timestamp` and `Loc Position`; damaged lines are passed over."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    start_local, offset_minutes = _timestamp(fields.get("Timestamp", ""))
    latitude, longitude = None, None
    # The order is latitude, longitude, between them a blank; some writers put a comma.
    if position := re.fullmatch(r"\(?([-+\d.]+)[ ,]+([-+\d.]+)\)?", fields.get("Loc Position", "")):
        latitude, longitude = checked_position(position[1], position[2])
    return GuanoFacts(start_local, offset_minutes, latitude, longitude)


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
