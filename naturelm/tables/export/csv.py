"""Every column of the detections as CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from naturelm.tables.export.source import (
    ExportSource,
    LoadedRow,
    Saved,
    check_file,
    loaded,
    number,
    seconds,
    sheet_rows,
)
from naturelm.tables.row_formats import csv_writer, whole_file
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
    check_file(out)
    saved = Saved()
    with whole_file(out, excel=True) as file:
        writer = csv_writer(file)
        writer.writerow(HEADER)
        for recording, detections in source.by_recording():
            where = (
                recording.recording_id,
                guard(source.path(recording)),
                guard(recording.station),
                recording.date or "",
            )
            position = (recording.latitude, recording.longitude)
            writer.writerows(
                (
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
                for found in detections
            )
            saved.detections += len(detections)
            saved.recordings += 1
    return saved


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
