"""Exports: the headers that each tool reads, and everything back as it went in."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re

import jsonschema
import pandas
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from naturelm.cli import main
from naturelm.results.analysis import read_analysis
from naturelm.tables.export import FORMATS, get_format
from naturelm.tables.export.source import LOADED, ExportSource
from naturelm.tables.query import open_tables
from naturelm.tables.spellings import scientific_queries
from naturelm.text import flat, guard, unguard
from tests.paths import REPO
from tests.tables.make_tables import detection, recording, write_large, write_results

EVENING = dt.datetime(2026, 5, 1, 20)
PER_RECORDING = {"raven", "audacity"}
# Kaleidoscope has one column for a name and Audacity one for all.
ONE_NAME = {"audacity", "kaleidoscope"}

HOSTILE = [
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "'=already",
    "''@twice",
    '"',
    '"quoted" at the start',
    'a "quoted" word',
    "O'Brien's owl",
    "semi;colon, comma",
    "🦉 Tawny Owl",
    "../../etc/passwd",
    "Robin (0.9)",
    "％１＝＋",
    "＝wide",
    " =blank",
    "\u200b=zero width",
    "\ufeff=byte-order mark",
    "\u00ad\u2060-soft",
    "' =already",
    "x" * 10_000,
]
MULTILINE = ["a\nb", "a\r\n=b", "tab\there", "\t=x", "\r=y", "c\rd", "null\x00byte", "line\u2028sep"]


def export(night, form, out, *options):
    result = CliRunner().invoke(main, ["export", str(night), "--format", form, "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return get_format(form).load(out)


def target(form, tmp_path, name="out"):
    return tmp_path / (name if form in PER_RECORDING | {"camtrap-dp"} else f"{name}.csv")


def rows(table, *names):
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True), key=repr)


@pytest.fixture
def night(tmp_path):
    """Three recordings at two stations, the one in the middle silent, and one that cannot be opened."""
    first = recording("A/1.wav", EVENING, latitude=52.5, longitude=13.25)
    silent = recording("A/2.wav", EVENING + dt.timedelta(minutes=1), latitude=52.5, longitude=13.25)
    broken = recording(
        "A/3.wav", EVENING + dt.timedelta(minutes=2), status="corrupt", decoded_s=0.0, windows=0,
        latitude=52.5, longitude=13.25,
    )  # fmt: skip
    last = recording("B/4.flac", EVENING, station="B", duration_s=25.0, sample_rate_hz=12_000, format="FLAC")
    found = [
        detection(first, 0, "Robin", 0.9),
        detection(first, 10, "robin", 0.4, text="robin, wren"),
        detection(first, 10, "Wren", 0.35),
        detection(last, 20, "Strix aluco", 0.75, query="latin", end_s=25.0),
        detection(last, 0, "None", 0.99),
        detection(last, 10, "Robin", None),
    ]
    return write_results(tmp_path / "night", [first, silent, broken, last], found)


# --- all formats


def test_the_guide_lists_every_format_and_no_other():
    rows = re.findall(r"^\| (`.*?`) \|", (REPO / "docs/guides/exports.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(rows))) == sorted(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_saved_is_loaded(night, tmp_path, form):
    table = export(night, form, target(form, tmp_path))
    assert table.schema == LOADED
    names = ["A/1.wav", "A/1.wav", "A/1.wav", "B/4.flac", "B/4.flac"]
    assert sorted(table["path"].to_pylist()) == names
    assert rows(table, "start_s", "end_s", "score") == sorted(
        [(0.0, 10.0, 0.9), (10.0, 20.0, 0.4), (10.0, 20.0, 0.35), (20.0, 25.0, 0.75), (10.0, 20.0, None)],
        key=repr,
    )
    common, scientific = table["common_name"].to_pylist(), table["scientific_name"].to_pylist()
    if form in ONE_NAME:
        assert sorted(common) == ["Robin", "Robin", "Robin", "Strix aluco", "Wren"]
    else:
        assert sorted(zip(common, scientific, strict=True), key=repr) == [
            ("Robin", None), ("Robin", None), ("Robin", None), ("Wren", None), (None, "Strix aluco"),
        ]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_a_night_without_detections_is_exported(tmp_path, form):
    silent = write_results(tmp_path / "silent", [recording("a.wav", EVENING)])
    assert export(silent, form, target(form, tmp_path)).num_rows == 0
    empty = write_results(tmp_path / "empty")
    assert export(empty, form, target(form, tmp_path, "empty-out")).num_rows == 0


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("labels", [HOSTILE, MULTILINE], ids=["hostile", "multiline"])
def test_hostile_labels_come_back_and_calculate_nothing(tmp_path, form, labels):
    row = recording("a.wav", EVENING, duration_s=10.0 * len(labels))
    # A label in a comment of its own: no two spellings are merged into one.
    found = [detection(row, 10.0 * number, label) for number, label in enumerate(labels)]
    night = write_results(tmp_path / "night", [row], found)
    table = export(night, form, target(form, tmp_path))
    by_start = dict(zip(table["start_s"].to_pylist(), table["common_name"].to_pylist(), strict=True))
    keeps_lines = form in {"csv", "geojson", "birdnet-parquet"}
    assert by_start == {
        10.0 * number: label if keeps_lines else flat(label) for number, label in enumerate(labels)
    }
    if form not in {"geojson", "birdnet-parquet"}:
        for path in [
            path for path in [target(form, tmp_path), *target(form, tmp_path).rglob("*")] if path.is_file()
        ]:
            if path.suffix != ".json":
                assert_calculates_nothing(path, "\t" if path.suffix == ".txt" else ",")


def assert_calculates_nothing(path, delimiter):
    """As a spreadsheet reads it: no cell of text starts like a formula."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for cells in csv.reader(file, delimiter=delimiter):
            for cell in cells:
                is_number = re.fullmatch(r"-?\d+(\.\d+)?(e-\d+)?", cell)
                assert is_number or not re.match(r"[\s\u200b\ufeff]*[=+\-@\t\r＝＋－＠]", cell), cell[:50]


