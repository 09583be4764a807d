"""Raven selection tables (Raven Pro and Lite, Cornell): tab-separated, one row per selection.

One table per recording, with times in that recording; or one for all recordings, with `Begin Time (s)` counted
over the recordings opened one after the other, as Raven's file sequences count. A list of the recordings in
that order is written beside it.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa

from naturelm.tables.export.source import (
    Detection,
    ExportedRecording,
    ExportSource,
    FileNames,
    LoadedRow,
    Saved,
    check_file,
    loaded,
    number,
)
from naturelm.tables.row_formats import csv_writer, whole_file
from naturelm.text import flat, guard, guard_path, unguard, unguard_path

SUMMARY = "Raven selection tables: one per recording, or all in one where --out ends in .txt"
HEADER = [
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "File Offset (s)",
    "Common Name",
    "Scientific Name",
    "Confidence",
    "Query",
    "Text",
]
SUFFIX = ".Table.1.selections.txt"
LIST_SUFFIX = ".listfile.txt"
_DECIMALS = 6


def save(source: ExportSource, out: Path) -> Saved:
    """Write one table to `out` where it ends in `.txt`, otherwise one per recording below it."""
    if out.suffix.lower() == ".txt":
        return _save_combined(source, out)
    saved, names = Saved(), FileNames(source, out, SUFFIX)
    for recording, detections in source.by_recording():
        with whole_file(names.path(recording)) as file:
            writer = csv_writer(file, delimiter="\t")
            writer.writerow(HEADER)
            writer.writerows(_rows(source.path(recording), recording, detections, 1, 0.0))
        saved.detections += len(detections)
        saved.recordings += 1
    return saved


def _save_combined(source: ExportSource, out: Path) -> Saved:
    check_file(out)
    saved, sound_s = Saved(), 0.0
    with whole_file(out) as file, whole_file(out.with_name(out.stem + LIST_SUFFIX)) as listed:
        writer = csv_writer(file, delimiter="\t")
        writer.writerow(HEADER)
        for recording, detections in source.by_recording():
            path = source.path(recording)
            writer.writerows(_rows(path, recording, detections, saved.detections + 1, sound_s))
            # A silent recording takes its time too; one without any sound cannot be opened and takes none.
            if recording.sound_s > 0:
                listed.write(flat(path) + "\n")
            sound_s += recording.sound_s
            saved.detections += len(detections)
            saved.recordings += 1
    return saved


def _rows(
    path: str, recording: ExportedRecording, detections: list[Detection], first: int, offset_s: float
) -> list[tuple[Any, ...]]:
    path = guard_path(flat(path))
    high_hz = recording.high_hz
    return [
        (
            selection,
            "Spectrogram 1",
            1,
            round(offset_s + found.start_s, _DECIMALS),
            round(offset_s + found.end_s, _DECIMALS),
            0.0,
            high_hz,
            path,
            found.start_s,
            guard(flat(found.common_name)),
            guard(flat(found.scientific_name)),
            found.score,
            guard(flat(found.query)),
            guard(flat(found.text)),
        )
        for selection, found in enumerate(detections, first)
    ]


def load(path: Path) -> pa.Table:
    """Read a selection table, or all below a directory."""
    rows: list[LoadedRow] = []
    for file_path in sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        with file_path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                start_s = float(row["File Offset (s)"])
                length_s = float(row["End Time (s)"]) - float(row["Begin Time (s)"])
                rows.append(
                    (
                        unguard_path(row["Begin Path"]),
                        start_s,
                        round(start_s + length_s, _DECIMALS),
                        unguard(row["Common Name"]),
                        unguard(row["Scientific Name"]),
                        number(row["Confidence"]),
                    )
                )
    return loaded(rows)
