"""Kaleidoscope Pro's table of identifications (Wildlife Acoustics), for its viewer.

`TOP1DIST` is a distance, 0 for a sure match: one minus the score.
"""

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
from naturelm.text import flat, guard, guard_path, unguard, unguard_path

SUMMARY = "Kaleidoscope CSV"
HEADER = [
    "INDIR",
    "FOLDER",
    "IN FILE",
    "CHANNEL",
    "OFFSET",
    "DURATION",
    "DATE",
    "TIME",
    "HOUR",
    "AUTO ID*",
    "TOP1DIST",
    "TOP1MATCH",
    "MANUAL ID*",
]


def save(source: ExportSource, out: Path) -> Saved:
    """Write one CSV; dates and times are the recorder's clock at the detection."""

    def rows(recording: ExportedRecording, detections: Sequence[Detection]) -> Iterator[Sequence[object]]:
        root, path = source.place(recording)
        folder, _, name = path.rpartition("/")
        where = [guard_path(flat(text)) for text in (root, folder, name)]
        for found in detections:
            local = recording.local_at(found.start_s)
            time = (
                (local.strftime("%Y-%m-%d"), local.strftime("%H:%M:%S"), local.hour) if local else ("",) * 3
            )
            label = guard(flat(found.label))
            distance = "" if found.score is None else round(1 - found.score, 4)
            length_s = round(found.end_s - found.start_s, 6)
            yield (*where, 0, found.start_s, length_s, *time, label, distance, label, "")

    return save_sheet(source, out, HEADER, rows)


def load(path: Path) -> pa.Table:
    """Read a table of identifications; labels come back as common names."""
    rows: list[LoadedRow] = []
    for row in sheet_rows(path, HEADER):
        start_s, distance = seconds(row["OFFSET"]), number(row["TOP1DIST"])
        parts = [unguard_path(row[column]) for column in ("INDIR", "FOLDER", "IN FILE")]
        rows.append(
            (
                "/".join(part for part in parts if part),
                start_s,
                round(start_s + seconds(row["DURATION"]), 6),
                unguard(row["AUTO ID*"]),
                None,
                None if distance is None else round(1 - distance, 4),
            )
        )
    return loaded(rows)
