"""The rows of a published day: reading who is there, merging segments into them, carrying them over. No files here.

A recording of which only some segments are published (a run was limited to some hours, or to a sample) has its parts in
the metadata of the day's `recordings` file, so that a later run does exactly the others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from naturelm.recordings import Recording
from naturelm.results.rows import MARKS, later, reduce_recordings
from naturelm.results.schemas import RECORDINGS, TABLES
from naturelm.results.statuses import NOT_FAILED
from naturelm.segments import Day

PARTS = b"naturelm.parts"

# By recording, by first window: what the `recordings` row of that segment says of it alone.
Parts = dict[str, dict[int, dict[str, Any]]]
# Seconds between window starts, and windows per segment; they identify the segment of a row.
Cut = tuple[float, int]
# By recording: the first windows of segments, or None for all that it has.
Segments = Mapping[str, Collection[int] | None]
_OF_A_PART = ("decoded_s", "windows", "status", "error", *MARKS)
# What a recording's rows say that a stations file, or another name of the file, may change.
_DESCRIPTION = (
    "path",
    "start_local",
    "start_time",
    "start_time_source",
    "utc_offset_minutes",
    "latitude",
    "longitude",
    "deployment",
)


@dataclass(frozen=True, slots=True)
class PublishedRecording:
    """A recording whose rows are published.

    Attributes
    ----------
    day : Day
        Where they are.
    status : str
        See `statuses.STATUSES`.
    parts : mapping of int to str, optional
        Where only some segments are published: their statuses by first window.
    """

    recording_id: str
    day: Day
    description: tuple[Any, ...]
    status: str
    parts: Mapping[int, str] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether `--retry-failed` is meant."""
        return self.status not in NOT_FAILED

    def describes(self, recording: Recording) -> bool:
        """Whether the rows say of path, place and time what the recording says now."""
        now = tuple(getattr(recording, name) for name in _DESCRIPTION)
        return self.day == Day.of(recording) and self.description == now

    @property
    def path(self) -> str:
        return str(self.description[0])


def published_recordings(table: pa.Table) -> list[PublishedRecording]:
    """The recordings of a day's `recordings` table."""
    parts = parts_of(table)
    columns = ("recording_id", "station", "date", "status", *_DESCRIPTION)
    return [
        PublishedRecording(
            recording_id,
            Day.on(station, date),
            tuple(description),
            status,
            {first: part["status"] for first, part in parts[recording_id].items()}
            if recording_id in parts
            else None,
        )
        for recording_id, station, date, status, *description in zip(
            *(table[name].to_pylist() for name in columns), strict=True
        )
    ]


def parts_of(recordings: pa.Table | None) -> Parts:
    """The parts that the metadata of a `recordings` table holds."""
    if recordings is None:
        return {}
    stored = json.loads((recordings.schema.metadata or {}).get(PARTS, b"{}"))
    return {name: {int(first): part for first, part in parts.items()} for name, parts in stored.items()}


def parts_metadata(parts: Parts) -> dict[bytes, bytes]:
    """The other way round; nothing where there are none."""
    return {PARTS: json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()} if parts else {}