@pytest.mark.parametrize("form", FORMATS)
def test_min_score_label_query_and_events_select(night, tmp_path, form):
    def select(*options):
        name = "-".join(options).strip("-")
        return rows(export(night, form, target(form, tmp_path, name), *options), "start_s", "end_s", "score")

    assert select("--min-score", "0.5") == [(0.0, 10.0, 0.9), (20.0, 25.0, 0.75)]
    assert select("--label", " WREN. ") == [(10.0, 20.0, 0.35)]
    assert select("--query-id", "latin") == [(20.0, 25.0, 0.75)]
    assert select("--label", "wren", "--label", "Strix aluco", "--query-id", "species") == [
        (10.0, 20.0, 0.35)
    ]
    assert select("--label", "wren", "--query-id", "latin") == []
    assert select("--events") == sorted(
        [(0.0, 20.0, 0.9), (10.0, 20.0, 0.35), (10.0, 20.0, None), (20.0, 25.0, 0.75)], key=repr
    )


@pytest.mark.parametrize("form", FORMATS)
def test_exported_events_end_with_their_recording(tmp_path, form):
    first, second = recording("1.wav", EVENING), recording("2.wav", EVENING + dt.timedelta(minutes=1))
    night = write_results(
        tmp_path / "night", [first, second], [detection(first, 50, "Robin"), detection(second, 0, "Robin")]
    )
    table = export(night, form, target(form, tmp_path), "--events")
    assert rows(table, "path", "start_s", "end_s") == [("1.wav", 50.0, 60.0), ("2.wav", 0.0, 10.0)]


def test_an_export_replaces_the_one_before(night, tmp_path):
    out = tmp_path / "out.csv"
    export(night, "csv", out)
    assert export(night, "csv", out, "--label", "wren").num_rows == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv", "night"] or len(
        list(tmp_path.iterdir())
    ) == 2


def test_unknown_format_and_unfit_out_are_told(night, tmp_path):
    def error_message(form, out):
        result = CliRunner().invoke(main, ["export", str(night), "--format", form, "--out", str(out)])
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1
        return result.output

    assert "format is 'xlsx'; give one of audacity, birdnet-csv" in error_message("xlsx", tmp_path / "x")
    file = tmp_path / "file"
    file.write_text("x")
    for form in FORMATS:
        assert "give" in error_message(form, file if form in PER_RECORDING | {"camtrap-dp"} else tmp_path)
    assert "cannot be written" in error_message("csv", file / "below.csv")
    assert "holds no results" in CliRunner().invoke(
        main, ["export", str(tmp_path), "--format", "csv", "--out", str(tmp_path / "x")]
    ).output  # fmt: skip


# --- file names


