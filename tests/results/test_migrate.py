"""A directory that version 0.1.0 wrote is converted and continued, and nothing in it is processed twice.

tests/data/schema-2.zip was written by the code of version 0.1.0 (commit 6de0772), with its `stub_runs.process`, from
the archive that `archive` makes: `--hours 03:00-04:00`, `--stations "Höhle ü"`, `--dates 2024-05-03` where decoding
failed, and a run over everything that was interrupted after four segments.
"""

from __future__ import annotations

import datetime as dt
import os
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.results.migrate import migrate
from naturelm.results.schemas import SORT_KEYS, TABLES
from naturelm.tables.query import open_tables
from tests.archive import stub_runs

FIXTURE = Path(__file__).parents[1] / "data/schema-2.zip"
NAMES = (
    "007/20240501_035940.wav",
    "007/20240501_041000.wav",
    "Höhle ü/notes.wav",
    "C/20240503_040000.wav",
)
FAILED = NAMES[3]
DAYS = {
    "station=007/date=2024-05-01": ("007", dt.date(2024, 5, 1)),
    "station=C/date=2024-05-03": ("C", dt.date(2024, 5, 3)),
    "station=H%C3%B6hle %C3%BC/date=__HIVE_DEFAULT_PARTITION__": ("Höhle ü", None),
}
DONE = {
    (NAMES[0], 0),
    *((NAMES[2], first) for first in (0, 2, 4, 6)),
    *((NAMES[3], first) for first in (0, 2, 4, 6)),
    *((NAMES[0], first) for first in (2, 4)),
    *((NAMES[1], first) for first in (0, 2)),
}


@pytest.fixture
def archive(tmp_path) -> Path:
    for name in NAMES:
        stub_runs.record(tmp_path / "archive" / name, seed=sum(name.encode()))
    return tmp_path / "archive"


@pytest.fixture
def old(tmp_path) -> Path:
    with zipfile.ZipFile(FIXTURE) as fixture:
        fixture.extractall(tmp_path / "old")
    return tmp_path / "old"


def _old_rows(directory: Path, table: str) -> list[dict]:
    """The rows of a directory of schema version 2, published and staged, without this package's readers."""
    found = []
    for path in (directory / table).rglob("*.parquet"):
        station, date = DAYS[path.parent.relative_to(directory / table).as_posix()]
        rows = pq.read_table(path, partitioning=None).to_pylist()
        found += [{"station": station, "date": date} | row for row in rows]
    if table != "recordings":
        for path in (directory / "_staging" / table).glob("*.parquet"):
            found += pq.read_table(path, partitioning=None).to_pylist()
    return sorted(found, key=lambda row: str([row[key] for key in SORT_KEYS[table]]))


def _rows_now(directory: Path, table: str) -> list[dict]:
    rows = open_tables(directory).sql(f"FROM {table}").to_arrow_table().to_pylist()
    return sorted(rows, key=lambda row: str([row[key] for key in SORT_KEYS[table]]))


@pytest.mark.parametrize("verb", ["query", "status", "summary", "process"])
def test_older_directory_is_refused_with_the_command_that_converts_it(old, archive, verb):
    arguments = {
        "query": ["query", str(old), "FROM recordings"],
        "process": ["process", str(archive), "--out", str(old)],
    }.get(verb, [verb, str(old)])
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert f"naturelm migrate {old}" in done.output
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("table", ["answers", "detections", "captions"])
def test_every_row_keeps_its_values_and_gains_its_station_and_date(old, table):
    before = _old_rows(old, table)
    assert before
    migrate(old, print)
    now = _rows_now(old, table)
    assert [list(row) for row in now] == [TABLES[table].names] * len(before)
    for row, earlier in zip(now, before, strict=True):
        assert {name: row[name] for name in earlier} == earlier
        assert row["station"] in {"007", "Höhle ü", "C"}


def test_converted_files_are_ordinary_tables_below_plain_paths(old):
    migrate(old, print)
    for table, schema in TABLES.items():
        files = {
            path.relative_to(old / table).as_posix() for path in (old / table).rglob("*") if path.is_file()
        }
        assert files == {
            "007/2024-05-01.parquet",
            "C/2024-05-03.parquet",
            "H%C3%B6hle %C3%BC/undated.parquet",
        }
        for path in (old / table).rglob("*.parquet"):
            assert pq.read_schema(path).equals(schema)


def test_process_continues_a_converted_directory_and_does_nothing_twice(old, archive, tmp_path):
    migrate(old, print)
    ran = stub_runs.process(archive, old)
    everything = {(name, first) for name in NAMES for first in (0, 2, 4, 6)}
    assert set(ran.places) == everything - DONE
    assert not ran.changes.moves
    fresh = tmp_path / "fresh"
    stub_runs.process(archive, fresh, failing={FAILED})
    assert stub_runs.tables(old) == stub_runs.tables(fresh)
    assert stub_runs.process(archive, old).places == []
    retried = stub_runs.process(archive, old, retry_failed=True)
    assert {path for path, _ in retried.places} == {FAILED}


@pytest.mark.parametrize("cut_after", range(0, 27, 2))
def test_migration_that_is_interrupted_anywhere_is_completed_by_another(
    old, tmp_path, monkeypatch, cut_after
):
    with zipfile.ZipFile(FIXTURE) as fixture:
        fixture.extractall(tmp_path / "whole")
    migrate(tmp_path / "whole", print)
    changes = 0
    replace, unlink = os.replace, Path.unlink

    def change() -> None:
        nonlocal changes
        changes += 1
        if changes > cut_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *names: (change(), replace(*names)))
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: (change(), unlink(path, missing_ok)))
        with pytest.raises(KeyboardInterrupt):
            migrate(old, print)
    # A dead process holds no lock.
    (old / "_lock.json").unlink(missing_ok=True)
    with pytest.raises(NaturelmError, match="naturelm migrate"):
        open_tables(old)
    migrate(old, print)
    assert _contents(old) == _contents(tmp_path / "whole")


def _contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "_lock.json" and not path.name.endswith(".tmp")
    }


def test_unknown_files_stay_and_are_named_and_a_second_migration_has_nothing_to_do(old):
    notes = old / "answers/station=007/notes.txt"
    notes.write_text("mine")
    done = CliRunner().invoke(main, ["migrate", str(old)])
    assert done.exit_code == 0, done.output
    assert "3 station-days, 4 staged segments" in done.output
    assert "answers/station=007/notes.txt: not a file of naturelm, left where it is" in done.output
    assert notes.read_text() == "mine"
    again = CliRunner().invoke(main, ["migrate", str(old)])
    assert again.exit_code == 0
    assert "nothing to do" in again.output