def merged_parts(
    published: Mapping[int, dict[str, Any]], staged: Mapping[int, dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Parts of a recording: published ones, and staged ones in place of those."""
    # What an earlier version staged has no marks.
    return dict(published) | {
        first: {name: row.get(name) for name in _OF_A_PART} for first, row in staged.items()
    }


def recording_row(description: Mapping[str, Any], parts: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """The `recordings` row of a recording with these parts; `description` is any of its rows."""
    return reduce_recordings([dict(description) | parts[first] for first in sorted(parts)])


def merge_recordings(
    old: pa.Table | None, staged: Mapping[str, Mapping[int, dict[str, Any]]], incomplete: Collection[str]
) -> tuple[pa.Table, Parts]:
    """`recordings` rows and parts of a day to which segments are added.

    Parameters
    ----------
    old : Table, optional
        The day's published rows, parts in its metadata.
    staged : mapping
        By recording, by first window: the staged `recordings` row of a segment.
    incomplete : collection of str
        Recordings that will still lack segments.
    """
    parts = parts_of(old)
    rows = {} if old is None else {row["recording_id"]: row for row in old.to_pylist()}
    for recording_id, new in staged.items():
        own = merged_parts(parts.pop(recording_id, {}), new)
        rows[recording_id] = recording_row(next(iter(new.values())), own)
        if recording_id in incomplete:
            parts[recording_id] = own
    return pa.Table.from_pylist(list(rows.values()), schema=TABLES[RECORDINGS]), parts


def drop_recordings(old: pa.Table, segments: Segments) -> tuple[pa.Table, Parts]:
    """`recordings` rows and parts of a day from which segments are taken."""
    parts = parts_of(old)
    rows = {row["recording_id"]: row for row in old.to_pylist()}
    for recording_id, firsts in segments.items():
        own = parts.pop(recording_id, {})
        left = {} if firsts is None else {first: part for first, part in own.items() if first not in firsts}
        if left:
            rows[recording_id] = recording_row(rows[recording_id], left)
            parts[recording_id] = left
        else:
            rows.pop(recording_id, None)
    return pa.Table.from_pylist(list(rows.values()), schema=TABLES[RECORDINGS]), parts


def without_segments(rows: pa.Table, segments: Segments, cut: Cut) -> pa.Table:
    """Rows of a table other than `recordings` that stay when segments go."""
    goes = [
        firsts is None or first in firsts
        for key, first in _segments_of(rows, cut)
        for firsts in (segments.get(key, ()),)
    ]
    return rows.filter(pc.invert(pa.array(goes, pa.bool_())))


def only_listed(rows: pa.Table, parts: Parts, cut: Cut) -> pa.Table:
    """Rows of a table other than `recordings` without those of segments that a recording in parts does not list."""
    stays = [key not in parts or first in parts[key] for key, first in _segments_of(rows, cut)]
    return rows.filter(pa.array(stays, pa.bool_()))


def _segments_of(rows: pa.Table, cut: Cut) -> Iterator[tuple[str, int]]:
    """Each row's recording and the first window of its segment."""
    hop_s, segment_windows = cut
    for key, start_s in zip(rows["recording_id"].to_pylist(), rows["start_s"].to_pylist(), strict=True):
        yield key, round(start_s / hop_s) // segment_windows * segment_windows


def with_ids(table: pa.Table, recording_ids: Collection[str], inverted: bool = False) -> pa.Table:
    """Rows of these recordings; or all others."""
    mask = pc.is_in(table["recording_id"], pa.array(sorted(recording_ids), pa.string()))
    return table.filter(pc.invert(mask) if inverted else mask)


def redescribed(name: str, rows: pa.Table, moves: Mapping[str, Recording]) -> pa.Table:
    """Rows of recordings that have another id, path, place or time now, saying so; answers stay as they are."""
    changed = []
    vectors = rows["vector"] if "vector" in rows.schema.names else None
    if vectors is not None:  # as Python numbers they would take long
        rows = rows.drop_columns(["vector"])
    for row in rows.to_pylist():
        new = moves[row["recording_id"]]
        row["recording_id"] = new.recording_id
        day = Day.of(new)
        row |= {"station": day.station, "date": day.as_date()}
        if name == RECORDINGS:
            row |= {column: getattr(new, column) for column in _DESCRIPTION}
        elif "start_local" in row:
            row["start_local"] = later(new.start_local, row["start_s"])
            row["start_time"] = later(new.start_time, row["start_s"])
            if "path" in row:
                row["path"] = new.path
        changed.append(row)
    table = pa.Table.from_pylist(changed, schema=rows.schema.remove_metadata())
    return table if vectors is None else table.append_column("vector", vectors)
