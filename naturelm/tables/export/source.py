"""What is exported: every recording in order, each with its detections, at flat memory."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import duckdb
import numpy as np
import pyarrow as pa

from naturelm.errors import NaturelmError
from naturelm.results.scans import Manifests
from naturelm.tables.events import GAP_S
from naturelm.tables.row_formats import check_folder, csv_writer, whole_file
from naturelm.tables.spellings import label_key
from naturelm.text import file_name
from naturelm.windows import SAMPLE_RATE_HZ, TOP_FREQUENCY_HZ

LoadedRow = tuple[str, float, float, str | None, str | None, float | None]

LOADED = pa.schema(
    [
        ("path", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("common_name", pa.string()),
        ("scientific_name", pa.string()),
        ("score", pa.float64()),
    ]
)
"""What `load` of every format returns; names and scores are null where the format or the file has none."""

_BATCH_ROWS = 20_000
_MAX_NAME_BYTES = 160


class ExportedRecording(NamedTuple):
    """A row of `recordings`, in the order of the export; `position` counts from 1."""

    position: int
    recording_id: str
    path: str
    station: str | None
    date: dt.date | None
    start_local: dt.datetime | None
    start_time: dt.datetime | None
    latitude: float | None
    longitude: float | None
    duration_s: float | None
    decoded_s: float | None
    sample_rate_hz: int | None
    format: str | None
    status: str
    deployment: str | None = None

    @property
    def sound_s(self) -> float:
        """Seconds that a player finds in the file: of a damaged one, only what can be decoded."""
        seconds = self.duration_s if self.status == "ok" else self.decoded_s
        return seconds or 0.0

    @property
    def high_hz(self) -> float:
        """Highest frequency that the model received."""
        return min(TOP_FREQUENCY_HZ, (self.sample_rate_hz or SAMPLE_RATE_HZ) / 2)

    def local_at(self, start_s: float) -> dt.datetime | None:
        return self.start_local and self.start_local + dt.timedelta(seconds=start_s)

    def time_at(self, start_s: float) -> dt.datetime | None:
        return self.start_time and self.start_time + dt.timedelta(seconds=start_s)


class Detection(NamedTuple):
    """A detection, or an event with the best of its scores.

    `label` is the most frequent spelling; it is also the common or the scientific name, whichever its query
    requested. Times are seconds within the recording. `text` and `model` are null for events.
    """

    start_s: float
    end_s: float
    query: str
    label: str
    common_name: str | None
    scientific_name: str | None
    score: float | None
    text: str | None
    model: str | None


@dataclass(frozen=True)
class ExportSource:
    """What of a results directory is exported.

    Attributes
    ----------
    connection : duckdb.DuckDBPyConnection
        From `naturelm.open_tables`.
    scientific : frozenset of str
        Queries that ask for scientific names.
    min_score : float
        Detections with a lower score are left out.
    labels, queries : tuple of str
        Only these, where given; labels in any spelling.
    events : bool
        Neighbouring detections merged, within a recording.
    archive : str
        Folder that paths in the export start with; "" leaves them relative, as in the tables.
    roots : mapping of str to str
        Archive roots by recording id, where the tables hold recordings of several: paths then begin with the root, or
        below `archive` with its name, because two cards may hold the same names.
    """

    connection: duckdb.DuckDBPyConnection
    scientific: frozenset[str] = frozenset()
    min_score: float = 0.0
    labels: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    events: bool = False
    archive: str = ""
    roots: Mapping[str, str] = field(default_factory=dict)

    def place(self, recording: ExportedRecording) -> tuple[str, str]:
        """A folder, or "", and the path below it where the recording lies, for the tool that reads the export."""
        if self.archive:
            return self.archive, self.inner_path(recording)
        return self.roots.get(recording.recording_id, ""), recording.path

    def path(self, recording: ExportedRecording) -> str:
        """The same as one path."""
        folder, path = self.place(recording)
        return f"{folder.rstrip('/')}/{path}" if folder else path

    def inner_path(self, recording: ExportedRecording) -> str:
        """A relative path that no recording of another root has."""
        root = self.roots.get(recording.recording_id)
        return recording.path if root is None else f"{self._root_names[root]}/{recording.path}"

    @cached_property
    def _root_names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for root in sorted(set(self.roots.values())):
            base = name = root.rstrip("/").rpartition("/")[2] or "root"
            number = 2
            while name.lower() in {other.lower() for other in names.values()}:
                name, number = f"{base}-{number}", number + 1
            names[root] = name
        return names

    def by_recording(self) -> Iterator[tuple[ExportedRecording, list[Detection]]]:
        """Every recording, silent ones included, by station and time, with its detections in time."""
        self.connection.execute(
            """
            CREATE OR REPLACE TEMP TABLE exported AS
            SELECT
                row_number() OVER (
                    ORDER BY station NULLS LAST, start_local NULLS LAST, path, recording_id
                ) AS position,
                recording_id, path, station, date, start_local, start_time, latitude, longitude,
                duration_s, decoded_s, sample_rate_hz, format, status, deployment
            FROM recordings
            """
        )
        recordings = self.connection.sql("FROM exported ORDER BY position").to_arrow_table()
        by_position = groupby(_runs(self._detections()), key=lambda run: run[0])
        next_position, runs = next(by_position, (0, iter(())))
        for batch in recordings.to_batches(max_chunksize=1_000):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                recording = ExportedRecording(*values)
                if recording.position == next_position:
                    yield recording, [Detection(*row) for _, rows in runs for row in rows]
                    next_position, runs = next(by_position, (0, iter(())))
                else:
                    yield recording, []

    def _detections(self) -> pa.RecordBatchReader:
        source = (
            "(SELECT recording_id, start_s, end_s, query, label_key, best_score AS score, NULL::VARCHAR AS text, "
            "NULL::VARCHAR AS model, label AS name "
            "FROM events_of(gap_s := $gap_s, min_score := $min_score, across := false))"
            if self.events
            else "(SELECT recording_id, start_s, end_s, query, label_key, score, text, model, name "
            "FROM detections JOIN (SELECT label, label_key, name FROM labels) USING (label) "
            "WHERE coalesce(score, 0) >= $min_score AND $gap_s IS NOT NULL)"
        )
        return self.connection.sql(
            f"""
            SELECT
                position, start_s, end_s, query, name,
                CASE WHEN NOT list_contains($scientific, query) THEN name END,
                CASE WHEN list_contains($scientific, query) THEN name END,
                score, text, model
            FROM {source} JOIN (SELECT recording_id, position FROM exported) USING (recording_id)
            WHERE (len($queries) = 0 OR list_contains($queries, query))
                AND (len($keys) = 0 OR list_contains($keys, label_key))
            ORDER BY position, start_s, query, name
            """,
            params={
                "min_score": self.min_score,
                "gap_s": GAP_S,
                "scientific": sorted(self.scientific),
                "queries": list(self.queries),
                "keys": [label_key(label) or "" for label in self.labels],
            },
        ).to_arrow_reader(_BATCH_ROWS)


def roots_of_recordings(connection: duckdb.DuckDBPyConnection, directory: Path) -> dict[str, str]:
    """Archive roots by recording id, where the tables hold recordings of several; nothing where of one."""
    ids = connection.sql("SELECT DISTINCT recording_id FROM recordings").fetchall()
    roots = {key: seen.root for key, seen in Manifests(directory).last_seen({key for (key,) in ids}).items()}
    return roots if len(set(roots.values())) > 1 else {}


def _runs(reader: pa.RecordBatchReader) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """Rows in runs of one recording; a recording's may be cut in two where a batch ends."""
    for batch in reader:
        positions = batch.column(0).to_numpy()
        rows = list(zip(*(column.to_pylist() for column in batch.columns[1:]), strict=True))
        edges = [0, *(np.flatnonzero(np.diff(positions)) + 1).tolist(), len(rows)]
        for first, last in pairwise(edges):
            if last > first:
                yield int(positions[first]), rows[first:last]


