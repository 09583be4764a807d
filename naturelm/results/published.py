"""The files of published days: one per table, station and date, each replaced as a whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

import pyarrow as pa

from naturelm.results.days import Parts, PublishedRecording, parts_metadata, published_recordings
from naturelm.results.layout import STAGING, day_file, folder_name, split_day_file, station_of
from naturelm.results.parquet import at_once, read_table, write_table
from naturelm.results.schemas import EMBEDDINGS, RECORDINGS, SORT_KEYS, conformed
from naturelm.results.table_sets import WORDS, TableSet
from naturelm.segments import Day
from naturelm.storage import Location, list_files


class PublishedFiles:
    """The published days of an output directory.

    Parameters
    ----------
    directory : Path or StorePath
        The output directory.
    tables : TableSet
        Which of its tables.
    """

    def __init__(self, directory: Location, tables: TableSet = WORDS) -> None:
        self._directory = directory
        self._tables = tables
        self._folders: dict[str, str] = {}

    def files(
        self, listed: Mapping[str, Mapping[tuple[str, str], Location]] | None = None
    ) -> dict[str, dict[Day, Location]]:
        """By table, by day: all files, of those `listed` where they are given."""
        found = self.listed() if listed is None else listed
        stations: dict[str, str | None] = {}
        for (folder, _), place in found[RECORDINGS].items():
            if folder not in stations:
                stations[folder] = station_of(folder) or read_table(place, ["station"])["station"][0].as_py()
        return {
            table: {
                Day(station, date): place
                for (folder, date), place in files.items()
                # Without any `recordings` the folder's rows do not count: a crash came before they were published.
                if (station := stations.get(folder)) is not None
            }
            for table, files in found.items()
        }

    def listed(self) -> dict[str, dict[tuple[str, str], Location]]:
        """By table, by folder and date: all files, whether their rows count or not."""
        # `recordings` first: a day that is published in between is then found in the other tables.
        return {table: self._listed(table) for table in self._tables.schemas}

    def recordings(self, without: Collection[Location] = ()) -> list[PublishedRecording]:
        """The recordings whose rows are published, except those of the files `without`."""
        files = [place for place in self._listed(RECORDINGS).values() if place not in without]
        tables = at_once(read_table, files)
        return [
            recording for table in tables for recording in published_recordings(conformed(RECORDINGS, table))
        ]

    def read(self, table: str, day: Day) -> pa.Table | None:
        """A day's rows; None where it has no file."""
        try:
            return conformed(table, read_table(self.path(table, day)))
        except FileNotFoundError:
            return None

    def write(
        self, table: str, day: Day, rows: pa.Table, metadata: dict[bytes, bytes], parts: Parts | None = None
    ) -> None:
        """Replace a day's rows; `parts` are those of `recordings`."""
        path = self.path(table, day)
        if table == EMBEDDINGS:
            if not rows.num_rows:  # without a vector there is no width
                path.unlink(missing_ok=True)
                return
            schema = rows.schema
        else:
            schema = self._tables.schemas[table]
        schema = schema.with_metadata(metadata | (parts_metadata(parts or {}) if table == RECORDINGS else {}))
        rows = rows.sort_by([(key, "ascending") for key in SORT_KEYS[table]])
        path.parent.mkdir(parents=True, exist_ok=True)
        # Polars refuses a folder in which a crash has left a file that is not Parquet.
        write_table(path, rows.cast(schema), self._tables.home(self._directory) / STAGING)

    def remove(self, day: Day) -> None:
        """Remove a day's files."""
        for name in self._tables.publishing_order:
            self.path(name, day).unlink(missing_ok=True)

    def _listed(self, table: str) -> dict[tuple[str, str], Location]:
        """A table's files by folder and date."""
        listed = list_files(self._tables.place(self._directory, table), recursive=True)
        found = ((split_day_file(file.relative_path), file.location) for file in listed)
        return {name: place for name, place in found if name is not None}

    @cached_property
    def _taken(self) -> set[str]:
        # `recordings` are written last: all that a crash left behind is there without them.
        return {folder for table in self._tables.schemas for folder, _ in self._listed(table)}

    def folder_of(self, day: Day) -> str:
        """The folder of a day's station."""
        folder = self._folders.get(day.station)
        if folder is None:
            folder = self._folders[day.station] = folder_name(day.station, self._taken)
            self._taken.add(folder)
        return folder

    def path(self, table: str, day: Day) -> Location:
        """Where a day's rows of a table are."""
        return self._tables.place(self._directory, table) / day_file(self.folder_of(day), day.date)
