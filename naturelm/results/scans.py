"""`_plans/<hash>.parquet`: what a scan found, as one row for each recording with the segments it is cut into.

A manifest is never changed: another scan with another result is another file. Scans read it to leave alone what
has not changed, and `naturelm process` to distinguish renamed, replaced and vanished recordings from new ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from naturelm.config.archive import WindowSettings
from naturelm.recordings import Recording
from naturelm.recordings.discovery import path_from_text, path_to_text
from naturelm.recordings.station_names import Division
from naturelm.results.layout import PLANS
from naturelm.results.parquet import write_table
from naturelm.segments import cut_segments
from naturelm.storage import Location, StorePath, is_url, list_files, location

# Counts up when headers are read otherwise, too: what older manifests say of files is then not taken over.
FORMAT = 4

# What a stations file may change; `own` keeps what the file itself says, so that it need not be read again.
_PLACE_AND_TIME: list[tuple[str, pa.DataType]] = [
    ("station", pa.string()),
    ("start_local", pa.timestamp("us")),
    ("start_time", pa.timestamp("us", tz="UTC")),
    ("start_time_source", pa.string()),
    ("utc_offset_minutes", pa.int32()),
    ("latitude", pa.float64()),
    ("longitude", pa.float64()),
    ("deployment", pa.string()),
]
_FACTS: list[tuple[str, pa.DataType]] = [
    ("recording_id", pa.string()),
    ("path", pa.string()),
    ("root", pa.string()),
    *_PLACE_AND_TIME,
    ("duration_s", pa.float64()),
    ("sample_rate_hz", pa.int32()),
    ("channels", pa.int32()),
    ("format", pa.string()),
    ("frames", pa.int64()),
    ("seekable", pa.bool_()),
    ("status", pa.string()),
    ("error", pa.string()),
    ("remarks", pa.list_(pa.string())),
    ("content", pa.string()),
    ("size_bytes", pa.int64()),
    ("modified_ns", pa.int64()),
]
_SEGMENT: list[tuple[str, pa.DataType]] = [
    ("first_window", pa.int32()),
    ("windows", pa.int32()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("own_end_s", pa.float64()),
]
SCHEMA = pa.schema(
    [*_FACTS, ("own", pa.struct(_PLACE_AND_TIME)), ("segments", pa.list_(pa.struct(_SEGMENT)))]
)
assert {name for name, _ in _FACTS} == {field.name for field in fields(Recording)}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a scan has looked: below these directories, and at these files.

    Attributes
    ----------
    directories : frozenset of str
        Those of the given directories that hold a recording. One without any is more likely a card that is not mounted
        than an emptied one.
    roots : frozenset of str
        Those of `directories` that are archive roots: all below them was searched.
    files : frozenset of str
        Recordings that were found.
    """

    directories: frozenset[str]
    roots: frozenset[str]
    files: frozenset[str]

    @classmethod
    def of(cls, paths: Sequence[Location], recordings: Sequence[Recording]) -> Scope:
        files = frozenset(place_of(recording.root, recording.path) for recording in recordings)
        above = {directory for file in files for directory in _directories_above(file)}
        directories = frozenset(root for root in _roots_of(paths) if root.rstrip("/") in above)
        return cls(directories, directories & {recording.root for recording in recordings}, files)

    def holds(self, root: str, path: str) -> bool:
        place = place_of(root, path)
        return place in self.files or not self.directories.isdisjoint(_directories_above(place))


def place_of(root: str, path: str) -> str:
    """The whole path of a recording, by which it is the same one whatever root it was found below."""
    return f"{root.rstrip('/')}/{path}"