@pytest.mark.parametrize("form", sorted(PER_RECORDING))
def test_files_stay_below_out_whatever_the_recordings_are_called(tmp_path, form):
    paths = [
        "../../up.wav",
        "/etc/abs.wav",
        "a/../b.wav",
        "a/" + "n" * 255 + ".wav",
        "-rf.wav",
        "nul.wav",
        "a b\tc.wav",
    ]
    paths += [
        "CON/x.wav",
        "ünï/雀.wav",
        "a:b.wav",
        "a?b.wav",
        ".hidden/.wav",
        "..",
        "x.WAV",
        "x.wav",
        '<"|>.wav',
    ]
    found = [recording(path, EVENING + dt.timedelta(minutes=number)) for number, path in enumerate(paths)]
    night = write_results(tmp_path / "night", found, [detection(row, 0, "Robin") for row in found])
    out = tmp_path / "deep" / "out"
    assert export(night, form, out).num_rows == len(paths)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len({str(path).lower() for path in files}) == len(paths)
    assert {path.name for path in tmp_path.rglob("*.txt")} == {path.name for path in files}
    assert all(re.fullmatch(r"[\w.-]+", path.name) and not path.name.startswith((".", "-")) for path in files)


# --- Raven

RAVEN_HEADER = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin Path\t"
    "File Offset (s)\tCommon Name\tScientific Name\tConfidence\tQuery\tText"
)


def test_raven_has_a_table_for_every_recording(night, tmp_path):
    export(night, "raven", tmp_path / "out")
    files = sorted((tmp_path / "out").rglob("*.txt"))
    assert [str(path.relative_to(tmp_path / "out")) for path in files] == [
        f"{name}.Table.1.selections.txt" for name in ("A/1.wav", "A/2.wav", "A/3.wav", "B/4.flac")
    ]
    first, silent, _, last = (path.read_text().splitlines() for path in files)
    assert first == [
        RAVEN_HEADER,
        "1\tSpectrogram 1\t1\t0.0\t10.0\t0.0\t8000.0\tA/1.wav\t0.0\tRobin\t\t0.9\tspecies\tRobin",
        "2\tSpectrogram 1\t1\t10.0\t20.0\t0.0\t8000.0\tA/1.wav\t10.0\tRobin\t\t0.4\tspecies\trobin, wren",
        "3\tSpectrogram 1\t1\t10.0\t20.0\t0.0\t8000.0\tA/1.wav\t10.0\tWren\t\t0.35\tspecies\tWren",
    ]
    assert silent == [RAVEN_HEADER]
    # No frequency above what the recording holds.
    assert last[2].split("\t")[6] == "6000.0"
    assert last[2].split("\t")[9:11] == ["", "Strix aluco"]


def test_raven_combined_counts_time_over_silent_recordings_too(night, tmp_path):
    table = export(night, "raven", tmp_path / "all.txt", "--archive", "/data/archive")
    text = (tmp_path / "all.txt").read_text().splitlines()
    begin = [line.split("\t")[3:5] for line in text[1:]]
    # 60 s, 60 s silent, nothing of the one that cannot be opened.
    assert begin == [
        ["0.0", "10.0"],
        ["10.0", "20.0"],
        ["10.0", "20.0"],
        ["130.0", "140.0"],
        ["140.0", "145.0"],
    ]
    assert [line.split("\t")[0] for line in text[1:]] == ["1", "2", "3", "4", "5"]
    assert set(table["path"].to_pylist()) == {"/data/archive/A/1.wav", "/data/archive/B/4.flac"}
    listed = (tmp_path / "all.listfile.txt").read_text().splitlines()
    assert listed == [f"/data/archive/{name}" for name in ("A/1.wav", "A/2.wav", "B/4.flac")]


def test_raven_tables_are_read_by_crowsetta(night, tmp_path):
    crowsetta = pytest.importorskip("crowsetta")
    export(night, "raven", tmp_path / "all.txt", "--query-id", "species")
    annotations = crowsetta.formats.bbox.Raven.from_file(tmp_path / "all.txt", annot_col="Common Name")
    boxes = annotations.to_bbox()
    assert [(box.onset, box.offset, box.label) for box in boxes] == [
        (0.0, 10.0, "Robin"), (10.0, 20.0, "Robin"), (10.0, 20.0, "Wren"), (130.0, 140.0, "Robin"),
    ]  # fmt: skip
    assert {(box.low_freq, box.high_freq) for box in boxes} == {(0.0, 8000.0), (0.0, 6000.0)}


