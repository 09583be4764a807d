"""`naturelm query`: SQL on the tables."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
import pyarrow as pa

from naturelm.cli._options import QUERY_FORMATS, directory_argument, format_option, out_file_option
from naturelm.errors import NaturelmError
from naturelm.storage import Location
from naturelm.tables import row_formats as outputs
from naturelm.tables.interrupt import interruptible
from naturelm.tables.query import open_tables, select


@click.command()
@directory_argument
@click.argument("sql")
@format_option(*QUERY_FORMATS)
@out_file_option
def query(directory: Location, sql: str, form: str, out: Path | None) -> None:
    """Run a SQL query (DuckDB's dialect) on the tables in DIRECTORY; "-" reads it from standard input.

    The tables are recordings, answers, detections, captions, events, labels, reviews, decisions and reviewed_labels.
    SQL can change nothing and reach no other file and no network. Times are in UTC unless the column's name ends
    in _local.

    \b
    naturelm query night "SELECT label, count(*) FROM detections GROUP BY label"
    """
    if sql == "-":
        sql = sys.stdin.read()
    with interruptible(open_tables(directory, locked=True)) as connection:
        write(select(connection, sql, outputs.BATCH_ROWS), form, out)


def write(reader: pa.RecordBatchReader, form: str, out: Path | None) -> None:
    """Write rows to a file or to standard output; on a terminal, a table is fitted to its width."""
    if out is not None and out.is_dir():
        raise NaturelmError(f"{out}: is a directory; give --out a file")
    try:
        if form == "parquet":
            _write_parquet(reader, out)
        elif out is not None:
            with outputs.whole_file(out) as file:
                outputs.TEXT_WRITERS[form](reader, file)
        elif form == "table" and sys.stdout.isatty():
            outputs.write_aligned(reader, sys.stdout, shutil.get_terminal_size().columns)
        else:
            outputs.TEXT_WRITERS[form](reader, sys.stdout)
    except OSError as error:
        if out is None:
            raise
        raise NaturelmError(f"{out}: cannot be written ({error.strerror}); give another --out") from None


def _write_parquet(reader: pa.RecordBatchReader, out: Path | None) -> None:
    if out is not None:
        with outputs.whole_file(out, "wb") as file:
            outputs.write_parquet(reader, file)
    elif sys.stdout.isatty():
        raise NaturelmError("Parquet cannot be written to a terminal; give --out FILE")
    else:
        outputs.write_parquet(reader, sys.stdout.buffer)
