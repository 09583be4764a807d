"""Patterns by which the user describes what file names contain."""

from __future__ import annotations

from datetime import datetime

import pytest

from naturelm.config.archive import ArchiveConfig
from naturelm.config.name_pattern import GivenPattern, Named
from naturelm.errors import NaturelmError

DAWN = datetime(2024, 5, 10, 5, 30)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("{station}_%Y%m%d_%H%M%S", "MARSH_A_20240510_053000.wav", Named(DAWN, None, "MARSH_A")),
        ("%y%m%d_%H%M", "240510_0530.wav", Named(DAWN, None, None)),
        ("%d%m%y_%H%M%S", "100524_053000.MP3", Named(DAWN, None, None)),
        ("%d.%m.%Y %Hh%M", "10.05.2024 05h30.wav", Named(DAWN, None, None)),
        ("*_%Y%m%d%H%M%S*", "any thing_20240510053000_take 2.wav", Named(DAWN, None, None)),
        ("%Y%m%d_%H%M%S%f", "20240510_053000250.wav", Named(DAWN.replace(microsecond=250_000), None, None)),
        ("%Y%m%d_%H%M%S%z", "20240510_053000+1000.wav", Named(DAWN, 600, None)),
        ("%Y%m%d_%H%M%S%z", "20240510_053000-03:30.wav", Named(DAWN, -210, None)),
        ("%Y%m%d_%H%M%S %z", "20240510_053000 UTC-5.wav", Named(DAWN, -300, None)),
        ("%Y%m%d_%H%M%S%z", "20240510_053000Z.wav", Named(DAWN, 0, None)),
        ("%Y%j_%H%M", "2024131_0530.wav", Named(DAWN, None, None)),
        ("%d%b%Y_%I%M%p", "10MAY2024_0530am.wav", Named(DAWN, None, None)),
        ("%d%b%Y_%I%M%p", "10May2024_1230PM.wav", Named(DAWN.replace(hour=12), None, None)),
        ("%d%b%Y_%I%M%p", "10May2024_1230AM.wav", Named(DAWN.replace(hour=0), None, None)),
        ("%Y-%m-%d %H", "2024- 5-10  5.wav", Named(DAWN.replace(minute=0), None, None)),
        ("%Y%m%d_%H%M%S", "20240509_240000.wav", Named(datetime(2024, 5, 10), None, None)),
        ("%s", "1715319000.flac", Named(DAWN, 0, None)),
        ("{station}-*", "pond-0001.wav", Named(None, None, "pond")),
        ("{station}/%Y-%m-%d/%H%M%S", "card 1/pond/2024-05-10/053000.wav", Named(DAWN, None, "pond")),
        ("100%%_%Y%m%d_%H%M", "100%_20240510_0530.wav", Named(DAWN, None, None)),
        ("%Y%m%d_%H%M.x", "20240510_0530.x.wav", Named(DAWN, None, None)),
        ("rec(%y%m%d)[%H%M]", "rec(240510)[0530].wav", Named(DAWN, None, None)),
        ("%Y%m%d_%H%M", "20240510_0530", Named(DAWN, None, None)),
    ],
)
def test_names_that_match_say_their_time_and_station(pattern: str, path: str, expected: Named) -> None:
    assert GivenPattern(pattern).read(path) == expected


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("%Y%m%d_%H%M", "20240510_0530_2.wav"),  # the whole name
        ("%Y%m%d_%H%M", "x20240510_0530.wav"),
        ("%Y%m%d_%H%M", "20241310_0530.wav"),
        ("%Y%m%d_%H%M", "20240230_0530.wav"),
        ("%Y%m%d_%H%M", "20240510_2460.wav"),
        ("%Y%j_%H%M", "2023366_0530.wav"),
        ("%Y%j_%H%M", "2023000_0530.wav"),
        ("%Y%m%d_%I%M%p", "20240510_1330PM.wav"),
        ("%d%b%Y_%H", "10Mai2024_05.wav"),
        ("rec_%Y%m%d_%H%M", "REC_20240510_0530.wav"),  # characters stand for themselves
        ("{station}/%Y%m%d_%H%M", "20240510_0530.wav"),
        ("%Y%m%d_%H%M%S", "99991231_240000.wav"),
        ("%s", "99999999999999.wav"),
    ],
)
def test_other_names_and_impossible_times_say_nothing(pattern: str, path: str) -> None:
    assert GivenPattern(pattern).read(path) is None


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "it has 0 characters"),
        ("%Y" + "x" * 300, "it has 302 characters"),
        ("%Q%m%d", "%Q is not a directive, the directives are %Y, %y"),
        ("%Y%m%d_%H%M%", "% is not a directive"),
        ("%Y%m%d_%Y%H", "%Y appears twice"),
        ("{station}{station}%Y%m%d_%H", "{station} appears twice"),
        ("{site}_%Y%m%d_%H", "a brace is not part of {station}"),
        ("%m%d_%H%M", "it lacks the year (%Y or %y)"),
        ("%Y%m_%H%M", "it lacks the day (%m and %d, or %j)"),
        ("%Y%m%d", "it lacks the hour (%H, or %I and %p)"),
        ("%Y%m%d_%I%M", "it lacks the hour"),
        ("%s%Y", "%s is the whole time"),
        ("ZOOM*", "it has neither a time nor {station}"),
        ("*a*b*c*d*e%Y%m%d%H", "occur 5 times, more than 4"),
    ],
)
def test_invalid_patterns_are_refused_with_the_reason_and_an_example(pattern: str, why: str) -> None:
    with pytest.raises(NaturelmError) as error:
        GivenPattern(pattern)
    assert why in str(error.value)
    assert str(error.value).endswith("like {station}_%Y%m%d_%H%M%S")
    assert "\n" not in str(error.value)


def test_settings_refuse_an_invalid_pattern() -> None:
    with pytest.raises(ValueError, match="it lacks the year"):
        ArchiveConfig.model_validate({"recordings": {"name_pattern": "%m%d_%H%M"}})
