"""The sentence an AudioMoth writes into the comment of its WAV files.

`Recorded at 03:13:00 03/05/2025 (UTC) by AudioMoth 242A2604603691DD at medium gain while battery was 3.8V …`.
The first firmware (2017) says no zone, then came `(UTC)`, later also `(UTC+2)` and `(UTC-3:30)`, and
`during deployment …` for `by AudioMoth …`. Positions are not here: those that know theirs write GUANO.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class CommentFacts:
    """What the comment says of time; None where it says nothing. See `names.NameFacts`.

    `problem` is what it says and cannot be used.
    """

    start_local: datetime | None = None
    utc_offset_minutes: int | None = None
    problem: str | None = None


_RECORDED = re.compile(
    r"Recorded at (?P<clock>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,6}))? (?P<date>\d\d/\d\d/\d{4})"
    r"(?: \((?P<zone>UTC(?P<offset>[+-]\d{1,2}(?::\d\d)?)?)\))?"
    r" (?:by AudioMoth|during deployment) "
)


def parse_comment(text: str) -> CommentFacts:
    """Read the time from an AudioMoth comment, also where the comment is quoted in another one."""
    match = _RECORDED.search(text)
    if match is None:
        return CommentFacts()
    try:
        start = datetime.strptime(f"{match['date']} {match['clock']}", "%d/%m/%Y %H:%M:%S")
    except ValueError:
        return CommentFacts(
            problem=f"the AudioMoth comment says {match['clock']} {match['date']}, which is not a valid time"
        )
    if match["fraction"]:
        start = start.replace(microsecond=int(match["fraction"].ljust(6, "0")))
    if match["zone"] is None:
        return CommentFacts(start)
    return CommentFacts(start, _offset_minutes(match["offset"]))


def _offset_minutes(text: str | None) -> int:
    if text is None:
        return 0
    hours, _, minutes = text[1:].partition(":")
    return (-1 if text[0] == "-" else 1) * (60 * int(hours) + int(minutes or 0))
