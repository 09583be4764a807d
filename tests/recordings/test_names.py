"""Times, places and stations in recorder file names."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta

import pytest

from naturelm.recordings.name_patterns import suggest_patterns
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


DAWN = datetime(2024, 5, 10, 5, 30)
MILLI = DAWN.replace(microsecond=250_000)

# By recorder: names as they write them, and the facts in them.
CONVENTIONS: dict[str, dict[str, NameFacts]] = {
    "AudioMoth": {
        "20240510_053000.WAV": NameFacts(DAWN),
        "20240510_053000T.WAV": NameFacts(DAWN),
        "24F319055FDF2902_20240510_053000.WAV": NameFacts(DAWN),
        "5B07DEA0.WAV": NameFacts(datetime(2018, 5, 25, 10), 0),
        "5b07dea0.wav": NameFacts(datetime(2018, 5, 25, 10), 0),
    },
    "Song Meter SM2, SM3, SM4, Mini, Micro": {
        "SM2_20240510_053000.wac": NameFacts(DAWN, station="SM2"),
        "SM301234_0+1_20240510_053000.wav": NameFacts(DAWN, station="SM301234"),
        "S4A03895_20240510_053000.wav": NameFacts(DAWN, station="S4A03895"),
        "S4A03895_20240510$053000.wav": NameFacts(DAWN, station="S4A03895"),
        "S4U09523_20240510_053000_250.wav": NameFacts(MILLI, station="S4U09523"),
        "2MM01234_A_20240510_053000.w4v": NameFacts(DAWN, station="2MM01234"),
    },
    "Echo Meter": {"EM3_20240510_053000_250.wav": NameFacts(MILLI, station="EM3")},
    "Frontier Labs BAR, BAR-LT": {
        "20240510T053000+1000_00600.wav": NameFacts(DAWN, 600),
        "20240510T053000+1000_REC.flac": NameFacts(DAWN, 600),
        "20240510T053000.250000+1000_REC_[-27.5098+153.1325].flac": NameFacts(MILLI, 600, -27.5098, 153.1325),
        "202405 8T020000+1000_REC.flac": NameFacts(datetime(2024, 5, 8, 2), 600),
        "2024 510T 53000+1000_REC [-27.5 153.1].flac": NameFacts(DAWN, 600, -27.5, 153.1),
        "S20240510T053000250+1000_E20240510T060000250+1000_-12.34567+78.98102.wav": NameFacts(
            MILLI, 600, -12.34567, 78.98102
        ),
        "S20240510T053000.250000+1000_E20240510T060000.1+1000.wav": NameFacts(MILLI, 600),
    },
    "Cornell Swift": {
        "swift01_20240510_053000.wav": NameFacts(DAWN, station="swift01"),
        "S1087_20240510_053000+0200.wav": NameFacts(DAWN, 120, station="S1087"),
        "S1087_20240510_053000Z.wav": NameFacts(DAWN, 0, station="S1087"),
    },
    "SoundTrap": {
        "5146.240510053000.wav": NameFacts(DAWN),
        "671629352.240510053000.sud": NameFacts(DAWN),
        "5146.240510053000_decimated.wav": NameFacts(DAWN),
    },
    "Pettersson, Anabat, Batlogger": {
        "M500_2024-05-10_05-30-00.wav": NameFacts(DAWN, station="M500"),
        "2024-05-10 05-30-00.wav": NameFacts(DAWN),
        "2024-05-10_05-30-00+1000.wav": NameFacts(DAWN, 600),
        "BatRecorder-2024-05-10T05_30_00+0100.wav": NameFacts(DAWN, 60, station="BatRecorder"),
    },
    "Loggerhead LS1, Medusa, SNAP, DSG": {
        "20240510T053000_1234567_2.0dB.wav": NameFacts(DAWN),
        "20240510T053000_614400_1.6dB_12.1V_ver2.5.wav": NameFacts(DAWN),
        "20240510053000.dsg": NameFacts(DAWN),
    },
    "HARP, WISPR": {
        "SOCAL26H_240510_053000.x.wav": NameFacts(DAWN, station="SOCAL26H"),
        "CINMS18B_d03_240510_053000.d20.x.wav": NameFacts(DAWN, station="CINMS18B_d03"),
        "WISPR_240510_053000.flac": NameFacts(DAWN),
    },
    "AMAR, icListen, AURAL, other hydrophones": {
        "AMAR667.20240510T053000Z.wav": NameFacts(DAWN, 0),
        "ICLISTENHF1266_20240510T053000.250Z.wav": NameFacts(MILLI, 0),
        "RBW1234_20240510_053000.wav": NameFacts(DAWN, station="RBW1234"),
        "AURAL_20240510_053000.wav": NameFacts(DAWN, station="AURAL"),
        "SanctSound_CI01_01_671379494_20240510T053000Z.wav": NameFacts(DAWN, 0),
        "channelA_2024-05-10_05-30-00.wav": NameFacts(DAWN, station="channelA"),
        "MARS_20240510_053000.wav": NameFacts(DAWN, station="MARS"),
    },
    "BirdNET-Pi, BirdWeather, Haikubox": {
        "2024-05-10-birdnet-05:30:00.wav": NameFacts(DAWN),
        "2024-05-10-birdnet-RTSP_1-05:30:00.wav": NameFacts(DAWN),
        "Strix_aluco-96-2024-05-10-birdnet-05_30_00.mp3": NameFacts(DAWN),
        "Eurasian_Wren-71-2024-05-10-birdnet-RTSP_2-05:30:00.mp3": NameFacts(DAWN),
        "2024-05-10T05:30:00.250-0500.flac": NameFacts(MILLI, -300),
    },
    "Zoom": {
        "240510-053000.WAV": NameFacts(DAWN),
        "240510-053000_Tr1.WAV": NameFacts(DAWN),
        "ZOOM0001.WAV": NameFacts(),
        "ZOOM0001_LR.WAV": NameFacts(),
        "20240510-053000.wav": NameFacts(DAWN),
    },
    "Tascam, Olympus, Sony, Roland: counters are no times": {
        "240510_0001.wav": NameFacts(),
        "TASCAM_0001.wav": NameFacts(),
        "DR0000_0001.wav": NameFacts(),
        "LS100001.WAV": NameFacts(),
        "R09_0001.WAV": NameFacts(),
        "240510_0530_01.mp3": NameFacts(),
        "DM420082_20240510_053000.MP3": NameFacts(DAWN, station="DM420082"),
    },
    "Sound Devices": {"240510-T001.WAV": NameFacts(), "MixPre-001.WAV": NameFacts()},
    "phones": {
        "20240510 053000-1234ABCD.m4a": NameFacts(DAWN),
        "20240510 053000-ABCD1234.m4a": NameFacts(DAWN),
        "Voice 240510_053000.m4a": NameFacts(DAWN),
        "REC20240510053000.wav": NameFacts(DAWN),
        "Recording_20240510_053000.m4a": NameFacts(DAWN),
        "2024_05_10_05_30_00.mp3": NameFacts(DAWN),
        "My recording 2024-05-10 05.30.00.wav": NameFacts(DAWN),
        "2024-05-10 05.30.00 PM.wav": NameFacts(DAWN.replace(hour=17)),
        "2024-05-10 12.30.00 AM.wav": NameFacts(DAWN.replace(hour=0)),
        "2024-05-10 05_30.wav": NameFacts(DAWN),
        "WhatsApp Audio 2024-05-10 at 05.30.00.opus": NameFacts(DAWN),
        "Rec 2024-05-10 05 30 00.wav": NameFacts(DAWN),
        "20240510 - 053000.m4a": NameFacts(DAWN),
        "2024_05_10__05_30_00.wav": NameFacts(DAWN),
        "2024-05-10--05-30-00.wav": NameFacts(DAWN),
        "20240510053000Z.wav": NameFacts(DAWN, 0),
        "20240510053000250.wav": NameFacts(MILLI),
        "AUD-20240510-WA0001.opus": NameFacts(),
        "New Recording 12.m4a": NameFacts(),
    },
    "Arbimon, RFCx Guardian": {
        "LAKE-2024-05-10_05-30.flac": NameFacts(DAWN, station="LAKE"),
        "a1b2c3-2024-05-10T05-30-00.250-0500.opus": NameFacts(MILLI, -300, station="a1b2c3"),
    },
    "Raven, Kaleidoscope, Audacity": {
        "NW3_20240510_053000.Table.1.selections.wav": NameFacts(DAWN, station="NW3"),
        "PREFIX_20240510_053000_000.wav": NameFacts(DAWN, station="PREFIX"),
    },
    "xeno-canto, Macaulay": {
        "XC123456 - Tawny Owl - Strix aluco.mp3": NameFacts(),
        "ML12345.mp3": NameFacts(),
    },
    "offsets of all kinds": {
        f"20240510_053000{suffix}.wav": NameFacts(DAWN, minutes)
        for suffix, minutes in {
            "Z": 0,
            "_Z": 0,
            "_UTC": 0,
            " (UTC)": 0,
            "+0000": 0,
            "_+0000": 0,
            "_-0500": -300,
            " -0500": -300,
            "-0500": -300,
            "(UTC-5)": -300,
            "_(UTC-5)": -300,
            "_UTC-05:00": -300,
            "+0530": 330,
            "+05:30": 330,
            "_+0530": 330,
            "(UTC+5:30)": 330,
            "_GMT+1": 60,
            "+10": 600,
            "+9900": None,
            "_1": None,
            "_1234": None,
        }.items()
    },
    "six digits of which only one reading is a date": {
        "SITE_240504_195202.wav": NameFacts(datetime(2024, 5, 4, 19, 52, 2), station="SITE"),
        "25-12-2024_05-30-00.wav": NameFacts(datetime(2024, 12, 25, 5, 30)),
        "12-25-2024 05.30.00.wav": NameFacts(datetime(2024, 12, 25, 5, 30)),
        "25122024_053000.wav": NameFacts(datetime(2024, 12, 25, 5, 30)),
    },
}
EACH = [(recorder, name) for recorder, names in CONVENTIONS.items() for name in names]


@pytest.mark.parametrize(("recorder", "name"), EACH)
def test_conventions_of_recorders(recorder: str, name: str) -> None:
    assert parse_name(name) == CONVENTIONS[recorder][name]


@pytest.mark.parametrize(
    "name",
    [
        "100512_053000.wav",  # 12 May 2010, or 10 May 2012
        "SITE_100512-053000.wav",
        "10-05-2024_05-30-00.wav",
        "10052024_053000.wav",
        "240510_0530.wav",
        "20240510_0530.wav",
        "20240510_053000-2.wav",
        "2024-05-10_05-30_15.wav",
        "240510053000.wav",
        "1715319000.flac",
    ],
)
def test_what_may_be_read_in_several_ways_is_null_and_has_patterns_to_give(name: str) -> None:
    assert parse_name(name) == NameFacts()
    assert suggest_patterns(name)


@pytest.mark.parametrize(
    "name", ["ZOOM0001.WAV", "20240510_053000.wav", "XC123456.mp3", "20240510.wav", "", "."]
)
def test_other_names_have_no_patterns_to_give(name: str) -> None:
    assert suggest_patterns(name) == []


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
