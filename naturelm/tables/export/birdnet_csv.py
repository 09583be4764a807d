"""BirdNET-Analyzer's results as CSV, one file for all recordings."""

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
from naturelm.text import flat, guard, guard_path, unguard, unguard_path

SUMMARY = "BirdNET-Analyzer CSV"
HEADER = ["Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File"]


def save(source: ExportSource, out: Path) -> Saved:
    """Write one CSV. Only the name that the query requested is filled in."""
    check_file(out)
    saved = Saved()
    with whole_file(out, excel=True) as file:
        writer = csv_writer(file)
        writer.writerow(HEADER)
        for recording, detections in source.by_recording():
            path = guard_path(flat(source.path(recording)))
            writer.writerows(
                (
                    found.start_s,
                    found.end_s,
                    guard(flat(found.scientific_name)),
                    guard(flat(found.common_name)),
                    found.score,
                    path,
                )
                for found in detections
            )
            saved.detections += len(detections)
            saved.recordings += 1
    return saved


def load(path: Path) -> pa.Table:
    """Read a results CSV."""
    rows: list[LoadedRow] = [
        (
            unguard_path(row["File"]),
            seconds(row["Start (s)"]),
            seconds(row["End (s)"]),
            unguard(row["Common name"]),
            unguard(row["Scientific name"]),
            number(row["Confidence"]),
        )
        for row in sheet_rows(path, HEADER)
    ]
    return loaded(rows)