def _directories_above(place: str) -> Iterator[str]:
    end = place.rfind("/")
    while end > 0:
        yield place[:end]
        end = place.rfind("/", 0, end)


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a recording was when a scan last saw it."""

    root: str
    path: str
    content: str | None

    def is_gone(self) -> bool:
        """Whether it certainly is not there any more; where that cannot be seen, it is not gone."""
        if is_url(self.root):
            return not (location(self.root) / self.path).exists()
        try:
            status = os.lstat(os.path.join(path_from_text(self.root), path_from_text(self.path)))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        # Directories that cannot be listed are seen as recordings; once they can, they are none.
        return stat.S_ISDIR(status.st_mode)


class Manifests:
    """The manifests of an output directory."""

    def __init__(self, directory: Location) -> None:
        self._directory = directory / PLANS

    def roots(self) -> set[str]:
        """All archive roots that earlier scans searched."""
        found: set[str] = set()
        for path in self._newest_first():
            with path.open("rb") as file:
                found.update(_covered_roots(pq.ParquetFile(file)))
        return found

    def divisions(self) -> set[Division]:
        """The stations that earlier scans divided."""
        found: set[Division] = set()
        for path in self._newest_first():
            with path.open("rb") as file:
                metadata = pq.ParquetFile(file).schema_arrow.metadata or {}
            stored = json.loads(metadata.get(b"naturelm.divisions", b"[]"))
            found.update((tuple(chain), key) for chain, key in stored)
        return found

    def known(self, paths: Collection[Location]) -> dict[tuple[str, str], Recording]:
        """What earlier scans read from the files below `paths`, by root and path.

        For each directory this is the newest manifest's word that covers it.
        """
        wanted = set(_roots_of(paths))
        known: dict[tuple[str, str], Recording] = {}
        for path in self._newest_first():
            with path.open("rb") as file:
                manifest = pq.ParquetFile(file)
                covered = wanted & set(_covered_roots(manifest))
                table = manifest.read(columns=[*(name for name, _ in _FACTS), "own"]) if covered else None
            if table is not None:
                for recording in _recordings(table):
                    if recording.root in covered:
                        known[recording.root, recording.path] = recording
                wanted -= covered
            if not wanted:
                break
        return known

    def last_seen(self, recording_ids: Collection[str]) -> dict[str, Seen]:
        """Where recordings were when last seen; those that no manifest knows are left out."""
        wanted = set(recording_ids)
        seen: dict[str, Seen] = {}
        for path in self._newest_first():
            if not wanted:
                break
            with path.open("rb") as file:
                table = pq.read_table(file, columns=["recording_id", "root", "path", "content"])
            for recording_id, root, place, content in zip(
                *(column.to_pylist() for column in table.columns), strict=True
            ):
                if recording_id in wanted:
                    seen[recording_id] = Seen(root, place, content)
                    wanted.discard(recording_id)
        return seen

    def write(
        self,
        own: Sequence[Recording],
        described: Sequence[Recording],
        scope: Scope,
        divisions: Collection[Division],
        windows: WindowSettings,
        segment_windows: int,
    ) -> str:
        """Write a scan's manifest; returns its name, which follows from its content.

        Parameters
        ----------
        own, described : sequence of Recording
            As the files say, and with what the stations file says.
        scope : Scope
            Where the scan looked.
        divisions : collection of Division
            Stations that are divided.
        windows, segment_windows
            How recordings are cut into segments.
        """
        table = _table(own, described, windows, segment_windows).replace_schema_metadata(
            {
                "naturelm.plan_format": str(FORMAT),
                "naturelm.roots": json.dumps(sorted(scope.roots)),
                "naturelm.divisions": json.dumps(sorted(divisions)),
                "naturelm.windows": windows.model_dump_json(),
                "naturelm.segment_windows": str(segment_windows),
            }
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        name = hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{name}.parquet"
        # Written again, an old one becomes the newest.
        if next(self._newest_first(), None) != path:
            write_table(path, table)
        return name

    def _newest_first(self) -> Iterator[Location]:
        try:
            files = [file for file in list_files(self._directory) if file.relative_path.endswith(".parquet")]
        except NotADirectoryError:  # `Output` reports what is wrong with that
            return
        for file in sorted(files, key=lambda file: file.modified_ns, reverse=True):
            yield file.location


def _roots_of(paths: Collection[Location]) -> frozenset[str]:
    """Archive roots as `Recording.root` has them, of those paths that are directories."""
    return frozenset(
        str(path) if isinstance(path, StorePath) else path_to_text(os.path.abspath(path))
        for path in paths
        if path.is_dir()
    )


def _covered_roots(manifest: pq.ParquetFile) -> list[str]:
    metadata = manifest.schema_arrow.metadata or {}
    if metadata.get(b"naturelm.plan_format") != str(FORMAT).encode():
        return []
    roots: list[str] = json.loads(metadata[b"naturelm.roots"])
    return roots


def _recordings(table: pa.Table) -> Iterator[Recording]:
    for row in table.to_pylist():
        own = row.pop("own")
        row["remarks"] = tuple(row["remarks"])
        yield Recording(**(row | own if own else row))


def _table(
    own: Sequence[Recording],
    described: Sequence[Recording],
    windows: WindowSettings,
    segment_windows: int,
) -> pa.Table:
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(recording, name) for recording in described], kind) for name, kind in _FACTS
    }
    columns["own"] = pa.array(
        [
            None if file is recording else {name: getattr(file, name) for name, _ in _PLACE_AND_TIME}
            for file, recording in zip(own, described, strict=True)
        ],
        pa.struct(_PLACE_AND_TIME),
    )
    # Arrays of numbers and not lists of objects: a million segments are 32 MB.
    offsets = array("i", [0])
    firsts, counts = array("i"), array("i")
    starts, ends, own_ends = array("d"), array("d"), array("d")
    for recording in described:
        for segment in cut_segments(recording, windows, segment_windows):
            firsts.append(segment.first_window)
            counts.append(segment.window_count)
            starts.append(segment.start_s)
            ends.append(segment.end_s)
            own_ends.append(segment.own_end_s)
        offsets.append(len(firsts))
    segments = pa.StructArray.from_arrays(
        [
            pa.array(np.asarray(values), kind)
            for values, (_, kind) in zip((firsts, counts, starts, ends, own_ends), _SEGMENT, strict=True)
        ],
        fields=[pa.field(*field) for field in _SEGMENT],
    )
    columns["segments"] = pa.ListArray.from_arrays(pa.array(np.asarray(offsets), pa.int32()), segments)
    return pa.table(columns, schema=SCHEMA)
