"""Every column of the detections as CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from naturelm.tables.export.source import (
    Detection,
    ExportedRecording,
    ExportSource,
    LoadedRow,
    Saved,
    loaded,
    number,
    save_sheet,
    seconds,
    sheet_rows,
)
from naturelm.text import guard, unguard

SUMMARY = "every column, safe to open in a spreadsheet"
HEADER = [
    "recording_id",
    "path",
    "station",
    "date",
    "start_s",
    "end_s",
    "start_local",
    "start_time",
    "latitude",
    "longitude",
    "query",
    "common_name",
    "scientific_name",
    "score",
    "text",
    "model",
]


def save(source: ExportSource, out: Path) -> Saved:
    """Write one CSV."""

    def rows(recording: ExportedRecording, detections: Sequence[Detection]) -> Iterator[Sequence[object]]:
        where = (
            recording.recording_id,
            guard(source.path(recording)),
            guard(recording.station),
            recording.date or "",
        )
        position = (recording.latitude, recording.longitude)
        for found in detections:
            yield (
                *where,
                found.start_s,
                found.end_s,
                recording.local_at(found.start_s),
                recording.time_at(found.start_s),
                *position,
                guard(found.query),
                guard(found.common_name),
                guard(found.scientific_name),
                found.score,
                guard(found.text),
                guard(found.model),
            )

    return save_sheet(source, out, HEADER, rows)


def load(path: Path) -> pa.Table:
    """Read a CSV written by `save`."""
    rows: list[LoadedRow] = [
        (
            unguard(row["path"]),
            seconds(row["start_s"]),
            seconds(row["end_s"]),
            unguard(row["common_name"]),
            unguard(row["scientific_name"]),
            number(row["score"]),
        )
        for row in sheet_rows(path, HEADER)
    ]
    return loaded(rows)