@dataclass
class Saved:
    """What an export wrote."""

    detections: int = 0
    recordings: int = 0
    notes: list[str] = field(default_factory=list)


class Save(Protocol):
    """Write the export to `out` and report what was written; an existing file or directory is replaced."""

    def __call__(self, source: ExportSource, out: Path) -> Saved: ...


class Load(Protocol):
    """Read an export back: a table of the schema `LOADED`."""

    def __call__(self, path: Path) -> pa.Table: ...


class FileNames:
    """Names for one file per recording: its path in the archive, made safe, with a suffix; none twice."""

    def __init__(self, source: ExportSource, out: Path, suffix: str) -> None:
        if out.exists() and not out.is_dir():
            raise NaturelmError(
                f"{out}: is a file, and one file per recording is written; give --out a directory"
            )
        out.mkdir(parents=True, exist_ok=True)
        self.source = source
        self.out = out
        self.suffix = suffix
        self._taken: set[str] = set()

    def path(self, recording: ExportedRecording) -> Path:
        *folders, file = [
            part for part in PurePosixPath(self.source.inner_path(recording)).parts if part not in ("/", "..")
        ] or [""]
        stem, _, kind = file.rpartition(".")
        names = [*folders, stem] if stem else [*folders, kind]
        name = "/".join(file_name(part, _MAX_NAME_BYTES) for part in names)
        if stem:
            name += f".{file_name(kind, _MAX_NAME_BYTES)}"
        # Lower case: some file systems hold a.WAV and a.wav for the same.
        if name.lower() in self._taken:
            name += f"-{recording.recording_id[:12]}"
        self._taken.add(name.lower())
        place = self.out / (name + self.suffix)
        check_folder(self.out, place.parent)
        return place


