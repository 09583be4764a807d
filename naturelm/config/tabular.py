"""Small tables that people keep in spreadsheets: CSV with any usual delimiter, in UTF-8 or UTF-16."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from naturelm.errors import NaturelmError

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}

_SEPARATOR_LINE = re.compile(r"sep=([,;\t])\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table as it was saved.

    Attributes
    ----------
    columns : tuple of str
        Names in the header, normalised by `column_name`.
    rows : tuple of (int, tuple of str)
        Line number in the file and cells, white space stripped; lines without any text are left out.
    delimiter : str
        What separates the cells.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    delimiter: str

    def records(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and cells by column name; missing cells are ""."""
        for number, cells in self.rows:
            padded = (*cells, *[""] * (len(self.columns) - len(cells)))
            yield number, dict(zip(self.columns, padded, strict=False))


def column_name(text: str) -> str:
    """`Common Name` and `common-name` as `common_name`."""
    return re.sub(r"[\s_-]+", "_", text.strip().lower()).strip("_")


def read_text_file(path: Path, what: str, remedy: str) -> str:
    """The text of a file that a spreadsheet or an editor saved: UTF-8, or UTF-16 with a byte-order mark.

    Parameters
    ----------
    path : Path
    what : str
        What the file contains, for errors, such as "the labels".
    remedy : str
        Which option or setting named the file.

    Raises
    ------
    NaturelmError
        The file cannot be read or is in another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NaturelmError(f"{path}: cannot read {what} ({error.strerror}); check {remedy}") from None
    except ValueError:
        raise NaturelmError(f"{str(path)!r}: not a valid file name; check {remedy}") from None
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise NaturelmError(f"{path}: not UTF-8 text; save {what} as CSV UTF-8") from None
    if "\0" in text:
        raise NaturelmError(
            f"{path}: contains NUL characters, so it is not a text file; save {what} as CSV UTF-8"
        )
    return text


def read_sheet(text: str, known: Collection[str]) -> Sheet | None:
    """Read a table whose first line is a header with one of the `known` column names.

    The delimiter is the one that splits the first line into most known names; a line `sep=;` as Excel writes it
    decides. Returns None where no delimiter gives a known name.
    """
    lines = text.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return None
    candidates = list(DELIMITERS)
    marked = _SEPARATOR_LINE.fullmatch(lines[first].strip("\r\n"))
    if marked:
        candidates, first = [marked[1]], first + 1
    best: tuple[int, str] = (0, "")
    for delimiter in candidates:
        header = next(csv.reader(lines[first : first + 1], delimiter=delimiter), [])
        found = len({column_name(cell) for cell in header} & set(known))
        if found > best[0]:
            best = (found, delimiter)
    if not best[0]:
        return None
    return _sheet(lines, first, best[1])


def _sheet(lines: list[str], first: int, delimiter: str) -> Sheet:
    reader = csv.reader(lines[first:], delimiter=delimiter, skipinitialspace=True)
    rows = []
    header: tuple[str, ...] | None = None
    while True:
        number = first + reader.line_num + 1
        cells = next(reader, None)
        if cells is None:
            break
        stripped = tuple(cell.strip() for cell in cells)
        if not any(stripped):
            continue
        if header is None:
            header = tuple(column_name(cell) for cell in stripped)
        else:
            rows.append((number, stripped))
    return Sheet(header or (), tuple(rows), delimiter)
