"""Answers to SQL on the screen or in a file: table, CSV, JSON or Parquet, in batches of rows."""

from __future__ import annotations

import csv
import decimal
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.cells import cell_len

from naturelm.errors import NaturelmError
from naturelm.text import guard, printable

BATCH_ROWS = 50_000
TABLE_ROWS = 40
"""Rows that the table output shows; the note below it says how many are left out."""

# From 0001-01-01 to 10000-01-01, in seconds since 1970.
_YEAR_1_S, _YEAR_10000_S = -62_135_596_800, 253_402_300_800
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_CELL_WIDTH = 40
_ELLIPSIS = "…"


def write_aligned(reader: pa.RecordBatchReader, stream: IO[str], width: int | None = None) -> None:
    """Print the first `TABLE_ROWS` rows, and how many more there are.

    Parameters
    ----------
    reader : pyarrow.RecordBatchReader
        The answer.
    stream : text file
        Where to print.
    width : int, optional
        Columns of the terminal: long cells are cut and columns in the middle left out to fit. Nothing is cut
        where it is not given.
    """
    rows: list[list[str]] = []
    count = 0
    for batch in reader:
        wanted = batch.slice(0, TABLE_ROWS - len(rows))
        cells = [[_cell(value) for value in _values(column)] for column in wanted.columns]
        rows.extend(list(row) for row in zip(*cells, strict=True))
        count += batch.num_rows
    names = [printable(name) for name in reader.schema.names]
    if width is not None:
        rows = [[_cut(cell) for cell in row] for row in rows]
        shown = _columns_that_fit(names, rows, width)
    else:
        shown = list(range(len(names)))
    numeric = [pa.types.is_floating(kind) or pa.types.is_integer(kind) for kind in reader.schema.types]
    picked = [_marked(row, shown) for row in [names, *rows]]
    for line in aligned(picked, _marked(numeric, shown)):
        stream.write(line + "\n")
    notes = [f"{count:,} rows" if count != 1 else "1 row"]
    if count > len(rows):
        notes.append(f"{count - len(rows):,} not shown")
    if len(shown) < len(names):
        notes.append(f"{len(names) - len(shown)} of {len(names)} columns not shown")
    stream.write(f"({', '.join(notes)})\n")


def write_csv(reader: pa.RecordBatchReader, stream: IO[str], excel: bool = False) -> None:
    """Write CSV with a header.

    Parameters
    ----------
    reader : pyarrow.RecordBatchReader
        The rows.
    stream : text file
        Where to write.
    excel : bool
        For spreadsheets: a byte-order mark comes first, without which they take UTF-8 for another encoding, and text
        that they would take for a formula gets a leading apostrophe. Otherwise values are written as they are.
    """
    if excel:
        stream.write("\ufeff")
    writer = csv_writer(stream)
    writer.writerow(map(guard, reader.schema.names) if excel else reader.schema.names)
    for batch in reader:
        columns = [_values(column) for column in batch.columns]
        if excel:
            columns = [
                [guard(value) if isinstance(value, str) else value for value in column] for column in columns
            ]
        writer.writerows(zip(*columns, strict=True))


def csv_writer(stream: IO[str], delimiter: str = ",") -> Any:
    """A `csv.writer` of lines that end in a line feed and quote every text that holds either line end."""
    return csv.writer(_Lines(stream), delimiter=delimiter, lineterminator="\r\n")