def check_file(out: Path) -> None:
    """Raise NaturelmError where `out` is a directory and a file is to be written."""
    if out.is_dir():
        raise NaturelmError(f"{out}: is a directory; give --out a file")


def save_sheet(
    source: ExportSource,
    out: Path,
    header: Sequence[str],
    rows: Callable[[ExportedRecording, Sequence[Detection]], Iterable[Sequence[object]]],
) -> Saved:
    """Write one CSV for spreadsheets: the header, and what `rows` gives for each recording and its detections."""
    check_file(out)
    saved = Saved()
    with whole_file(out, excel=True) as file:
        writer = csv_writer(file)
        writer.writerow(header)
        for recording, detections in source.by_recording():
            writer.writerows(rows(recording, detections))
            saved.detections += len(detections)
            saved.recordings += 1
    return saved


def loaded(rows: Iterable[LoadedRow]) -> pa.Table:
    """Rows as a table of the schema `LOADED`; empty names become null."""
    columns: list[Any] = list(zip(*rows, strict=True)) or [[] for _ in LOADED]
    for name in (3, 4):
        columns[name] = [value or None for value in columns[name]]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, LOADED.types, strict=True)]
    return pa.table(arrays, schema=LOADED)


def number(text: str | None) -> float | None:
    """A cell as a number, with a decimal point or a comma; None where it is empty."""
    return float(text.replace(",", ".")) if text else None


def seconds(text: str) -> float:
    """A cell that is a number in every row."""
    return float(text.replace(",", "."))


def sheet_rows(path: Path, columns: Collection[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV that `save` wrote, or that a spreadsheet saved again: with a byte-order mark, or with semicolons.

    Raises
    ------
    NaturelmError
        A column is missing.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = max(",;\t", key=header.count)
        file.seek(0)
        reader = csv.DictReader(file, delimiter=delimiter)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise NaturelmError(
                f"{path}: the column {min(missing)!r} is missing; give a file as naturelm export writes it"
            )
        yield from reader