@pytest.mark.parametrize("label", [*HOSTILE, *MULTILINE])
def test_no_label_breaks_the_rows_of_another_reader(tmp_path, label):
    """Pandas reads both text formats by the rules of tab-separated files, as many tools do."""
    row = recording("a.wav", EVENING)
    found = [detection(row, start_s, text) for start_s, text in ((0, "Robin"), (10, label), (20, "Wren"))]
    night = write_results(tmp_path / "night", [row], found)
    export(night, "raven", tmp_path / "raven.txt")
    raven = pandas.read_csv(tmp_path / "raven.txt", sep="\t")
    assert list(raven["Begin Time (s)"]) == [0, 10, 20]
    assert list(raven["Common Name"])[::2] == ["Robin", "Wren"]
    export(night, "audacity", tmp_path / "audacity")
    audacity = pandas.read_csv(tmp_path / "audacity/a.wav.labels.txt", sep="\t", header=None)
    assert list(audacity[0]) == [0, 10, 20]
    assert list(audacity[2])[::2] == ["Robin (0.9000)", "Wren (0.9000)"]


# --- Audacity


def test_audacity_has_three_columns(night, tmp_path):
    export(night, "audacity", tmp_path / "out")
    assert (tmp_path / "out/A/1.wav.labels.txt").read_text() == (
        "0.000000\t10.000000\tRobin (0.9000)\n"
        "10.000000\t20.000000\tRobin (0.4000)\n"
        "10.000000\t20.000000\tWren (0.3500)\n"
    )
    assert (tmp_path / "out/A/2.wav.labels.txt").read_text() == ""
    assert (tmp_path / "out/B/4.flac.labels.txt").read_text().splitlines()[0] == "10.000000\t20.000000\tRobin"


def test_audacity_labels_are_read_by_crowsetta(night, tmp_path):
    crowsetta = pytest.importorskip("crowsetta")
    export(night, "audacity", tmp_path / "out")
    sequence = crowsetta.formats.seq.AudSeq.from_file(tmp_path / "out/A/1.wav.labels.txt")
    assert list(sequence.start_times) == [0.0, 10.0, 10.0]
    assert list(sequence.end_times) == [10.0, 20.0, 20.0]
    assert list(sequence.labels) == ["Robin (0.9000)", "Robin (0.4000)", "Wren (0.3500)"]


# --- tables of other programs


