"""Closed label lists in files: one label a line, or CSV with a label and, if wanted, a station."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from naturelm.errors import NaturelmError


def read_label_list(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a label list.

    Parameters
    ----------
    path : Path
        UTF-8 text. Where the first line is a CSV header with a `label` column, the file is CSV; a `station`
        column restricts a label to a station, and a row without one holds at every station. Any other
        file has one label on each line. Empty lines and what follows a `#` at a line's start are left out.

    Returns
    -------
    dict
        Labels by station, in the file's order, each once; under "" those of stations that the file does not
        name, which may be none.

    Raises
    ------
    NaturelmError
        The file cannot be read, or names no label.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NaturelmError(f"{path}: cannot read the labels ({error.strerror}); check labels_file") from None
    except UnicodeDecodeError:
        raise NaturelmError(f"{path}: is not UTF-8 text; save the labels as UTF-8") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    header = [name.strip().lower() for name in next(csv.reader(lines[:1]), [])]
    if "label" not in header:
        rows = [("", line.strip()) for line in lines]
    else:
        rows = []
        for number, values in enumerate(csv.reader(lines[1:]), start=2):
            row = dict(zip(header, (value.strip() for value in values), strict=False))
            if not row.get("label"):
                raise NaturelmError(f"{path}: row {number} has no label; give one or delete the row")
            rows.append((row.get("station", ""), row["label"]))
    if not rows:
        raise NaturelmError(f"{path}: names no label; give one on each line")
    stations = dict.fromkeys(["", *(station for station, _ in rows)])
    return {name: _once(label for station, label in rows if station in ("", name)) for name in stations}


def _once(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels))
