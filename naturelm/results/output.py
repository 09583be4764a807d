"""The output directory: what is committed, staging a segment, publishing a day.

A segment's rows are staged as `_staging/<table>/<segment_id>.parquet`, `answers` last: that file is the
segment's commit. When all segments of a day are committed its rows are merged into one file per table,
`<table>/station=…/date=…/part-0.parquet`, `recordings` last, and the staged files go. Names and contents
are deterministic, so every step may be repeated after a crash at any moment.
"""

from __future__ import annotations

import errno
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from naturelm.errors import NaturelmError, RunStopped
from naturelm.ids import settings_hash, split_segment_id
from naturelm.recordings import Recording
from naturelm.results.days import (
    Parts,
    PublishedRecording,
    merge_recordings,
    parts_metadata,
    parts_of,
    published_recordings,
    redescribed,
    with_ids,
    without_segments,
)
from naturelm.results.rows import published_schema
from naturelm.results.schemas import ANSWERS, RECORDINGS, SCHEMA_VERSION, SORT_KEYS, TABLES
from naturelm.segments import Day
from naturelm.storage import TEMPORARY, Location, StorePath, list_files, location, write_whole

STAGING = "_staging"
RUNS = "_runs"
ANALYSIS = "analysis.yaml"
UNKNOWN = "__HIVE_DEFAULT_PARTITION__"

# `recordings` last: a recording that stands there has all its other rows published.
_PUBLISH_ORDER = [*(name for name in TABLES if name != RECORDINGS), RECORDINGS]
# `answers` last: its presence is the segment's commit.
_STAGE_ORDER = [*(name for name in TABLES if name != ANSWERS), ANSWERS]
# Reading small files waits for the disk, or for an object store.
_READING_THREADS = 16
_SEGMENT_FILE = re.compile(r"([0-9a-f]{32})-(\d{6,})\.parquet")
_DAY_FILE = re.compile(r"station=([^/]*)/date=([^/]*)/part-0\.parquet")

Result = TypeVar("Result")