def table(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_kaleidoscope_rows(night, tmp_path):
    export(night, "kaleidoscope", tmp_path / "id.csv", "--archive", "/data")
    assert (tmp_path / "id.csv").read_text("utf-8-sig").splitlines()[0] == (
        "INDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,DATE,TIME,HOUR,AUTO ID*,TOP1DIST,TOP1MATCH,MANUAL ID*"
    )
    second = table(tmp_path / "id.csv")[1]
    assert second == {
        "INDIR": "/data", "FOLDER": "A", "IN FILE": "1.wav", "CHANNEL": "0", "OFFSET": "10.0", "DURATION": "10.0",
        "DATE": "2026-05-01", "TIME": "20:00:10", "HOUR": "20", "AUTO ID*": "Robin", "TOP1DIST": "0.6",
        "TOP1MATCH": "Robin", "MANUAL ID*": "",
    }  # fmt: skip


def test_birdnet_headers_are_those_of_the_analyzer(night, tmp_path):
    header = "Start (s),End (s),Scientific name,Common name,Confidence,File"
    export(night, "birdnet-csv", tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text("utf-8-sig").splitlines()
    assert lines[:2] == [header, "0.0,10.0,,Robin,0.9,A/1.wav"]
    assert lines[-1] == "20.0,25.0,Strix aluco,,0.75,B/4.flac"
    export(night, "birdnet-parquet", tmp_path / "a.parquet")
    parquet = pq.read_table(tmp_path / "a.parquet")
    assert ",".join(parquet.schema.names) == header
    assert parquet["Confidence"].to_pylist() == [0.9, 0.4, 0.35, None, 0.75]


def test_csv_has_every_column(night, tmp_path):
    export(night, "csv", tmp_path / "a.csv")
    first = table(tmp_path / "a.csv")[0]
    assert first["path"] == "A/1.wav"
    assert first["start_time"] == "2026-05-01 20:00:00+00:00"
    assert (first["latitude"], first["longitude"]) == ("52.5", "13.25")
    assert (first["text"], first["model"]) == ("Robin", "pocket")


def test_geojson_places_detections_at_their_station(night, tmp_path):
    export(night, "geojson", tmp_path / "a.geojson")
    collection = json.loads((tmp_path / "a.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    places = [feature["geometry"] for feature in collection["features"]]
    assert places == [{"type": "Point", "coordinates": [13.25, 52.5]}] * 3 + [None] * 2
    assert {feature["type"] for feature in collection["features"]} == {"Feature"}


# --- Camtrap DP 1.0: what its profile and table schemas require

CAMTRAP_PROFILE = {
    "type": "object",
    "required": ["resources", "profile", "created", "contributors", "project", "spatial", "temporal", "taxonomic"],
    "properties": {
        "profile": {"const": "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0/camtrap-dp-profile.json"},
        "created": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
        "resources": {
            "minItems": 3,
            "items": {
                "required": ["name", "path", "profile", "schema"],
                "properties": {
                    "name": {"enum": ["deployments", "media", "observations"]},
                    "profile": {"const": "tabular-data-resource"},
                    "schema": {"pattern": r"/1\.0/(deployments|media|observations)-table-schema\.json$"},
                },
            },
        },
        "contributors": {"minItems": 1, "items": {"required": ["title"]}},
        "project": {
            "required": ["title", "samplingDesign", "captureMethod", "individualAnimals", "observationLevel"],
            "properties": {
                "samplingDesign": {
                    "enum": [
                        "simpleRandom", "systematicRandom", "clusteredRandom",
                        "experimental", "targeted", "opportunistic",
                    ]
                },
                "captureMethod": {"minItems": 1, "items": {"enum": ["activityDetection", "timeLapse"]}},
                "individualAnimals": {"type": "boolean"},
                "observationLevel": {"minItems": 1, "items": {"enum": ["media", "event"]}},
            },
        },
        "spatial": {"required": ["type", "coordinates"]},
        "temporal": {
            "required": ["start", "end"],
            "additionalProperties": {"pattern": r"^\d{4}-\d\d-\d\d$"},
        },
        "taxonomic": {"items": {"required": ["scientificName"]}},
    },
}  # fmt: skip
ZONED = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"
CAMTRAP_REQUIRED = {
    "deployments": {
        "deploymentID": ".+",
        "latitude": r"-?\d+(\.\d+)?",
        "longitude": r"-?\d+(\.\d+)?",
        "deploymentStart": ZONED,
        "deploymentEnd": ZONED,
    },
    "media": {
        "mediaID": ".+",
        "deploymentID": ".+",
        "timestamp": ZONED,
        "filePath": r"(?=[^./~])(?:(?!\.\.).)*",
        "filePublic": "true|false",
        "fileMediatype": "(image|video|audio)/.+",
    },
    "observations": {
        "observationID": ".+",
        "deploymentID": ".+",
        "eventStart": ZONED,
        "eventEnd": ZONED,
        "observationLevel": "media|event",
        "observationType": "animal|human|vehicle|blank|unknown|unclassified",
        "classificationMethod": "machine",
        "classificationProbability": r"|0(\.\d+)?|1(\.0)?",
    },
}


def test_camtrap_package_keeps_the_standard(night, tmp_path):
    export(night, "camtrap-dp", tmp_path / "all")
    package = json.loads((tmp_path / "all/datapackage.json").read_text())
    jsonschema.validate(package, CAMTRAP_PROFILE)
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        "datapackage.json", "deployments.csv", "media.csv", "observations.csv",
    }  # fmt: skip
    tables = {name: table(tmp_path / f"all/{name}.csv") for name in CAMTRAP_REQUIRED}
    assert [len(tables[name]) for name in CAMTRAP_REQUIRED] == [2, 4, 5]
    for name, required in CAMTRAP_REQUIRED.items():
        for row in tables[name]:
            # Station B has no known position: that is reported, and not invented.
            known = (
                {"latitude", "longitude"} if row["deploymentID"] == "B" and name == "deployments" else set()
            )
            for column, pattern in required.items():
                if column not in known:
                    assert re.fullmatch(pattern, row[column]), (name, column, row[column])
    for name, key in (
        ("deployments", "deploymentID"),
        ("media", "mediaID"),
        ("observations", "observationID"),
    ):
        ids = [row[key] for row in tables[name]]
        assert len(set(ids)) == len(ids)
    deployments = {row["deploymentID"] for row in tables["deployments"]}
    assert {row["deploymentID"] for row in tables["media"] + tables["observations"]} <= deployments
    assert {row["mediaID"] for row in tables["observations"]} <= {row["mediaID"] for row in tables["media"]}
    assert package["taxonomic"] == [{"scientificName": "Strix aluco"}]
    assert package["temporal"] == {"start": "2026-05-01", "end": "2026-05-01"}


def test_camtrap_tells_what_the_standard_requires_and_nobody_knows(tmp_path):
    local = recording("a.wav", EVENING, start_time=None, utc_offset_minutes=None)
    night = write_results(tmp_path / "night", [local], [detection(local, 0, "Robin")])
    result = CliRunner().invoke(
        main, ["export", str(night), "--format", "camtrap-dp", "--out", str(tmp_path / "x")]
    )
    assert result.exit_code == 0
    assert "1 of 1 deployment without a known position (A)" in result.output
    assert "without a known UTC offset" in result.output
    assert table(tmp_path / "x/observations.csv")[0]["eventStart"] == "2026-05-01T20:00:00"
    assert table(tmp_path / "x/deployments.csv")[0]["timestampIssues"] == "true"


def test_a_recorder_that_moved_is_several_deployments(tmp_path):
    def made(name, day, **facts):
        return recording(name, EVENING + dt.timedelta(days=day), **facts)

    rows = [
        made("1.wav", 0, latitude=52.5, longitude=13.25),
        made("2.wav", 1, latitude=52.5004, longitude=13.2504),  # 50 m: the same place
        made("3.wav", 2, latitude=52.6, longitude=13.25),
        made("4.wav", 3, latitude=52.5, longitude=13.25),
        made("5.wav", 0, station="B", deployment="spring", latitude=1.0, longitude=2.0),
        made("6.wav", 9, station="B", deployment="autumn", latitude=1.0, longitude=2.0),
        made("7.wav", 9, station="C"),
    ]
    export(write_results(tmp_path / "night", rows), "camtrap-dp", tmp_path / "x")
    deployments = {row["deploymentID"]: row for row in table(tmp_path / "x/deployments.csv")}
    assert {name: row["locationName"] for name, row in deployments.items()} == {
        "A/1": "A", "A/2": "A", "B/spring": "B", "B/autumn": "B", "C": "C",
    }  # fmt: skip
    assert [deployments[f"A/{n}"]["latitude"] for n in (1, 2)] == ["52.5", "52.6"]
    assert deployments["B/spring"]["deploymentEnd"] < deployments["B/autumn"]["deploymentStart"]
    media = {row["fileName"]: row["deploymentID"] for row in table(tmp_path / "x/media.csv")}
    assert media == {
        "1.wav": "A/1", "2.wav": "A/1", "3.wav": "A/2", "4.wav": "A/1",
        "5.wav": "B/spring", "6.wav": "B/autumn", "7.wav": "C",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "form", "expected"),
    [
        ("a.wav", "WAV/PCM_16", "audio/wav"),
        ("a.wav", "RF64/FLOAT", "audio/wav"),
        ("a.flac", "FLAC/PCM_24", "audio/flac"),
        ("a.mp3", "MP3/MPEG_LAYER_III", "audio/mpeg"),
        ("a.ogg", "OGG/VORBIS", "audio/ogg"),
        ("a.wac", None, "audio/x-wac"),
        ("a.m4a", None, "audio/"),
        ("a", None, "audio/x-unknown"),
    ],
)
def test_media_types_are_media_types(tmp_path, path, form, expected):
    export(write_results(tmp_path / "night", [recording(path, format=form)]), "camtrap-dp", tmp_path / "x")
    (row,) = table(tmp_path / "x/media.csv")
    assert row["fileMediatype"].startswith(expected)
    assert re.fullmatch(r"audio/[\w.+-]+", row["fileMediatype"])


AWKWARD = ["+site/a.wav", "-b.wav", "=c.wav", "@d/e.wav", "./f.wav", "plain.wav"]


@pytest.mark.parametrize("form", FORMATS)
def test_paths_that_look_like_formulas_name_their_files(tmp_path, form):
    found = [recording(path, EVENING + dt.timedelta(minutes=n)) for n, path in enumerate(AWKWARD)]
    night = write_results(tmp_path / "night", found, [detection(row, 0, "Robin") for row in found])
    out = target(form, tmp_path)
    loaded = export(night, form, out)
    if form in {"raven", "birdnet-csv", "kaleidoscope"}:
        files = out.rglob("*.txt") if form == "raven" else [out]
        for path in files:
            assert "'" not in path.read_text("utf-8-sig")
            assert_calculates_nothing(path, "\t" if form == "raven" else ",")
    if form not in {"audacity"}:
        assert sorted(loaded["path"].to_pylist()) == sorted(AWKWARD)


@pytest.mark.parametrize("form", FORMATS)
def test_two_archives_with_equal_names_are_told_apart(tmp_path, form):
    from tests.archive.stub_runs import process, record

    for card, seed in (("one/card", 1), ("two/card", 2)):
        record(tmp_path / card / "A_20240510_053000.wav", seed, seconds=12)
    process([tmp_path / "one/card", tmp_path / "two/card"], tmp_path / "night")
    loaded = export(tmp_path / "night", form, target(form, tmp_path))
    expected = {str(tmp_path / card / "card/A_20240510_053000.wav") for card in ("one", "two")}
    if form in {"audacity", "camtrap-dp"}:
        expected = {"card/A_20240510_053000.wav", "card-2/A_20240510_053000.wav"}
    assert set(loaded["path"].to_pylist()) == expected
    moved = export(tmp_path / "night", form, target(form, tmp_path, "moved"), "--archive", "/mnt")
    assert len(set(moved["path"].to_pylist())) == 2


@pytest.mark.parametrize("form", ["csv", "kaleidoscope", "birdnet-csv"])
def test_what_a_spreadsheet_saved_again_is_read(night, tmp_path, form):
    out = target(form, tmp_path)
    before = export(night, form, out)
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    with out.open(encoding="utf-8-sig", newline="") as file:
        cells = list(csv.reader(file))
    with out.open("w", encoding="utf-8-sig", newline="") as file:
        decimals = [[re.sub(r"^(-?\d+)\.(\d+)$", r"\1,\2", cell) for cell in row] for row in cells]
        csv.writer(file, delimiter=";").writerows(decimals)
    assert get_format(form).load(out).equals(before)


@pytest.mark.parametrize("form", ["csv", "raven"])
def test_query_ids_calculate_nothing(tmp_path, form):
    row = recording("a.wav", EVENING)
    night = write_results(tmp_path / "night", [row], [detection(row, 0, "Robin", query="=1+1")])
    export(night, form, tmp_path / "out.txt")
    assert_calculates_nothing(tmp_path / "out.txt", "\t" if form == "raven" else ",")


# --- text and order


@given(st.text())
def test_unguard_is_the_inverse_of_guard(text):
    assert unguard(guard(text)) == text
    assert not re.match(r"[\s\u200b\u2060\ufeff]*[=+\-@\t\r\n＝＋－＠]", guard(text))


@given(st.text())
def test_flat_text_is_one_line_without_tabs(text):
    assert len(flat(text).splitlines()) <= 1
    assert "\t" not in flat(text)


def test_recordings_come_in_order_each_once_with_all_their_detections(tmp_path):
    night = write_large(tmp_path / "night", recordings=40, detections_each=1_300)
    connection = open_tables(night)
    source = ExportSource(connection, scientific_queries(read_analysis(night).queries))
    heard = list(source.by_recording())
    assert [recording.position for recording, _ in heard] == list(range(1, 41))
    assert [len(detections) for _, detections in heard] == [1_300] * 40
    keys = [(recording.station, recording.start_local) for recording, _ in heard]
    assert keys == sorted(keys)
    for recording_, detections in heard[::13]:
        expected = connection.sql(
            "SELECT start_s, score FROM detections WHERE recording_id = $id ORDER BY start_s",
            params={"id": recording_.recording_id},
        ).fetchall()
        assert [(found.start_s, found.score) for found in detections] == expected


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--label", "wrem"], "--label: no detection has the label 'wrem'; did you mean"),
        (["--query-id", "specis"], "--query-id: there is no query 'specis' here; did you mean 'species'?"),
    ],
)
def test_label_and_query_that_match_nothing_are_refused(night, tmp_path, options, named):
    done = CliRunner().invoke(
        main, ["export", str(night), "--format", "csv", "--out", str(tmp_path / "x.csv"), *options]
    )
    assert done.exit_code == 2
    assert named in done.output
    assert not (tmp_path / "x.csv").exists()
