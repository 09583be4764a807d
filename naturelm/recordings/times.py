"""Which times a recording can have, and which of them make its clock doubtful."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# Far from both ends of the calendar, so that adding an offset or the length of a recording never leaves it, and within
# what nanoseconds in 64 bits reach.
_EARLIEST, _LATEST = datetime(1900, 1, 1), datetime(2200, 1, 1)
_MOST_OFFSET_MINUTES = 15 * 60
CLOCK_STARTS = (1970, 1980, 2000)
"""Years in which clocks begin that have lost their power: Unix, FAT file systems, and most clock chips."""


def is_possible_start(start: datetime) -> bool:
    """Whether a recording can have begun then, by a clock without zone."""
    return _EARLIEST <= start < _LATEST


def is_possible_offset(minutes: int) -> bool:
    """Whether a zone can be so many minutes ahead of UTC."""
    return abs(minutes) <= _MOST_OFFSET_MINUTES


def in_utc(start_local: datetime, offset_minutes: int) -> datetime:
    """UTC of a local time, both of them possible."""
    return (start_local - timedelta(minutes=offset_minutes)).replace(tzinfo=UTC)


def clock_remark(start_local: datetime | None, now: datetime) -> str | None:
    """What makes a recorder's clock doubtful, in one sentence; None where nothing does.

    Parameters
    ----------
    start_local : datetime, optional
        Start of the recording, without zone.
    now : datetime
        Local time, without zone.
    """
    if start_local is None:
        return None
    if start_local.year in CLOCK_STARTS:
        return f"the clock shows {start_local.year}, where a clock begins that was never set"
    # Zones differ by a day.
    if start_local > now + timedelta(days=1):
        return f"the clock shows {start_local:%Y-%m-%d %H:%M}, which is in the future"
    return None