class Output:
    """An output directory, which holds one analysis.

    Parameters
    ----------
    directory : Path or str or StorePath
        A directory, made where it is missing, or the URL of a place in an object store.
    analysis : dict
        What determines the rows (`ArchiveConfig.analysis`).
    resolved : dict
        The whole resolved configuration, written beside the tables.
    segment_windows : int
        Windows a segment; a directory keeps the number it was begun with.

    Raises
    ------
    NaturelmError
        The directory is a file, cannot be written, or holds another analysis.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | StorePath,
        analysis: dict[str, Any],
        resolved: dict[str, Any],
        segment_windows: int,
    ) -> None:
        self.directory = directory = location(directory)
        self.analysis_hash = settings_hash(analysis)
        self.segment_windows = segment_windows
        # Recordings that will still lack segments when this run's are published.
        self.incomplete: Collection[str] = frozenset()
        self._hop_s: float = analysis["windows"]["hop_s"]
        try:
            if directory.exists() and not directory.is_dir():
                raise NaturelmError(f"{directory}: is a file; give --out a directory")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / RUNS).mkdir(exist_ok=True)
            for name in TABLES:
                (directory / STAGING / name).mkdir(parents=True, exist_ok=True)
            if (directory / ANALYSIS).exists():
                self._check_same_analysis(analysis)
            else:
                self._begin(analysis, resolved)
        except OSError as error:
            raise NaturelmError(
                f"{directory}: cannot be written ({error.strerror}); give --out a writable directory"
            ) from None

    def _begin(self, analysis: dict[str, Any], resolved: dict[str, Any]) -> None:
        text = yaml.safe_dump(
            {
                "hash": self.analysis_hash,
                "schema_version": SCHEMA_VERSION,
                "segment_windows": self.segment_windows,
                "analysis": analysis,
                "config": resolved,
            },
            sort_keys=False,
            allow_unicode=True,
        )
        write_whole(self.directory / ANALYSIS, text.encode())

    def _check_same_analysis(self, analysis: dict[str, Any]) -> None:
        path = self.directory / ANALYSIS
        try:
            stored = yaml.safe_load(path.read_text(encoding="utf-8"))
            stored_analysis, self.segment_windows = stored["analysis"], int(stored["segment_windows"])
            schema_version = int(stored.get("schema_version", 1))
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            raise NaturelmError(f"{path}: is damaged; give another --out") from None
        if schema_version != SCHEMA_VERSION:
            raise NaturelmError(
                f"{self.directory}: holds tables of schema version {schema_version}, and this program writes version "
                f"{SCHEMA_VERSION}; give another --out"
            )
        differing = list(_differences(stored_analysis, analysis))
        if differing:
            raise NaturelmError(
                f"{self.directory}: holds another analysis, which differs in {'; '.join(differing)}; "
                "give another --out or the same settings"
            )

    # --- what is committed

    def published(self) -> list[PublishedRecording]:
        """The recordings whose rows are published."""
        with ThreadPoolExecutor(_READING_THREADS) as pool:
            days = pool.map(self._published_on, sorted(self._days()))
            return [recording for day in days for recording in day]

    def _days(self) -> Iterator[Day]:
        """Days of which something is published."""
        for file in list_files(self.directory / RECORDINGS, recursive=True):
            found = _DAY_FILE.fullmatch(file.relative_path)
            if found:
                station, date = found.groups()
                yield Day("" if station == UNKNOWN else unquote(station), "" if date == UNKNOWN else date)

    def _published_on(self, day: Day) -> list[PublishedRecording]:
        table = self._read_published(RECORDINGS, day)
        return [] if table is None else published_recordings(day, table)

    def staged(self) -> set[str]:
        """Ids of the segments that are committed and not yet published."""
        names = (file.relative_path for file in list_files(self.directory / STAGING / ANSWERS))
        return {name.removesuffix(".parquet") for name in names if _SEGMENT_FILE.fullmatch(name)}

    def recover(self, published: Iterable[PublishedRecording]) -> set[str]:
        """Clear what a crash left behind, and return the ids of the segments that stay staged.

        Half-written files and segments go, and so do staged segments that are published: a crash came between
        their publishing and this clean-up.
        """
        parts = {recording.recording_id: recording.parts for recording in published}
        if not isinstance(self.directory, StorePath):
            for path in self.directory.rglob(f"*{TEMPORARY}"):
                path.unlink(missing_ok=True)
        staged = self.staged()
        begun = (file for name in _STAGE_ORDER[:-1] for file in list_files(self.directory / STAGING / name))
        _at_once(
            _remove,
            (
                file.location
                for file in begun
                if _SEGMENT_FILE.fullmatch(file.relative_path)
                and file.relative_path.removesuffix(".parquet") not in staged
            ),
        )
        over = set()
        for segment_id in staged:
            recording_id, first_window = split_segment_id(segment_id)
            if recording_id in parts:
                done = parts[recording_id]
                if done is None or first_window in done:
                    over.add(segment_id)
        self.unstage(over)
        return staged - over

    def staged_recordings(self, segment_ids: Iterable[str]) -> dict[str, PublishedRecording]:
        """What staged rows say of their recordings, by recording id: one segment of each is read."""
        one_of = {split_segment_id(name)[0]: name for name in segment_ids}
        with ThreadPoolExecutor(_READING_THREADS) as pool:
            tables = pool.map(lambda name: read_table(self._staged_path(RECORDINGS, name)), one_of.values())
            found = [
                published_recordings(
                    Day(row["station"], row["date"].isoformat() if row["date"] else ""), table
                )[0]
                for table in tables
                for row in table.select(["station", "date"]).to_pylist()
            ]
        return {recording.recording_id: recording for recording in found}

    # --- committing

    def stage(self, segment_id: str, tables: dict[str, pa.Table]) -> None:
        """Commit a segment's rows."""
        for name in _STAGE_ORDER:
            write_table(self._staged_path(name, segment_id), tables[name])

    def publish(self, day: Day, segment_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Merge a day's staged segments into its published files.

        Recordings that were published before keep their rows, except those staged again. Of a recording that
        is published in parts, the other parts' rows stay.

        Returns
        -------
        list of dict
            The `recordings` rows that this adds.
        """
        staged = sorted(segment_ids)
        segments: dict[str, set[int]] = defaultdict(set)
        for segment_id in staged:
            recording_id, first_window = split_segment_id(segment_id)
            segments[recording_id].add(first_window)
        before = self._read_published(RECORDINGS, day)
        partial = set(parts_of(before))
        for name in _PUBLISH_ORDER:
            tables = _at_once(read_table, (self._staged_path(name, part) for part in staged))
            if name == RECORDINGS:
                rows: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
                for segment_id, table in zip(staged, tables, strict=True):
                    recording_id, first_window = split_segment_id(segment_id)
                    (rows[recording_id][first_window],) = table.drop_columns(["station", "date"]).to_pylist()
                new, parts = merge_recordings(before, rows, self.incomplete)
                self._write_published(name, day, new, parts)
                added = with_ids(new, segments).to_pylist()
                continue
            new = pa.concat_tables([table.drop_columns(["station", "date"]) for table in tables])
            old = self._read_published(name, day)
            if old is not None:
                kept = without_segments(old, segments, partial, (self._hop_s, self.segment_windows))
                new = pa.concat_tables([kept, new.cast(TABLES[name])])
            self._write_published(name, day, new)
        self.unstage(staged)
        return added

    # --- changing what is published

    def carry_over(self, source: Day, moves: Mapping[str, Recording]) -> None:
        """Write a day's rows of recordings anew, as those of what the recordings are now.

        Where they belong to another day the old rows stay: `drop` them after.

        Parameters
        ----------
        moves : mapping of str to Recording
            By the id that the rows have.
        """
        by_day: dict[Day, dict[str, Recording]] = defaultdict(dict)
        for recording_id, new in moves.items():
            by_day[Day.of(new)][recording_id] = new
        all_parts = parts_of(self._read_published(RECORDINGS, source))
        for day, arriving in sorted(by_day.items()):
            parts = parts_of(self._read_published(RECORDINGS, day))
            for recording_id, new in arriving.items():
                own = all_parts.get(recording_id)
                if day == source:
                    parts.pop(recording_id, None)
                if own is not None:
                    parts[new.recording_id] = own
            for name in _PUBLISH_ORDER:
                there = self._read_published(name, source)
                if there is None:
                    continue
                rows = redescribed(name, with_ids(there, arriving), arriving)
                here = there if day == source else self._read_published(name, day)
                if here is not None:
                    # Those that a crash in the middle has carried over already are not there twice.
                    replaced = set(rows["recording_id"].to_pylist()) | (
                        set(arriving) if day == source else set()
                    )
                    rows = pa.concat_tables([with_ids(here, replaced, inverted=True), rows])
                self._write_published(name, day, rows, parts)

    def drop(self, day: Day, recording_ids: Collection[str]) -> None:
        """Take a day's rows of recordings away; a day without recordings goes."""
        for name in _PUBLISH_ORDER:
            old = self._read_published(name, day)
            if old is None:
                continue
            parts = {key: own for key, own in parts_of(old).items() if key not in recording_ids}
            self._write_published(name, day, with_ids(old, recording_ids, inverted=True), parts)
        left = self._read_published(RECORDINGS, day)
        if left is not None and not left.num_rows:
            for name in _PUBLISH_ORDER:
                self._published_path(name, day).unlink(missing_ok=True)

    def _read_published(self, name: str, day: Day) -> pa.Table | None:
        try:
            return read_table(self._published_path(name, day))
        except FileNotFoundError:
            return None

    def _write_published(self, name: str, day: Day, rows: pa.Table, parts: Parts | None = None) -> None:
        path = self._published_path(name, day)
        schema = published_schema(name, self.analysis_hash)
        if name == RECORDINGS:
            schema = schema.with_metadata(schema.metadata | parts_metadata(parts or {}))
        rows = rows.sort_by([(key, "ascending") for key in SORT_KEYS[name]])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, rows.cast(schema))

    def unstage(self, segment_ids: Iterable[str]) -> None:
        """Take staged segments away."""
        ids = list(segment_ids)
        # `answers` first: without it the segment's other staged files count for nothing.
        for name in reversed(_STAGE_ORDER):
            _at_once(_remove, (self._staged_path(name, part) for part in ids))

    def _staged_path(self, table: str, segment_id: str) -> Location:
        return self.directory / STAGING / table / f"{segment_id}.parquet"

    def _published_path(self, table: str, day: Day) -> Location:
        station = partition_value(day.station)
        return (
            self.directory / table / f"station={station}" / f"date={day.date or UNKNOWN}" / "part-0.parquet"
        )


