"""Published files that are missing or cut short: somebody deleted them, or a disk lost them.

Every published day has a file in each table, so `recordings` says which files there must be. What `recordings` itself
has lost shows in the other tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from naturelm.errors import NaturelmError
from naturelm.results.days import PublishedRecording
from naturelm.results.layout import day_file
from naturelm.results.parquet import at_once, read_table
from naturelm.results.published import PublishedFiles
from naturelm.results.schemas import RECORDINGS
from naturelm.results.staging import StagedFiles
from naturelm.results.table_sets import WORDS, TableSet
from naturelm.storage import Location
from naturelm.text import counted

# The first and the last bytes of a Parquet file.
_MAGIC = b"PAR1"
_LEAST_BYTES = 12
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A published file that is missing or cannot be read.

    Attributes
    ----------
    table : str
    folder, date : str
        The station's folder, and the date or "".
    place : Path or StorePath
    is_missing : bool
        Otherwise it is cut short or no Parquet file.
    """

    table: str
    folder: str
    date: str
    place: Location
    is_missing: bool

    @property
    def name(self) -> str:
        """The path below the output directory."""
        return f"{self.table}/{day_file(self.folder, self.date)}"


def find_damage(directory: Location, tables: TableSet = WORDS) -> list[DamagedFile]:
    """Published files of an output directory that are missing or cannot be read.

    Raises
    ------
    NaturelmError
        A file is there and the system does not let it be read.
    """
    listed = PublishedFiles(directory, tables).listed()
    here = {table: set(files) for table, files in listed.items()}
    expected = set(here[RECORDINGS])
    if not StagedFiles(directory, tables).ids():
        # While segments are staged, a day may be on its way: `recordings` is its last file.
        expected |= set().union(*here.values())
    missing = [
        DamagedFile(table, *day, tables.place(directory, table) / day_file(*day), True)
        for table in tables.daily
        for day in sorted(expected - here[table])
        # A crash may leave `recordings` of a day that has none any more.
        if day not in here[RECORDINGS] or _has_rows(listed[RECORDINGS][day])
    ]
    # A store replaces objects whole, and requesting the end of each would take long.
    present = [
        DamagedFile(table, *day, place, False)
        for table, files in listed.items()
        for day, place in sorted(files.items())
        if isinstance(place, Path)
    ]
    whole = at_once(lambda file: _is_whole(file.place), present)
    return missing + [file for file, is_whole in zip(present, whole, strict=True) if not is_whole]


def _has_rows(place: Location) -> bool:
    """Whether a file is damaged or has rows."""
    try:
        return bool(read_table(place).num_rows)
    except NaturelmError:
        return True


def _is_whole(place: Location) -> bool:
    try:
        with place.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            if size_bytes < _LEAST_BYTES:
                return False
            file.seek(-len(_MAGIC), os.SEEK_END)
            return bool(file.read() == _MAGIC)
    except FileNotFoundError:  # a day was published again
        return True
    except OSError as error:
        raise NaturelmError(
            f"{place}: cannot be read ({error.strerror}); check its permissions and its disk"
        ) from None


def described(damaged: Sequence[DamagedFile]) -> str:
    """Which files, in a few words."""
    names = ", ".join(file.name for file in damaged[:_NAMES_SHOWN])
    more = ", …" if len(damaged) > _NAMES_SHOWN else ""
    return f"{counted(len(damaged), 'published file')} missing or unreadable ({names}{more})"


def affected(
    published: Iterable[PublishedRecording],
    damaged: Iterable[DamagedFile],
    directory: Location,
    tables: TableSet = WORDS,
) -> list[PublishedRecording]:
    """The recordings of which rows are lost."""
    files = PublishedFiles(directory, tables)
    days = {(file.folder, file.date) for file in damaged}
    return [
        recording for recording in published if (files.folder_of(recording.day), recording.day.date) in days
    ]
