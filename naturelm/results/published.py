"""The files of published days: one per table, station and date, each replaced as a whole."""

from __future__ import annotations

import pyarrow as pa

from naturelm.results.days import Parts, PublishedRecording, parts_metadata, published_recordings
from naturelm.results.layout import day_of, day_path
from naturelm.results.parquet import at_once, read_table, write_table
from naturelm.results.rows import published_schema
from naturelm.results.schemas import RECORDINGS, SORT_KEYS, TABLES
from naturelm.segments import Day
from naturelm.storage import Location, list_files

# `recordings` last: a recording that is listed there has all its other rows published.
PUBLISH_ORDER = [*(name for name in TABLES if name != RECORDINGS), RECORDINGS]


class PublishedFiles:
    """The published days of an output directory.

    Parameters
    ----------
    directory : Path or StorePath
        The output directory.
    """

    def __init__(self, directory: Location) -> None:
        self._directory = directory

    def files(self, table: str) -> dict[Day, Location]:
        """A table's files by day."""
        found = (
            (day_of(file.relative_path), file) for file in list_files(self._directory / table, recursive=True)
        )
        return {day: file.location for day, file in found if day is not None}

    def recordings(self) -> list[PublishedRecording]:
        """The recordings whose rows are published."""
        days = sorted(self.files(RECORDINGS))
        tables = at_once(lambda day: self.read(RECORDINGS, day), days)
        return [
            recording
            for day, table in zip(days, tables, strict=True)
            if table is not None
            for recording in published_recordings(day, table)
        ]

    def read(self, table: str, day: Day) -> pa.Table | None:
        """A day's rows; None where it has no file."""
        try:
            return read_table(self._path(table, day))
        except FileNotFoundError:
            return None

    def write(
        self, table: str, day: Day, rows: pa.Table, analysis_hash: str, parts: Parts | None = None
    ) -> None:
        """Replace a day's rows; `parts` are those of `recordings`."""
        path = self._path(table, day)
        schema = published_schema(table, analysis_hash)
        if table == RECORDINGS:
            schema = schema.with_metadata(schema.metadata | parts_metadata(parts or {}))
        rows = rows.sort_by([(key, "ascending") for key in SORT_KEYS[table]])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, rows.cast(schema))

    def remove(self, day: Day) -> None:
        """Remove a day's files."""
        for name in PUBLISH_ORDER:
            self._path(name, day).unlink(missing_ok=True)

    def _path(self, table: str, day: Day) -> Location:
        return self._directory / table / day_path(day)
