"""The rows of a published day: reading who is there, merging segments into them, carrying them over. No files here.

A recording of which only some segments are published (a run was told to do some hours, or a sample) has its parts in
the metadata of the day's `recordings` file, so that a later run does exactly the others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from naturelm.recordings import Recording
from naturelm.results.rows import later, reduce_recordings
from naturelm.results.schemas import RECORDINGS, TABLES
from naturelm.results.statuses import NOT_FAILED
from naturelm.segments import Day

PARTS = b"naturelm.parts"

# By recording, by first window: what the `recordings` row of that segment says of it alone.
Parts = dict[str, dict[int, dict[str, Any]]]
_OF_A_PART = ("decoded_s", "windows", "status", "error")
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


def published_recordings(day: Day, table: pa.Table) -> list[PublishedRecording]:
    """Who is in a day's `recordings` table."""
    parts = parts_of(table)
    return [
        PublishedRecording(
            recording_id,
            day,
            tuple(description),
            status,
            {first: part["status"] for first, part in parts[recording_id].items()}
            if recording_id in parts
            else None,
        )
        for recording_id, status, *description in zip(
            *(table[name].to_pylist() for name in ("recording_id", "status", *_DESCRIPTION)), strict=True
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
        description = next(iter(new.values()))
        own = parts.pop(recording_id, {}) | {
            first: {name: row[name] for name in _OF_A_PART} for first, row in new.items()
        }
        rows[recording_id] = reduce_recordings([description | own[first] for first in sorted(own)])
        if recording_id in incomplete:
            parts[recording_id] = own
    return pa.Table.from_pylist(list(rows.values()), schema=TABLES[RECORDINGS]), parts


def without_segments(
    old: pa.Table,
    segments: Mapping[str, Collection[int]],
    partial: Collection[str],
    windows: tuple[float, int],
) -> pa.Table:
    """Rows of another table that stay when segments are added.

    Parameters
    ----------
    old : Table
        The day's published rows.
    segments : mapping
        First windows of the added segments, by recording.
    partial : collection of str
        Recordings that keep the rows of their other segments.
    windows : (float, int)
        Seconds between window starts, and windows a segment.
    """
    hop_s, segment_windows = windows
    stays = []
    for recording_id, start_s in zip(
        old["recording_id"].to_pylist(), old["start_s"].to_pylist(), strict=True
    ):
        if recording_id not in segments:
            stays.append(True)
        elif recording_id in partial:
            first = round(start_s / hop_s) // segment_windows * segment_windows
            stays.append(first not in segments[recording_id])
        else:
            stays.append(False)
    return old.filter(pa.array(stays, pa.bool_()))


def with_ids(table: pa.Table, recording_ids: Collection[str], inverted: bool = False) -> pa.Table:
    """Rows of these recordings; or all others."""
    mask = pc.is_in(table["recording_id"], pa.array(sorted(recording_ids), pa.string()))
    return table.filter(pc.invert(mask) if inverted else mask)


def redescribed(name: str, rows: pa.Table, moves: Mapping[str, Recording]) -> pa.Table:
    """Rows of recordings that have another id, path, place or time now, saying so; answers stay as they are."""
    changed = []
    for row in rows.to_pylist():
        new = moves[row["recording_id"]]
        row["recording_id"] = new.recording_id
        if name == RECORDINGS:
            row |= {column: getattr(new, column) for column in _DESCRIPTION}
        else:
            row["start_local"] = later(new.start_local, row["start_s"])
            row["start_time"] = later(new.start_time, row["start_s"])
            if "path" in row:
                row["path"] = new.path
        changed.append(row)
    return pa.Table.from_pylist(changed, schema=TABLES[name])
