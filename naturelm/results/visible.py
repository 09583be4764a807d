"""Which rows count: the one answer, for the writer, the readers and the plan.

A segment is committed when its staged `answers` file is there, or when the published `recordings` rows list it: the
whole recording, or the segment where the recording is published in parts. Where it is listed its published rows count,
and otherwise its staged ones; so each counts once, whatever a crash in the middle of publishing left.

Published rows that are about to go, or are not complete yet, are named by `_staging/withdrawn.json`. Writing and
removing that one file are the moments at which such a change takes effect; a run that finds it removes those rows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from naturelm.errors import NaturelmError
from naturelm.ids import split_segment_id
from naturelm.results.analysis import read_analysis
from naturelm.results.days import (
    PublishedRecording,
    Segments,
    merged_parts,
    parts_of,
    recording_row,
    with_ids,
)
from naturelm.results.layout import STAGING, WITHDRAWN, day_file
from naturelm.results.parquet import read_table
from naturelm.results.published import PublishedFiles
from naturelm.results.schemas import RECORDINGS, conformed
from naturelm.results.staging import StagedFiles
from naturelm.results.table_sets import WORDS, TableSet
from naturelm.segments import Day
from naturelm.storage import Location, write_whole

# A `recordings` row, and the recording's parts where only some segments are published.
_Listed = tuple[dict[str, Any], dict[int, dict[str, Any]] | None]

Withdrawn = Mapping[Day, Segments]
"""Published rows that do not count: by day and recording, the first windows of segments, or None for all."""


def read_withdrawn(directory: Location) -> Withdrawn:
    """The published rows of an output directory that do not count."""
    try:
        stored = json.loads((directory / STAGING / WITHDRAWN).read_bytes())
    except FileNotFoundError:
        return {}
    return {Day(entry["station"], entry["date"]): entry["recordings"] for entry in stored}


def write_withdrawn(directory: Location, withdrawn: Withdrawn) -> None:
    """Name the published rows that do not count, in place of those named before."""
    path = directory / STAGING / WITHDRAWN
    if not withdrawn:
        path.unlink(missing_ok=True)
        return
    entries = [
        {
            "station": day.station,
            "date": day.date,
            "recordings": {
                key: None if firsts is None else sorted(firsts) for key, firsts in segments.items()
            },
        }
        for day, segments in sorted(withdrawn.items())
    ]
    write_whole(path, json.dumps(entries, indent=1).encode())


def pending_segments(staged: Iterable[str], listed: Segments) -> set[str]:
    """The staged segments whose rows count.

    Parameters
    ----------
    staged : iterable of str
        Ids of staged segments.
    listed : mapping
        Published recordings: the first windows of their published segments, or None for all.
    """
    pending = set()
    for segment_id in staged:
        recording_id, first_window = split_segment_id(segment_id)
        firsts = listed.get(recording_id, ())
        if firsts is not None and first_window not in firsts:
            pending.add(segment_id)
    return pending


def listed_segments(published: Iterable[PublishedRecording]) -> Segments:
    """Published recordings as `pending_segments` takes them."""
    return {recording.recording_id: recording.parts for recording in published}


def committed(
    directory: Location, without: Collection[Location] = (), tables: TableSet = WORDS
) -> tuple[list[PublishedRecording], set[str]]:
    """The published recordings except those of the files `without`, and the ids of the staged segments that count."""
    staged = StagedFiles(directory, tables).ids()
    withdrawn = read_withdrawn(tables.home(directory))
    published = []
    for recording in PublishedFiles(directory, tables).recordings(without):
        firsts = withdrawn.get(recording.day, {}).get(recording.recording_id, ())
        if firsts is None:
            continue
        if recording.parts is not None:
            parts = {first: status for first, status in recording.parts.items() if first not in firsts}
            recording = replace(recording, parts=parts)
        published.append(recording)
    return published, pending_segments(staged, listed_segments(published))


@dataclass(frozen=True, slots=True)
class Visible:
    """What of an output directory counts at one moment.

    Attributes
    ----------
    published : mapping
        By table, by day: the files of published rows.
    pending : list of str
        Ids of the staged segments that count.
    staged : mapping
        By table other than `recordings`: the files of those segments.
    recordings : list of dict
        `recordings` rows of recordings of which segments are staged or withdrawn, in place of their published ones.
    withdrawn : list of (str, Day)
        Recordings whose published rows of that day do not count.
    replaced : list of (str, int)
        Recordings and first windows of segments whose published rows do not count.
    hop_s, segment_windows : float, int
        Seconds between window starts, and windows per segment; they identify the segment of a row.
    """

    published: Mapping[str, Mapping[Day, Location]]
    pending: Sequence[str] = ()
    staged: Mapping[str, Sequence[Location]] = field(default_factory=dict)
    recordings: Sequence[dict[str, Any]] = ()
    withdrawn: Sequence[tuple[str, Day]] = ()
    replaced: Sequence[tuple[str, int]] = ()
    hop_s: float = 1.0
    segment_windows: int = 1


def read_visible(directory: Location, tables: TableSet = WORDS) -> Visible:
    """Look up what counts now.

    Raises
    ------
    FileNotFoundError
        A day was published, and its staged files removed, while they were looked up.
    NaturelmError
        The settings are needed, and damaged; or a published day lacks a file.
    """
    staged_files, published_files = StagedFiles(directory, tables), PublishedFiles(directory, tables)
    # Staged before published: a day that is published in between is then found twice, and not missed.
    staged = sorted(staged_files.ids())
    withdrawn = read_withdrawn(tables.home(directory))
    found = published_files.listed()
    if not staged:
        _check_listed(directory, found, tables)
    files = published_files.files(found)
    _check_complete(files, published_files, tables)
    if not staged and not withdrawn:
        return Visible(files)
    rows = _staged_rows(staged_files, staged)
    listed = _listed(files[RECORDINGS], rows, withdrawn)
    pending = sorted(pending_segments(staged, {key: parts for key, (_, parts) in listed.items()}))
    waiting: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for segment_id in pending:
        key, first = split_segment_id(segment_id)
        waiting[key][first] = rows[key][first]
    going = {
        key: set(firsts)
        for segments in withdrawn.values()
        for key, firsts in segments.items()
        if firsts is not None
    }
    changed = sorted(waiting.keys() | going.keys())
    analysis = read_analysis(tables.home(directory))
    return Visible(
        files,
        pending,
        {
            table: [staged_files.path(table, segment_id) for segment_id in pending]
            for table in tables.schemas
            if table != RECORDINGS
        },
        [row for key in changed if (row := _merged(listed.get(key), waiting.get(key, {}))) is not None],
        [
            (key, day)
            for day, segments in withdrawn.items()
            for key, firsts in segments.items()
            if firsts is None
        ],
        [
            (key, first)
            for key in changed
            for first in sorted(waiting.get(key, {}).keys() | going.get(key, set()))
        ],
        analysis.hop_s,
        analysis.segment_windows,
    )


def _check_listed(
    directory: Location, listed: Mapping[str, Mapping[tuple[str, str], Location]], tables: TableSet
) -> None:
    """Check that `recordings` has a file for every day; none is being published that lacks it."""
    for day in sorted(listed[tables.commit].keys() - listed[RECORDINGS].keys()):
        place = tables.place(directory, RECORDINGS) / day_file(*day)
        if place.exists() or StagedFiles(directory, tables).ids():
            raise FileNotFoundError(f"{place} was published while its files were looked up")
        raise _is_missing(place)


def _is_missing(place: Location) -> NaturelmError:
    return NaturelmError(
        f"{place}: is missing; run naturelm process with the same --out again, or restore it from a backup"
    )


def _check_complete(
    files: Mapping[str, Mapping[Day, Location]], published: PublishedFiles, tables: TableSet
) -> None:
    """Check that every day that `recordings` list has a file in each table."""
    for table in tables.daily:
        for day in sorted(files[RECORDINGS].keys() - files[table].keys()):
            if published.read(table, day) is not None:
                raise FileNotFoundError(f"{day} was published while its files were looked up")
            if published.read(RECORDINGS, day):
                raise _is_missing(published.path(table, day))


def _staged_rows(files: StagedFiles, segment_ids: Sequence[str]) -> dict[str, dict[int, dict[str, Any]]]:
    """The staged `recordings` rows by recording and first window."""
    rows: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for segment_id, table in zip(segment_ids, files.read(RECORDINGS, segment_ids), strict=True):
        key, first = split_segment_id(segment_id)
        (rows[key][first],) = table.to_pylist()
    return rows


def _listed(
    files: Mapping[Day, Location],
    staged: Mapping[str, Mapping[int, dict[str, Any]]],
    withdrawn: Withdrawn,
) -> dict[str, _Listed]:
    """Of the recordings of which segments are staged or withdrawn: those that published rows list."""
    days = {Day.on(row["station"], row["date"]) for rows in staged.values() for row in rows.values()}
    found: dict[str, _Listed] = {}
    for day in sorted((days | withdrawn.keys()) & files.keys()):
        table = conformed(RECORDINGS, read_table(files[day]))
        parts, gone = parts_of(table), withdrawn.get(day, {})
        for row in with_ids(table, staged.keys() | gone.keys()).to_pylist():
            key = row["recording_id"]
            firsts = gone.get(key, ())
            if firsts is None:
                continue
            own = parts.get(key)
            found[key] = (row, own and {first: part for first, part in own.items() if first not in firsts})
    return found


def _merged(listed: _Listed | None, staged: Mapping[int, dict[str, Any]]) -> dict[str, Any] | None:
    """The `recordings` row of a recording: its listed parts and its staged segments; None where there are none."""
    row, parts = listed or ({}, None)
    own = merged_parts(parts or {}, staged)
    return recording_row(next(iter(staged.values()), row), own) if own else None