class _Lines:
    """Rows as `csv.writer` writes them; it quotes only such line ends as occur in its own line terminator."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, row: str) -> int:
        return self._stream.write(row[:-2] + "\n")


def write_json(reader: pa.RecordBatchReader, stream: IO[str]) -> None:
    """Write a JSON array, one object per row and line."""
    stream.write("[")
    separator = "\n"
    for batch in reader:
        named = _unique_names(batch)
        columns = [_python_values(column) for column in named.columns]
        for values in zip(*columns, strict=True):
            stream.write(separator + _json(dict(zip(named.schema.names, values, strict=True))))
            separator = ",\n"
    stream.write("\n]\n")


def write_parquet(reader: pa.RecordBatchReader, stream: IO[bytes]) -> None:
    """Write one Parquet file, zstd, in row groups of at least `BATCH_ROWS` rows."""
    with pq.ParquetWriter(stream, reader.schema, compression="zstd") as writer:
        batches: list[pa.RecordBatch] = []
        for batch in reader:
            batches.append(batch)
            if sum(part.num_rows for part in batches) >= BATCH_ROWS:
                writer.write_table(pa.Table.from_batches(batches))
                batches.clear()
        writer.write_table(pa.Table.from_batches(batches, reader.schema))


TEXT_WRITERS: dict[str, Callable[[pa.RecordBatchReader, IO[str]], None]] = {
    "table": write_aligned,
    "csv": write_csv,
    "json": write_json,
}


def aligned(rows: list[list[str]], right: list[bool]) -> Iterator[str]:
    """Lines with the cells of each column below each other, those of `right` columns to the right."""
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(right))]
    for row in rows:
        cells = []
        for cell, width, to_right in zip(row, widths, right, strict=True):
            padding = " " * (width - cell_len(cell))
            cells.append(padding + cell if to_right else cell + padding)
        yield "  ".join(cells).rstrip()


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse to write where something is, before anything slow begins.

    Parameters
    ----------
    out : Path
        A file to be written, or a directory to write files into.
    overwrite : bool
        Files may be replaced. A symbolic link is replaced itself, not what it leads to.

    Raises
    ------
    NaturelmError
        There is a file or a link, or a directory that is not empty.
    """
    if overwrite or not os.path.lexists(out):
        return
    if out.is_dir() and not out.is_symlink():
        if not any(out.iterdir()):
            return
        raise NaturelmError(f"{out}: is not empty; give --overwrite to replace files in it, or another --out")
    raise NaturelmError(f"{out}: already exists; give --overwrite to replace it, or another --out")


def check_folder(out: Path, folder: Path) -> None:
    """Refuse a folder below `out` that a symbolic link leads elsewhere.

    Raises
    ------
    NaturelmError
        `folder`, or one between it and `out`, is a symbolic link.
    """
    for place in [folder, *folder.parents]:
        if place == out:
            return
        if place.is_symlink():
            raise NaturelmError(f"{place}: is a symbolic link; remove it or give another --out")


@contextmanager
def whole_file(path: Path, mode: str = "w", excel: bool = False) -> Iterator[IO[Any]]:
    """Open a file for writing that appears under its name only when it is complete.

    Parameters
    ----------
    path : Path
        Its directory is made where it is missing. A symbolic link is replaced itself, not what it leads to.
    mode : {"w", "wb"}
        Text is UTF-8.
    excel : bool
        Begin text with a byte-order mark, without which spreadsheets take UTF-8 for another encoding.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    options: dict[str, Any] = {}
    if "b" not in mode:
        options = {"encoding": "utf-8-sig" if excel else "utf-8", "newline": "", "errors": "backslashreplace"}
    temporary.unlink(missing_ok=True)
    _unfinished.add(temporary)
    try:
        # Exclusively: where somebody else makes a link of that name, nothing is written through it.
        with temporary.open(mode.replace("w", "x"), **options) as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _unfinished.discard(temporary)


_unfinished: set[Path] = set()


def remove_unfinished() -> None:
    """Remove the files that `whole_file` has not completed, before a process is ended at once."""
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)


def _unique_names(batch: pa.RecordBatch) -> pa.RecordBatch:
    # SQL may answer with two columns of one name, of which a dict would keep one.
    names: list[str] = []
    for name in batch.schema.names:
        number = 1
        while (unique := name if number == 1 else f"{name}_{number}") in names:
            number += 1
        names.append(unique)
    return batch.rename_columns(names)


def _values(column: pa.Array) -> list[Any]:
    """A column's values as a table or CSV shows them: times as text, lists and structs as JSON."""
    kind = column.type
    if pa.types.is_timestamp(kind) and not _is_beyond_python(column):
        # Arrow writes millions of times as text in a tenth of the time that Python takes.
        column = pc.replace_substring(column.cast(pa.string()), ".000000", "")
    if pa.types.is_time(kind):
        column = pc.replace_substring(column.cast(pa.string()), ".000000", "")
        # SQL knows the end of a day as a time.
        column = pc.replace_substring_regex(column, "^<value out of range: 864000*>$", "24:00:00")
    if pa.types.is_nested(kind):
        return [None if value is None else _json(value) for value in _python_values(column)]
    return _python_values(column)


