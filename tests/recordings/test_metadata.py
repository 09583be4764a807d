"""GUANO and AudioMoth metadata."""

from __future__ import annotations

from datetime import datetime

import pytest

from naturelm.recordings.audiomoth import CommentFacts, parse_comment
from naturelm.recordings.guano import GuanoFacts, parse_guano

MAY = datetime(2025, 5, 3, 3, 13)


@pytest.mark.parametrize(
    ("zone", "offset_minutes"),
    [("(UTC)", 0), ("(UTC+2)", 120), ("(UTC-10)", -600), ("(UTC-3:30)", -210), ("(UTC+5:45)", 345)],
)
def test_the_offset_of_an_audiomoth_comment(zone: str, offset_minutes: int) -> None:
    comment = f"Recorded at 03:13:00 03/05/2025 {zone} by AudioMoth 24F319055FDF2902 at medium gain while …"
    assert parse_comment(comment) == CommentFacts(MAY, offset_minutes)


@pytest.mark.parametrize(
    "said_after",
    [
        # Firmware 1.0.1, 1.2, 1.4, 1.6 and 1.8 in turn.
        "by AudioMoth 0FE081F80FE081F0 at gain setting 2 while battery state was 4.3V",
        "by AudioMoth 0FE081F80FE081F0 at gain setting 2 while battery state was less than 3.6V.",
        "by AudioMoth 24F3 at medium gain setting while battery state was 4.1V and temperature was 21.3C.",
        "during deployment 4A9B3CDDEEFF0011 at medium gain while battery was greater than 4.9V.",
        "by AudioMoth 24F3 using external microphone at low gain while battery was 3.8V.",
    ],
)
def test_the_wordings_of_many_firmwares(said_after: str) -> None:
    assert parse_comment(f"Recorded at 03:13:00 03/05/2025 (UTC) {said_after}") == CommentFacts(MAY, 0)


def test_a_comment_quoted_by_another_tool_is_read() -> None:
    comment = 'metadata{"comment": "Recorded at 03:13:00 03/05/2025 (UTC) by AudioMoth 243B at medium gain"}'
    assert parse_comment(comment) == CommentFacts(MAY, 0)


def test_a_comment_without_zone_says_the_local_time_alone() -> None:
    comment = "Recorded at 03:13:00 03/05/2025 by AudioMoth 0FE081F80FE081F0 at gain setting 2 while …"
    assert parse_comment(comment) == CommentFacts(MAY, None)


@pytest.mark.parametrize("comment", ["", "Recorded at dawn", "Recorded at 3:13 3/5/2025 by Anna"])
def test_other_comments_say_nothing(comment: str) -> None:
    assert parse_comment(comment) == CommentFacts()


def test_a_comment_with_an_impossible_date_says_so() -> None:
    facts = parse_comment("Recorded at 03:13:00 33/05/2025 (UTC) by AudioMoth 24F3 at")
    assert facts == CommentFacts(
        problem="the AudioMoth comment says 03:13:00 33/05/2025, which is not a valid time"
    )


@pytest.mark.parametrize(
    ("timestamp", "start", "offset_minutes"),
    [
        ("2025-05-03T03:13:00Z", MAY, 0),
        ("2025-05-03T03:13:00+05:30", MAY, 330),
        ("2025-05-03T03:13:00", MAY, None),
        ("2025-05-03 03:13:00", MAY, None),
        ("2025-05-03T03:13:00.125-07:00", MAY.replace(microsecond=125_000), -420),
        ("2025-05-03", None, None),
        ("2025-13-03T03:13:00", None, None),
        ("", None, None),
    ],
)
def test_guano_timestamps(timestamp: str, start: datetime | None, offset_minutes: int | None) -> None:
    facts = parse_guano(f"GUANO|Version:1.0\r\nMake: Acme\r\nTimestamp: {timestamp}\r\n")
    problem = (
        f"the GUANO timestamp {timestamp!r} is not a valid time" if timestamp and start is None else None
    )
    assert facts == GuanoFacts(start, offset_minutes, problem=problem)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("52.146196 4.474776", (52.146196, 4.474776)),
        ("-33.5, -70.25", (-33.5, -70.25)),
        ("0.0 0.0", (None, None)),
        ("91 0.5", (None, None)),
        ("here", (None, None)),
    ],
)
def test_guano_positions(position: str, expected: tuple[float | None, float | None]) -> None:
    facts = parse_guano(f"GUANO|Version:1.0\nno colon here\nLoc Position:{position}\n")
    assert (facts.latitude, facts.longitude) == expected
