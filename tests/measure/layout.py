"""Compare the tables of one archive before and after the change of layout, column by column.

    python -m tests.measure.layout OLD NEW

OLD was written by version 0.1.0 (`<table>/station=<station>/date=<date>/part-0.parquet`), NEW by the current one from
the same archive with the same settings. Prints, per table and column, the number of rows and of those that differ;
exits with 1 where any does.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from naturelm.results.schemas import SORT_KEYS, TABLES

Row = dict[str, Any]


def old_rows(directory: Path, table: str) -> list[Row]:
    """Published rows of version 0.1.0; station and date come from the paths."""
    found: list[Row] = []
    for path in (directory / table).rglob("part-0.parquet"):
        station, date = (unquote(part.partition("=")[2]) for part in path.parent.parts[-2:])
        day = None if date == "__HIVE_DEFAULT_PARTITION__" else dt.date.fromisoformat(date)
        rows = pq.read_table(path, partitioning=None).to_pylist()
        found += [{"station": station, "date": day} | row for row in rows]
    return found


def new_rows(directory: Path, table: str) -> list[Row]:
    return list(pq.read_table(directory / table).to_pylist())


def main() -> None:
    old, new = map(Path, sys.argv[1:])
    differences = 0
    for table in TABLES:
        keys = SORT_KEYS[table]
        before, after = (
            sorted(rows, key=lambda row: [str(row[key]) for key in keys])
            for rows in (old_rows(old, table), new_rows(new, table))
        )
        columns = sorted({*before[0], *after[0]}, key=list(after[0]).index)
        print(f"{table}: {len(before)} rows before, {len(after)} after")
        for column in columns:
            differing = sum(a.get(column) != b.get(column) for a, b in zip(before, after, strict=True))
            differences += differing
            print(f"  {column}: {differing} differ")
    sys.exit(differences > 0)


if __name__ == "__main__":
    main()