def _is_beyond_python(times: pa.Array) -> bool:
    """Whether a column of timestamps holds infinity, or years that Python and Arrow do not write."""
    seconds = pc.divide(times.cast(pa.int64()), _PER_SECOND[times.type.unit])
    bounds = pc.min_max(seconds).as_py()
    return bounds["min"] is not None and not (bounds["min"] >= _YEAR_1_S and bounds["max"] < _YEAR_10000_S)


def _python_values(column: pa.Array) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return [_python_value(value) for value in column]


def _python_value(value: pa.Scalar) -> Any:
    """A value as Python has it; dates and times that Python does not know as text, as SQL writes them."""
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        kind = value.type
    if pa.types.is_struct(kind):
        return {field.name: _python_value(value[index]) for index, field in enumerate(kind)}
    if pa.types.is_nested(kind):
        return [_python_value(item) for item in value.values]
    if abs(value.value) == (2**31 - 1 if pa.types.is_date32(kind) else 2**63 - 1):
        return "infinity" if value.value > 0 else "-infinity"
    time = np.datetime64(value.value, "D" if pa.types.is_date(kind) else kind.unit)
    text = str(time).replace("T", " ").removesuffix(".000000")
    if text.startswith("-"):
        year, _, rest = text[1:].partition("-")
        text = f"-{int(year):04}-{rest}"
    return text + ("Z" if pa.types.is_timestamp(kind) and kind.tz else "")


def _json(value: Any) -> str:
    return json.dumps(_json_value(value), ensure_ascii=False, allow_nan=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(round(value, 6))
    return printable(str(value))


def _cut(cell: str) -> str:
    if cell_len(cell) <= _CELL_WIDTH:
        return cell
    # Wide characters take two columns: half as many of them are sure to fit.
    return cell[: _CELL_WIDTH - 1 if cell.isascii() else _CELL_WIDTH // 2] + _ELLIPSIS


def _widths(names: list[str], rows: list[list[str]]) -> list[int]:
    return [
        max([cell_len(name), *(cell_len(row[column]) for row in rows)]) for column, name in enumerate(names)
    ]


def _marked(row: list[Any], shown: list[int]) -> list[Any]:
    """The cells to show, with a mark where columns are left out."""
    cells = []
    for column, after in zip(shown, [*shown[1:], len(row)], strict=True):
        cells.append(row[column])
        if after > column + 1:
            cells.append(False if isinstance(row[column], bool) else _ELLIPSIS)
    return cells


def _columns_that_fit(names: list[str], rows: list[list[str]], width: int) -> list[int]:
    """Columns to show: all, or as many from both ends as fit with the mark for those left out."""
    widths = [column + 2 for column in _widths(names, rows)]
    if sum(widths) <= width + 2:
        return list(range(len(names)))
    left: list[int] = []
    right: list[int] = []
    used = len(_ELLIPSIS) + 2
    ends = list(range(len(names)))
    while ends:
        column = ends.pop(0) if len(left) <= len(right) else ends.pop()
        used += widths[column]
        if used > width and left:
            break
        (left if len(left) <= len(right) else right).append(column)
    return left + right[::-1]
