"""The published rows of probes: `probe_detections/<probe>/<station>/<date>.parquet`, one file per day of embeddings.

A day's file says in its metadata which probe wrote it and which file of embeddings it was written from, so that days
that are new or have changed are scored, and no others.
"""

from __future__ import annotations

import hashlib
import os

import pyarrow as pa

from naturelm.results.layout import PROBES, STAGING, day_file, folder_name
from naturelm.results.parquet import read_table, write_table
from naturelm.results.schemas import DETECTIONS, TABLES
from naturelm.segments import Day
from naturelm.storage import Location, list_files
from naturelm.text import file_name

PROBE_QUERY = "probe"
"""What stands in `query` of these rows."""

_PROBE, _SOURCE = b"naturelm.probe", b"naturelm.source"
_EDGE_BYTES = 1 << 16


def probe_folder(directory: Location, label: str) -> Location:
    """The folder of a label's rows: one probe of a label at a time."""
    digest = hashlib.blake2b(label.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return directory / PROBES / f"{file_name(label, 60)}-{digest}"


def probe_files(directory: Location) -> list[Location]:
    """All files of all probes."""
    return [
        file.location
        for file in list_files(directory / PROBES, recursive=True)
        if file.relative_path.endswith(".parquet")
    ]


def digest_of(place: Location) -> str:
    """What identifies the state of a file of embeddings: its size and its end, which indexes the rest."""
    with place.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _EDGE_BYTES))
        return hashlib.blake2b(str(size).encode() + file.read(), digest_size=16).hexdigest()


class ProbeDays:
    """The days of one label's probe.

    Parameters
    ----------
    directory : Path or StorePath
        The output directory.
    label : str
    probe_id : str
        Which probe of this label.
    """

    def __init__(self, directory: Location, label: str, probe_id: str) -> None:
        self._directory = directory
        self._folder = probe_folder(directory, label)
        self._id = probe_id.encode()
        self._taken: set[str] = set()

    def _path(self, day: Day) -> Location:
        folder = folder_name(day.station)
        return self._folder / day_file(folder, day.date)

    def is_done(self, day: Day, source: str) -> bool:
        """Whether this probe has scored the day as it is now."""
        try:
            metadata = read_table(self._path(day), ["recording_id"]).schema.metadata or {}
        except FileNotFoundError:
            return False
        return bool(metadata.get(_PROBE) == self._id and metadata.get(_SOURCE) == source.encode())

    def write(self, day: Day, rows: pa.Table, source: str) -> None:
        """Replace a day's rows."""
        path = self._path(day)
        path.parent.mkdir(parents=True, exist_ok=True)
        (self._directory / STAGING).mkdir(parents=True, exist_ok=True)
        schema = TABLES[DETECTIONS].with_metadata({_PROBE: self._id, _SOURCE: source.encode()})
        write_table(path, rows.cast(schema), self._directory / STAGING)

    def keep_only(self, days: set[Day]) -> None:
        """Remove the rows of all other days."""
        kept = {str(self._path(day)) for day in days}
        for file in list_files(self._folder, recursive=True):
            if str(file.location) not in kept:
                file.location.unlink(missing_ok=True)
