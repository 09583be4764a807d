"""Which station a recording is from: by its name, its directories, or what the user says."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import PurePosixPath

import pytest

from naturelm.config.station_rule import parse_station_rule
from naturelm.errors import NaturelmError
from naturelm.recordings.names import parse_name, station_in_name
from naturelm.recordings.recording import Recording
from naturelm.recordings.station_names import overlaps, place, place_stations


def recording(path: str, duration_s: float = 60.0, content: str | None = None) -> Recording:
    """A recording as `probe` describes it."""
    facts = parse_name(PurePosixPath(path).name)
    return Recording(
        path, path, "/archive", facts.station or place(path, "archive"),
        start_local=facts.start_local, duration_s=duration_s, content=content or path,
    )  # fmt: skip


def stations(*paths: str, setting: str = "auto", divisions=()) -> list[str]:
    placed = place_stations([recording(path) for path in paths], setting, divisions)
    return [found.station for found in placed.recordings]


@pytest.mark.parametrize(
    ("path", "station"),
    [
        ("2024/SITE_A/20240510_053000.WAV", "SITE_A"),
        ("2024-05/SITE_A/20240510_053000.WAV", "SITE_A"),
        ("2024-05-10/card 1/20240510_053000.WAV", "2024-05-10"),
        ("SITE_A/20240510/20240510_053000.WAV", "SITE_A"),
        ("Data/DCIM/100MEDIA/SITE_A/20240510_053000.WAV", "SITE_A"),
        ("May 2024/card 1/SITE_A/x.wav", "SITE_A"),
        ("marsh/x.wav", "marsh"),
        ("Marsh 2/x.wav", "Marsh 2"),
        ("Dataran/x.wav", "Dataran"),
        ("007/x.wav", "007"),
        ("湿地/x.wav", "湿地"),
        ("x.wav", "archive"),
    ],
)
def test_directories_named_after_dates_cards_and_formats_are_places_only_where_no_other_is(
    path: str, station: str
) -> None:
    assert place(path, "archive") == station


@pytest.mark.parametrize(
    "name",
    ["PIPPYG_20240510_220000.wav", "NYCNOC_20240510_220000.wav", "EPTFUS_20240510_220000.wav",
     "NoID_20240510_220000.wav", "Noise_20240510_220000.wav"],
)  # fmt: skip
def test_what_a_bat_detector_takes_a_bat_for_is_no_station(name: str) -> None:
    assert station_in_name(name) is None
    assert stations(f"barn/{name}") == ["barn"]


def test_one_prefix_at_two_sites_is_two_stations_where_recordings_overlap() -> None:
    name = "REC1_20240510_053000.wav"
    assert stations(f"siteA/{name}", f"siteB/{name}") == ["siteA", "siteB"]
    assert stations(f"2024/siteA/{name}", f"2024/siteB/{name}") == ["siteA", "siteB"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("siteA/REC1", "siteB/REC1", ["siteA", "siteB"]),
        ("2024/pond/REC1", "2024/ridge/REC1", ["pond", "ridge"]),
        ("north/pond/SD1/REC1", "north/ridge/SD2/REC1", ["pond", "ridge"]),
        ("湿地/REC1", "007/REC1", ["湿地", "007"]),
        ("week1/REC1", "week2/REC1", ["REC1", "REC1"]),
        ("Visit 3/REC1", "Visit 4/REC1", ["REC1", "REC1"]),
        ("2024-05/REC1", "2024-06/REC1", ["REC1", "REC1"]),
        ("REC1_spring/REC1", "REC1_autumn/REC1", ["REC1", "REC1"]),
        ("REC1", "siteB/REC1", ["REC1", "REC1"]),
    ],
)
def test_one_prefix_in_directories_of_its_own_is_of_their_places(
    first: str, second: str, expected: list[str]
) -> None:
    assert stations(f"{first}_20240510_053000.wav", f"{second}_20240611_053000.wav") == expected


def test_directories_with_the_same_prefixes_in_each_are_no_places() -> None:
    paths = [
        f"{round_}/{prefix}_2024{month}10_053000.wav"
        for round_, month in (("spring", "04"), ("autumn", "09"))
        for prefix in ("R1", "R2")
    ]
    assert stations(*paths) == ["R1", "R2"] * 2


def test_two_prefixes_at_each_of_two_sites_are_four_stations() -> None:
    paths = [f"{site}/{prefix}_20240510_053000.wav" for site in "AB" for prefix in ("R1", "R2")]
    assert stations(*paths) == ["R1_A", "R2_A", "R1_B", "R2_B"]


def test_sites_below_a_region_are_found_where_recordings_overlap() -> None:
    paths = [f"north/{site}/20240510_053000.WAV" for site in ("pond", "ridge")]
    assert stations(*paths) == ["pond", "ridge"]
    assert stations("north/week1/20240510_053000.WAV", "north/week2/20240517_053000.WAV") == ["north"] * 2


def test_numbers_in_front_of_the_date_are_stations_unless_they_count() -> None:
    both = [f"{number}_20240510_053000.wav" for number in (101, 102)]
    assert stations(*both) == ["101", "102"]
    by_turns = [f"{number}_20240510_05{minute:02}00.wav" for minute, number in enumerate([101, 102] * 2)]
    assert stations(*by_turns) == ["101", "102"] * 2
    counted = [f"{number:04}_20240510_05{number:02}00.wav" for number in range(4)]
    assert stations(*counted) == ["archive"] * 4


def test_two_recorders_of_one_folder_are_told_apart_by_their_serial_numbers() -> None:
    traps = ["reef/671629352.240510053000.wav", "reef/5146.240510053010.wav"]
    assert stations(*traps) == ["671629352", "5146"]
    moths = [f"wood/{serial}_20240510_053000.WAV" for serial in ("24F319055FDF2902", "242A2604603691DD")]
    assert stations(*moths) == ["24F319055FDF2902", "242A2604603691DD"]
    # One after the other they are a recorder and the one that replaced it.
    assert stations("reef/671629352.240510053000.wav", "reef/5146.240511053000.wav") == ["reef"] * 2


def test_files_that_follow_each_other_and_copies_do_not_divide_a_station() -> None:
    following = [f"{site}/R_20240510_05{minute:02}00.wav" for site in "A" for minute in range(3)]
    assert stations(*following) == ["R"] * 3
    name = "R1_20240510_053000.wav"
    copies = [recording(f"{card}/{name}", content="same") for card in ("card_x", "backup")]
    assert {found.station for found in place_stations(copies, "auto").recordings} == {"R1"}
    assert overlaps(copies) == {}


def test_a_scan_of_a_part_divides_what_the_scan_of_all_divided() -> None:
    paths = [f"site{site}/REC1_20240510_053000.wav" for site in "AB"]
    divisions = place_stations([recording(path) for path in paths], "auto").divisions
    assert stations(paths[0], divisions=divisions) == ["siteA"]
    assert stations(paths[0]) == ["REC1"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("folder", ["pond", "pond"]),
        ("folder:1", ["2024", "2024"]),
        ("folder:2", ["pond", "pond"]),
        ("folder:-1", ["box 1", "pond"]),
        ("name", ["R1", "R2"]),
        ("{station}_*", ["R1", "R2"]),
        ("pond/{station}/*", ["box 1", "R2"]),
    ],
)
def test_the_user_says_where_the_station_is_written(setting: str, expected: list[str]) -> None:
    paths = ("2024/pond/box 1/R1_20240510_053000.wav", "2024/pond/R2_20240510_053000.wav")
    assert stations(*paths, setting=setting) == expected


def test_numbers_and_serial_numbers_are_names() -> None:
    paths = ("a/101_20240510_053000.wav", "a/5146.240510053000.wav", "a/x.wav")
    assert stations(*paths, setting="name") == ["101", "5146", "a"]


@pytest.mark.parametrize("setting", ["", "folders", "folder:0", "folder:x", "station", "{station"])
def test_other_rules_are_refused(setting: str) -> None:
    with pytest.raises(NaturelmError, match="station"):
        parse_station_rule(setting)


@pytest.mark.parametrize("setting", ["folder:3", "name", "*/{station}-x"])
def test_a_rule_that_matches_nothing_is_refused(setting: str) -> None:
    with pytest.raises(NaturelmError, match="finds no station in any of 1 recordings"):
        stations("pond/x.wav", setting=setting)


def test_where_a_station_was_found_is_reported() -> None:
    paths = ("A/R_20240510_053000.wav", "pond/20240510_053000.wav", "20240511_053000.wav")
    assert place_stations([recording(path) for path in paths], "auto").sources == {
        "R": ("file name",),
        "archive": ("name of PATH",),
        "pond": ("directory",),
    }


def test_overlaps_are_of_one_station_and_longer_than_rounding() -> None:
    start = datetime(2024, 5, 10)
    made = [
        Recording(str(n), f"{n}.wav", "/r", station, start_local=start + timedelta(seconds=at_s), duration_s=60.0)
        for n, (station, at_s) in enumerate([("A", 0), ("A", 59), ("A", 100), ("B", 0), ("C", 0)])
    ]  # fmt: skip
    assert {station: len(pairs) for station, pairs in overlaps(made).items()} == {"A": 1}
