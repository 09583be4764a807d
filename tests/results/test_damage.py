"""Published files that somebody deleted or a disk cut short."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from naturelm.archive.scan import scan_archive
from naturelm.errors import NaturelmError
from naturelm.results.damage import find_damage
from naturelm.results.schemas import TABLES
from naturelm.results.visible import committed
from naturelm.tables.query import open_tables
from tests.archive.stub_runs import process, record, rows, settings

DAY = "A/2024-05-10.parquet"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for station in ("A", "湿地"):
        for hour in range(2):
            record(tmp_path / f"archive/{station}/20240510_0{hour}0000.wav", hour)
    return tmp_path / "archive"


def all_rows(out: Path) -> dict[str, list[dict]]:
    return {table: rows(out, table) for table in TABLES}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("how", ["deleted", "cut", "emptied", "all deleted"])
def test_the_next_run_restores_what_was_lost(archive: Path, tmp_path: Path, table: str, how: str) -> None:
    out = tmp_path / "out"
    process(archive, out)
    before = all_rows(out)
    assert find_damage(out) == []
    file = out / table / DAY
    if how == "deleted":
        file.unlink()
    elif how == "all deleted":
        shutil.rmtree(out / table)
    else:
        file.write_bytes(file.read_bytes()[: 200 if how == "cut" else 0])
    damaged = find_damage(out)
    assert len(damaged) == (2 if how == "all deleted" else 1)
    assert DAY in {damage.name.partition("/")[2] for damage in damaged}
    with pytest.raises(
        NaturelmError, match=rf"{table}/\S+/2024-05-10.parquet: .*naturelm process with the same --out again"
    ):
        open_tables(out).sql(f"FROM {table}").fetchall()

    ran = process(archive, out)
    assert {path.split("/")[0] for path, _ in ran.places} == (
        {"A", "湿地"} if how == "all deleted" else {"A"}
    )
    assert any("missing or unreadable" in line for line in ran.changes.sentences(prune=False))
    assert all_rows(out) == before
    assert find_damage(out) == []
    assert process(archive, out).done == []


def test_rows_of_recordings_that_are_not_there_stay_and_are_named(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process(archive, out)
    (out / "detections" / DAY).unlink()
    ran = process(archive / "湿地", out)
    assert ran.done == []
    (line,) = [line for line in ran.changes.sentences(prune=False) if "not found here" in line]
    assert line.startswith("2 recordings with lost rows")
    assert len(committed(out)[0]) == 4


def test_a_day_whose_publishing_was_interrupted_is_not_damaged(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process(archive, out, limit=3)
    shutil.copytree(out / "_staging/answers", out / "answers/B", dirs_exist_ok=True)
    assert find_damage(out) == []
    scan_archive([archive], out, settings())
