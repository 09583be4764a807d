"""`naturelm query`: SQL on the tables."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import IO

import click
import pyarrow as pa

from naturelm.cli._options import (
    QUERY_FORMATS,
    directory_argument,
    excel_option,
    format_option,
    out_file_option,
    overwrite_option,
)
from naturelm.cli._types import FiniteRange
from naturelm.errors import NaturelmError
from naturelm.machine import limited_memory
from naturelm.storage import Location
from naturelm.tables import row_formats as outputs
from naturelm.tables.duckdb_errors import readable_errors
from naturelm.tables.interrupt import interruptible
from naturelm.tables.query import open_tables, select

# Beyond DuckDB's own limit: single values that DuckDB does not count, and the rows that are being written.
_MEMORY_BYTES = 3 << 30


@click.command()
@directory_argument
@click.argument("sql")
@format_option(*QUERY_FORMATS)
@out_file_option
@overwrite_option
@excel_option
@click.option(
    "--timeout",
    "timeout_s",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End the query after this time.  [default: no limit]",
)
def query(
    directory: Location,
    sql: str,
    form: str,
    out: Path | None,
    overwrite: bool,
    excel: bool,
    timeout_s: float | None,
) -> None:
    """Run a SQL query (DuckDB's dialect) on the tables in DIRECTORY; "-" reads it from standard input.

    The tables are recordings, answers, detections, captions, probe_detections, embeddings, events, labels, reviews,
    decisions and reviewed_labels. SQL can change nothing and reach no other file and no network. Times are in UTC
    unless the column's name ends in _local.

    \b
    naturelm query night "SELECT label, count(*) FROM detections GROUP BY label"
    """
    check_output(form, out, overwrite, excel)
    if sql == "-":
        sql = _standard_input()
    with (
        limited_memory(_MEMORY_BYTES),
        interruptible(open_tables(directory, locked=True), timeout_s) as connection,
    ):
        write(select(connection, sql, outputs.BATCH_ROWS), form, out, excel)


def check_output(form: str, out: Path | None, overwrite: bool, excel: bool) -> None:
    """Refuse what cannot be written, before anything is queried."""
    if excel and form != "csv":
        raise NaturelmError(f"--excel is for CSV, and --format is {form}; give --format csv")
    if out is not None:
        if out.is_dir():
            raise NaturelmError(f"{out}: is a directory; give --out a file")
        outputs.check_out(out, overwrite)


def write(reader: pa.RecordBatchReader, form: str, out: Path | None, excel: bool) -> None:
    """Write rows to a file or to standard output; on a terminal, a table is fitted to its width."""
    try:
        with readable_errors("writing the rows"):
            if form == "parquet":
                _write_parquet(reader, out)
            elif out is not None:
                with outputs.whole_file(out) as file:
                    _write_text(reader, form, file, excel)
            elif form == "table" and sys.stdout.isatty():
                outputs.write_aligned(reader, sys.stdout, shutil.get_terminal_size().columns)
            else:
                _write_text(reader, form, sys.stdout, excel)
    except OSError as error:
        if out is None:
            raise
        raise NaturelmError(f"{out}: cannot be written ({error.strerror}); give another --out") from None
    except MemoryError:
        raise NaturelmError("the rows do not fit into memory; select fewer or shorter values") from None


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NaturelmError("the SQL on standard input is not UTF-8 text; write it in UTF-8") from None


def _write_text(reader: pa.RecordBatchReader, form: str, stream: IO[str], excel: bool) -> None:
    if excel:
        outputs.write_csv(reader, stream, excel=True)
    else:
        outputs.TEXT_WRITERS[form](reader, stream)


def _write_parquet(reader: pa.RecordBatchReader, out: Path | None) -> None:
    if out is not None:
        with outputs.whole_file(out, "wb") as file:
            outputs.write_parquet(reader, file)
    elif sys.stdout.isatty():
        raise NaturelmError("Parquet cannot be written to a terminal; give --out FILE")
    else:
        outputs.write_parquet(reader, sys.stdout.buffer)
