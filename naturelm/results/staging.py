"""Staged segments: committed, and waiting for the day that they belong to.

A segment's rows are staged as one file per table, the last one (`answers`) is the segment's commit. Names and
contents are deterministic, so that every step may be repeated after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from naturelm.results.layout import STAGING, segment_of
from naturelm.results.parquet import at_once, read_table, remove_all, write_table
from naturelm.results.schemas import conformed
from naturelm.results.table_sets import WORDS, TableSet
from naturelm.storage import TEMPORARY, Location, StorePath, list_files


class StagedFiles:
    """The staged segments of an output directory.

    Parameters
    ----------
    directory : Path or StorePath
        The output directory.
    tables : TableSet
        Which of its tables.
    """

    def __init__(self, directory: Location, tables: TableSet = WORDS) -> None:
        self._directory = tables.home(directory) / STAGING
        self._order = tables.staging_order

    def create(self) -> None:
        """Make the folders."""
        for name in self._order:
            (self._directory / name).mkdir(parents=True, exist_ok=True)

    def ids(self) -> set[str]:
        """Ids of the segments that are committed here."""
        return set(self._files(self._order[-1]))

    def path(self, table: str, segment_id: str) -> Location:
        """Where a segment's rows of a table are."""
        return self._directory / table / f"{segment_id}.parquet"

    def read(self, table: str, segment_ids: Iterable[str]) -> list[pa.Table]:
        """Rows of segments, a table for each."""
        tables = at_once(read_table, (self.path(table, segment) for segment in segment_ids))
        return [conformed(table, rows) for rows in tables]

    def write(self, segment_id: str, tables: Mapping[str, pa.Table]) -> None:
        """Commit a segment's rows."""
        for name in self._order:
            write_table(self.path(name, segment_id), tables[name])

    def remove(self, segment_ids: Iterable[str]) -> None:
        """Remove segments."""
        ids = list(segment_ids)
        # The commit first: without it the segment's other files count for nothing.
        for name in reversed(self._order):
            remove_all(self.path(name, segment) for segment in ids)

    def clear(self) -> None:
        """Remove what a crash left half-written: files, and segments without a commit."""
        if not isinstance(self._directory, StorePath):
            for path in self._directory.rglob(f"*{TEMPORARY}"):
                path.unlink(missing_ok=True)
        committed = self.ids()
        for name in self._order[:-1]:
            remove_all(place for segment, place in self._files(name).items() if segment not in committed)

    def _files(self, table: str) -> dict[str, Location]:
        """A table's files by segment."""
        found = ((segment_of(file.relative_path), file) for file in list_files(self._directory / table))
        return {segment: file.location for segment, file in found if segment is not None}
