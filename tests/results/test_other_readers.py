"""Published tables open in DuckDB, pandas, pyarrow and Polars as they are: no options, whatever stations are called."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from naturelm.results.schemas import TABLES
from naturelm.tables.query import open_tables
from tests.archive import stub_runs

STATIONS = [
    "007",
    "7",
    "1.50",
    "true",
    "null",
    "2026-05-01",
    "Øst 2",
    "a=b",
    "_hidden",
    "con",
    "Ridge",
    "ridge",
    "森林監測站",
    "ж" * 42,
    "林" * 31,
    "x" * 200,
]
Triple = tuple[str, dt.date | None, str]


@pytest.fixture(scope="module")
def night(tmp_path_factory) -> Path:
    """A dated and an undated recording of every station, processed and published."""
    place = tmp_path_factory.mktemp("readers")
    for number, station in enumerate(STATIONS):
        for name in ("20240501_035940.wav", "notes.wav"):
            stub_runs.record(place / "archive" / station / name, seed=number, seconds=12.0)
    stub_runs.process(place / "archive", place / "out")
    return place / "out"


def _triples(columns: dict[str, list[Any]]) -> list[Triple]:
    assert {type(value) for value in columns["station"]} == {str}
    rows = zip(columns["station"], columns["date"], columns["recording_id"], strict=True)
    return sorted(rows, key=str)


def _with_pandas(folder: Path) -> list[Triple]:
    frame = pandas.read_parquet(folder)
    dates = [None if pandas.isna(date) else date for date in frame["date"]]
    return _triples({name: list(frame[name]) for name in ("station", "recording_id")} | {"date": dates})


def _with_duckdb(folder: Path) -> list[Triple]:
    rows = duckdb.sql(f"FROM read_parquet('{folder}/*/*.parquet')").to_arrow_table()
    return _triples(rows.to_pydict())


READERS: dict[str, Callable[[Path], list[Triple]]] = {
    "pandas": _with_pandas,
    "DuckDB": _with_duckdb,
    "Polars": lambda folder: _triples(polars.read_parquet(folder).to_dict(as_series=False)),
    "Polars, lazily": lambda folder: _triples(polars.scan_parquet(folder).collect().to_dict(as_series=False)),
    "pyarrow": lambda folder: _triples(pq.read_table(folder).to_pydict()),
    "pyarrow.dataset": lambda folder: _triples(pyarrow.dataset.dataset(folder).to_table().to_pydict()),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("reader", READERS)
def test_folder_opens_without_options(night, reader, table):
    rows = open_tables(night).sql(f"SELECT station, date, recording_id FROM {table}").fetchall()
    assert {station for station, _, _ in rows} == set(STATIONS)
    assert {date for _, date, _ in rows} == {dt.date(2024, 5, 1), None}
    assert READERS[reader](night / table) == sorted(rows, key=str)
