"""Closed label lists in the forms that people have them in.

Accepted forms: one label per line; CSV with a header that names the label's column and, if wanted, a station's; eBird's
lists of common and scientific names; and BirdNET's `Scientific name_Common name` lines.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from naturelm.config.tabular import DELIMITERS, Sheet, read_sheet, read_text_file
from naturelm.errors import NaturelmError
from naturelm.labels import normal_form

# In order: where a file has several of these columns, the first one holds the labels.
_LABEL_COLUMNS = (
    *("label", "labels", "common_name", "primary_com_name", "comname", "english_name", "english"),
    *("vernacular_name", "species", "species_name", "name", "scientific_name", "sci_name", "sciname"),
)
_STATION_COLUMNS = ("station", "site", "location", "point")
# BirdNET's classes: scientific name, underscore, common name; the other classes repeat one
# name, like `Engine_Engine`.
_BIRDNET = re.compile(r"(?P<scientific>[^_]+)_(?P<common>[^_]+)")
_BINOMIAL = re.compile(r"[A-Z][a-z]+(?: [a-z.-]+)+")
_LONGEST_LABEL = 200


def read_label_list(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a label list.

    Parameters
    ----------
    path : Path
        Text in UTF-8, or in UTF-16 as spreadsheets save it, with any line ends. Where the first line is a header with
        a column for labels (`label`, `Common Name`, `Species`, `Scientific Name` …), the file is a table separated by
        commas, semicolons or tabs; a column `station` restricts a label to a station, and a row without one applies
        to every station. Any other file has one label per line, where BirdNET's `Strix aluco_Tawny Owl` is the label
        `Tawny Owl`. Blank lines and lines that start with `#` are left out.

    Returns
    -------
    dict
        Labels by station, in the file's order, each once whatever its case; under "" those of stations that the file
        does not name, possibly none.

    Raises
    ------
    NaturelmError
        The file cannot be read, its layout is unknown, or it contains no label.
    """
    text = read_text_file(path, "the labels", "labels_file")
    # Blanked, not removed, so that errors give the file's own line numbers.
    text = "".join("\n" if line.startswith("#") else line for line in text.splitlines(keepends=True))
    sheet = read_sheet(text, _LABEL_COLUMNS)
    rows = _lines(path, text) if sheet is None else _table(path, sheet)
    if not rows:
        raise NaturelmError(f"{path}: contains no labels; give one per line")
    stations = dict.fromkeys(["", *(station for station, _ in rows)])
    return {name: _once(label for station, label in rows if station in ("", name)) for name in stations}


def _table(path: Path, sheet: Sheet) -> list[tuple[str, str]]:
    labels = next(name for name in _LABEL_COLUMNS if name in sheet.columns)
    station = next((name for name in _STATION_COLUMNS if name in sheet.columns), None)
    rows = []
    birdnet = _is_birdnet([row[labels] for _, row in sheet.records()])
    for number, row in sheet.records():
        if not row[labels]:
            raise NaturelmError(f"{path}: line {number} has no {labels}; give one or delete the line")
        label = row[labels].partition("_")[2].strip() if birdnet else row[labels]
        rows.append((row[station] if station else "", _checked(path, number, label)))
    return rows


def _lines(path: Path, text: str) -> list[tuple[str, str]]:
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if _is_birdnet([line for _, line in lines]):
        return [("", line.partition("_")[2].strip()) for _, line in lines]
    rows = []
    for number, line in lines:
        # A quoted line is one label, whatever it contains.
        label = next(csv.reader([line])) if line.startswith('"') else [line]
        delimiter = next((sign for sign in DELIMITERS if sign in line), None)
        if len(label) != 1 or (delimiter is not None and not line.startswith('"')):
            raise NaturelmError(
                f"{path}: line {number} is {line[:80]!r}, separated by {DELIMITERS[delimiter or ',']}, and no header "
                "names the column of the labels; add a first line such as label,station or Common Name,Scientific "
                "Name, or give one label per line"
            )
        rows.append(("", _checked(path, number, label[0].strip())))
    return rows


def _is_birdnet(labels: list[str]) -> bool:
    matches = [_BIRDNET.fullmatch(label) for label in labels]
    return all(
        match and (_BINOMIAL.fullmatch(match["scientific"]) or match["scientific"] == match["common"])
        for match in matches
    )


def _checked(path: Path, number: int, label: str) -> str:
    if len(label) > _LONGEST_LABEL or not label.isprintable():
        raise NaturelmError(
            f"{path}: line {number} is not a label ({label[:40]!r}…); give one label per line, or a table with a header"
        )
    return label


def _once(labels: Iterable[str]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for label in labels:
        first.setdefault(normal_form(label), label)
    return tuple(first.values())
