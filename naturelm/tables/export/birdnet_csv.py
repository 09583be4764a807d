"""BirdNET-Analyzer's results as CSV, one file for all recordings."""

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

SUMMARY = "BirdNET-Analyzer CSV"
HEADER = ["Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File"]


def save(source: ExportSource, out: Path) -> Saved:
    """Write one CSV. Only the name that the query requested is filled in."""

    def rows(recording: ExportedRecording, detections: Sequence[Detection]) -> Iterator[Sequence[object]]:
        path = guard_path(flat(source.path(recording)))
        for found in detections:
            yield (
                found.start_s,
                found.end_s,
                guard(flat(found.scientific_name)),
                guard(flat(found.common_name)),
                found.score,
                path,
            )

    return save_sheet(source, out, HEADER, rows)


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