def partition_value(station: str) -> str:
    """A station's name as a directory name, percent-encoded as Hive does."""
    return quote(station, safe=" ") if station else UNKNOWN


def write_table(place: Location, table: pa.Table) -> None:
    """Write a Parquet file so that it appears whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(place, sink.getvalue())


def read_table(place: Location, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file at once: in a store that is one request, where reading as needed takes several."""
    # A third of the time that `pq.read_table` takes over a small file.
    return pq.ParquetFile(pa.BufferReader(place.read_bytes())).read(columns=columns)


def _remove(place: Location) -> None:
    place.unlink(missing_ok=True)


def _at_once(function: Callable[[Location], Result], places: Iterable[Location]) -> list[Result]:
    """Do the same with many small files; each waits for the disk, or for an object store."""
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        return list(pool.map(function, places))


def _differences(stored: Any, given: Any, where: str = "") -> Iterable[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*stored, *(key for key in given if key not in stored)]:
            yield from _differences(stored.get(key), given.get(key), f"{where}.{key}" if where else str(key))
    elif stored != given:
        yield f"{where} ({_short(stored)} there, {_short(given)} now)"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def writes_to(out: Location) -> Iterator[None]:
    """Tell in one sentence where the output directory cannot be written any more.

    Raises
    ------
    RunStopped
        In place of an OSError: the disk is full, or is not there any more.
    """
    try:
        yield
    except OSError as error:
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see to it"
        raise RunStopped(
            f"{out}: cannot be written ({error.strerror or error}); what was done is kept: {remedy} "
            "and run the same command again"
        ) from error
