"""Times, places and stations in recorder file names."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta

import pytest

from naturelm.recordings.names import PATTERNS, NameFacts, parse_name
from tests.paths import DATA

# Real names with the facts they encode (QUT Ecoacoustics, EMU fixtures, MIT licence).
TABLE = DATA / "recorder_filenames.csv"
ROWS = list(csv.DictReader(TABLE.open(encoding="utf-8")))


def local(text: str) -> datetime | None:
    """ISO time; `24:00:00` is the next midnight."""
    if not text:
        return None
    return datetime.fromisoformat(text.replace("T24:", "T00:")) + timedelta(days="T24:" in text)


def minutes(text: str) -> int | None:
    return int(f"{text[0]}1") * (60 * int(text[1:3]) + int(text[4:6])) if text else None


@pytest.mark.parametrize("row", ROWS, ids=[row["filename"] for row in ROWS])
def test_real_recorder_names_say_what_the_table_says(row: dict[str, str]) -> None:
    facts = parse_name(row["filename"])
    assert facts.start_local == local(row["local_datetime"])
    assert facts.utc_offset_minutes == minutes(row["utc_offset"])
    assert facts.latitude == (float(row["latitude"]) if row["latitude"] else None)
    assert facts.longitude == (float(row["longitude"]) if row["longitude"] else None)


def test_the_table_of_real_names_is_whole() -> None:
    assert len(ROWS) == 29


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("S4A03895_20190522_223000.wav", NameFacts(datetime(2019, 5, 22, 22, 30), station="S4A03895")),
        ("S1087_20230501_053000+0200.wav", NameFacts(datetime(2023, 5, 1, 5, 30), 120, station="S1087")),
        ("S1087_20230501_053000-0330.wav", NameFacts(datetime(2023, 5, 1, 5, 30), -210, station="S1087")),
        ("MARSH_A_20190522_223000.wav", NameFacts(datetime(2019, 5, 22, 22, 30), station="MARSH")),
        ("242A2604603691DD_20250503_031300.WAV", NameFacts(datetime(2025, 5, 3, 3, 13))),
        ("20230501_053000T.WAV", NameFacts(datetime(2023, 5, 1, 5, 30))),
        ("AMAR.20200102T030405Z.wav", NameFacts(datetime(2020, 1, 2, 3, 4, 5), 0)),
        ("2021-06-01 05-30-00.wav", NameFacts(datetime(2021, 6, 1, 5, 30))),
        ("2021-06-01T05_30_00.250.wav", NameFacts(datetime(2021, 6, 1, 5, 30, 0, 250_000))),
        (
            "20160801T065052+1000_REC_[-27.5098+153.1325].flac",
            NameFacts(datetime(2016, 8, 1, 6, 50, 52), 600, -27.5098, 153.1325),
        ),
        ("NW_20201231_240000.wav", NameFacts(datetime(2021, 1, 1), station="NW")),
    ],
)
def test_other_recorders_names(name: str, expected: NameFacts) -> None:
    assert parse_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "20191322_223000.wav",  # month 13
        "20190230_223000.wav",  # 30 February
        "20190522_250000.wav",
        "20190522_240001.wav",
        "20190522_0001.wav",  # a counter as likely as a time
        "20190522.WAV",  # decimal digits: no time in hexadecimal
        "00000000.WAV",  # 1970: the clock was not set
        "DEADBEEF.WAV",  # 2088
        "a20190522223000b.wav",
        "20190522-2230-1234-1234-123456789012.wav",
        "1.5.wav",
        "ZOOM0001.WAV",
        "",
    ],
)
def test_nothing_is_invented(name: str) -> None:
    assert parse_name(name) == NameFacts()


def test_no_place_on_earth_and_a_receiver_without_fix_are_no_position() -> None:
    assert parse_name("20160801T065052+1000_REC_[-97.5+153.1].flac").latitude is None
    assert parse_name("20160801T065052+1000_REC_[+0.0000+0.0000].flac").latitude is None


@pytest.mark.parametrize("pattern", PATTERNS, ids=[pattern.example for pattern in PATTERNS])
def test_every_pattern_reads_its_example_and_no_earlier_pattern_hides_it(pattern) -> None:
    first = next(p for p in PATTERNS if p.regex.search(pattern.example))
    assert first is pattern
    assert parse_name(pattern.example).start_local is not None
