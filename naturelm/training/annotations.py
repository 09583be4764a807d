"""Labels of stretches of recordings, as Raven, BirdNET, Kaleidoscope and Audacity write them. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from naturelm.config.tabular import column_name, read_sheet, read_text_file
from naturelm.errors import NaturelmError
from naturelm.labels import normal_form
from naturelm.recordings.discovery import is_audio_name
from naturelm.recordings.names import parse_name
from naturelm.recordings.station_names import place
from naturelm.text import one_line, unguard
from naturelm.training.labelled import label_name
from naturelm.training.manifest import Problems

# Column names in the order in which they are looked for, normalised by `column_name`.
_START = (
    "file_offset_(s)",
    "start_(s)",
    "start_s",
    "offset",
    "begin_time_(s)",
    "begin_time",
    "start_time",
    "start",
)
_BEGIN = ("begin_time_(s)", "begin_time")
_END = ("end_time_(s)", "end_(s)", "end_s", "end_time", "end")
_DURATION = ("duration", "delta_time_(s)")
_FILE = ("begin_path", "begin_file", "in_file", "file", "filename", "file_name", "path", "filepath")
_LABEL = (
    *("manual_id*", "manual_id", "common_name", "annotation", "species", "label", "category", "tags"),
    *("auto_id*", "auto_id"),
)
_SCIENTIFIC = ("scientific_name", "sci_name")
_KNOWN = frozenset((*_START, *_END, *_FILE, *_LABEL, *_SCIENTIFIC))
# Labels by which these programs say that there is nothing, and that they do not know.
_NOTHING = frozenset({"none", "noise", "nocall", "no call", "background"})
_UNKNOWN = frozenset({"", "noid", "no id", "unknown"})
_TABLES = (".txt", ".csv", ".tsv")
_AUDACITY = re.compile(r"(\d+(?:\.\d+)?)\t(\d+(?:\.\d+)?)\t(.*)")
# "X.Table.1.selections.txt", "X.BirdNET.selection.table.txt", "X.BirdNET.results.csv", "X.wav.txt"
_ENDING = re.compile(
    r"(\.Table\.\d+)?(\.BirdNET)?(\.selections?(\.table)?|\.results)?\.(txt|csv|tsv)$", re.IGNORECASE
)


@dataclass
class Annotated:
    """A recording and what was annotated in it.

    Attributes
    ----------
    path : Path
        The file.
    spans : list of (start_s, end_s, name)
        Annotations, in seconds; an empty name says that there is nothing to name. The end may be infinite.
    station : str
        Its station, or "" where that is not known.
    scientific : bool
        Names are scientific ones.
    """

    path: Path
    spans: list[tuple[float, float, str]] = field(default_factory=list)
    station: str = ""
    scientific: bool = False


def read_annotations(source: Path, audio: Path) -> list[Annotated]:
    """The recordings that one table, or all tables below a directory, have annotations of.

    Raises
    ------
    NaturelmError
        A table cannot be read, or rows are invalid: all problems of a table are reported.
    """
    files = _Recordings(audio)
    tables = (
        [source]
        if source.is_file()
        else sorted(path for path in source.rglob("*") if path.suffix.lower() in _TABLES and path.is_file())
    )
    found: dict[Path, Annotated] = {}
    for table in tables:
        for path, start_s, end_s, name, scientific in _read_table(table, files):
            known = found.setdefault(
                path, Annotated(path, station=files.station(path), scientific=scientific)
            )
            known.spans.append((start_s, end_s, name))
    if not found:
        raise NaturelmError(
            f"{source}: contains no labels; give a selection table, a CSV, Audacity labels, a directory of these, a "
            "folder for each label, or a directory of results with reviews"
        )
    return list(found.values())


Row = tuple[Path, float, float, str, bool]


def _read_table(table: Path, files: _Recordings) -> Iterator[Row]:
    text = read_text_file(table, "the labels", "LABELS")
    problems = Problems(table)
    sheet = read_sheet(text, _KNOWN)
    if sheet is None:
        yield from _read_audacity(table, text, files, problems)
        problems.stop()
        return
    names = _first(_LABEL, sheet.columns)
    scientific = [] if names else _first(_SCIENTIFIC, sheet.columns)
    if not names and not scientific:
        raise NaturelmError(
            f"{table}: has no column for the label, such as Common Name, Annotation or Species; it has "
            f"{', '.join(sheet.columns)}"
        )
    file_columns, folders = _first(_FILE, sheet.columns), _first(("indir", "folder"), sheet.columns)
    rows: list[Row] = []
    for number, cells in sheet.records():
        cells = {name: unguard(cell) or "" for name, cell in cells.items()}
        label = next((cells[name] for name in [*names, *scientific] if cells[name]), "")
        if normal_form(label) in _UNKNOWN:
            continue
        try:
            start_s, end_s = _times(cells)
        except ValueError as error:
            problems.add(number, str(error))
            continue
        file = next((cells[name] for name in file_columns if cells[name]), "")
        path = (
            files.find("/".join(part for name in folders if (part := cells[name])) + f"/{file}", file)
            if file
            else files.of_table(table)
        )
        if path is None:
            what = one_line(file, 200) if file else f"that {table.name} is named after"
            problems.add(number, f"there is no recording {what} below {files.root}, or there are several")
            continue
        rows.append((path, start_s, end_s, _name(label), bool(scientific)))
    problems.stop()
    yield from rows


def _read_audacity(table: Path, text: str, files: _Recordings, problems: Problems) -> Iterator[Row]:
    # Lines that begin with a backslash hold the frequencies of a spectral selection.
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "\\"]
    for number, line in lines:
        match = _AUDACITY.fullmatch(line.rstrip())
        if match is None:
            problems.add(
                number,
                f"is {one_line(line, 60)!r}; a table needs a header with known columns (Begin Time (s), Common Name, "
                "filename, label), Audacity's labels start, end and label",
            )
        path = files.of_table(table)
        if path is None:
            problems.add(number, f"there is no recording that {table.name} is named after below {files.root}")
        elif match and normal_form(match[3]) not in _UNKNOWN:
            yield path, float(match[1]), float(match[2]), _name(match[3]), False


def _times(cells: dict[str, str]) -> tuple[float, float]:
    """Start and end in seconds within the recording; without columns for them, all of it."""
    start = next((name for name in _START if cells.get(name)), None)
    if start is None:
        return 0.0, float("inf")
    start_s = _number(cells, start)
    end = next((name for name in _END if cells.get(name)), None)
    if end is None:
        length = next((name for name in _DURATION if cells.get(name)), None)
        if length is None:
            raise ValueError(f"has {start} without an end or duration")
        return start_s, start_s + _number(cells, length)
    end_s = _number(cells, end)
    # Raven counts its times over a sequence of files; only the offset is that within the file.
    begin = next((name for name in _BEGIN if cells.get(name)), None)
    if start == "file_offset_(s)" and begin:
        end_s = start_s + end_s - _number(cells, begin)
    if not 0 <= start_s <= end_s:
        raise ValueError(f"starts at {start_s:g} s and ends at {end_s:g} s")
    return start_s, end_s


def _number(cells: dict[str, str], column: str) -> float:
    try:
        value = float(cells[column].replace(",", "."))
    except ValueError:
        raise ValueError(f"{column} is {one_line(cells[column], 40)!r}, not a number") from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"{column} is {value:g}")
    return value


def _name(label: str) -> str:
    name = label_name(label)
    return "" if normal_form(name) in _NOTHING else name


def _first(wanted: Sequence[str], columns: Iterable[str]) -> list[str]:
    present = {column_name(column) for column in columns}
    return [name for name in wanted if name in present]


class _Recordings:
    """The recordings below a directory, by path, name and stem."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for where, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(filter(is_audio_name, names)):
                path = Path(where) / name
                self._by_name.setdefault(name.casefold(), []).append(path)
                self._by_stem.setdefault(path.stem.casefold(), []).append(path)
        if not self._by_name:
            raise NaturelmError(
                f"{root}: contains no recordings; give --audio the directory of the recordings"
            )

    def find(self, *texts: str) -> Path | None:
        """The recording that a table names by one of some paths, wherever the table was made."""
        for text in texts:
            parts = [part for part in text.replace("\\", "/").split("/") if part]
            # From the whole path to its last part: the directories above are another computer's.
            for first in range(len(parts)):
                path = self.root.joinpath(*parts[first:])
                if ".." not in parts and path.is_file():
                    return path
            found = self._by_name.get(parts[-1].casefold(), []) if parts else []
            if len(found) == 1:
                return found[0]
        return None

    def of_table(self, table: Path) -> Path | None:
        """The recording that a table is named after."""
        stem = _ENDING.sub("", table.name).casefold()
        found = self._by_stem.get(stem, []) or self._by_name.get(stem, [])
        return found[0] if len(found) == 1 else None

    def station(self, path: Path) -> str:
        """The station of a recording, by its name or the directory it lies in."""
        return station_by_path(path, self.root)


def station_by_path(path: Path, root: Path) -> str:
    """The station of a recording, by its name or else its directories below `root`; "" where neither says."""
    relative = path.relative_to(root).as_posix()
    return parse_name(path.name).station or place(relative, "")
