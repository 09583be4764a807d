"""Audacity label files: per recording, lines of start, end (seconds) and text, separated by tabs."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from naturelm.tables.export.source import Detection, ExportSource, FileNames, LoadedRow, Saved, loaded
from naturelm.tables.row_formats import whole_file
from naturelm.text import flat, guard, unguard

SUMMARY = "Audacity labels, one file per recording"
SUFFIX = ".labels.txt"
_LABEL = re.compile(r"(.*) \((\d(?:\.\d+)?)\)", re.DOTALL)


def save(source: ExportSource, out: Path) -> Saved:
    """Write one label file per recording below `out`; a silent recording's is empty."""
    saved, names = Saved(), FileNames(source, out, SUFFIX)
    for recording, detections in source.by_recording():
        with whole_file(names.path(recording)) as file:
            file.writelines(_line(found) for found in detections)
        saved.detections += len(detections)
        saved.recordings += 1
    return saved


def _line(found: Detection) -> str:
    label = flat(found.label)
    # Audacity does not quote; most readers of tab-separated files take a leading quote for the start of one.
    label = f"'{label}" if label.lstrip("'").startswith('"') else guard(label)
    score = "" if found.score is None else f" ({found.score:.4f})"
    return f"{found.start_s:.6f}\t{found.end_s:.6f}\t{label}{score}\n"


def load(path: Path) -> pa.Table:
    """Read a label file, or all below a directory; paths are those of the files, without the suffix."""
    rows: list[LoadedRow] = []
    for file_path in sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        name = file_path.relative_to(path).as_posix() if path.is_dir() else file_path.name
        for line in file_path.read_text(encoding="utf-8").split("\n"):
            if not line:
                continue
            start_s, end_s, label = line.split("\t", 2)
            scored = _LABEL.fullmatch(label)
            label, score = (scored[1], float(scored[2])) if scored else (label, None)
            label = (
                label[1:] if label.startswith("'") and label.lstrip("'").startswith('"') else unguard(label)
            )
            rows.append((name.removesuffix(SUFFIX), float(start_s), float(end_s), label, None, score))
    return loaded(rows)
