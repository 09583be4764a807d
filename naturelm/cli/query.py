"""`naturelm query`: ask the tables in SQL."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
import pyarrow as pa

from naturelm.cli.locations import LOCATION
from naturelm.errors import NaturelmError
from naturelm.storage import Location
from naturelm.tables import output as outputs
from naturelm.tables.interrupt import interruptible
from naturelm.tables.query import open_tables, select

OUTPUTS = [*outputs.TEXT_WRITERS, "parquet"]


@click.command()
@click.argument("directory", type=LOCATION)
@click.argument("sql")
@click.option(
    "--output", type=click.Choice(OUTPUTS), default="table", show_default=True, help="Form of the answer."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file and not to standard output.")
def query(directory: Location, sql: str, output: str, out: Path | None) -> None:
    """Ask the results in DIRECTORY a question in SQL (DuckDB's); "-" reads the SQL from standard input.

    The tables are recordings, answers, detections, captions, events and labels. Nothing can be changed, and
    no other file and no network be reached from SQL. Times are in UTC where a column says nothing else.

    \b
    naturelm query night "SELECT label, count(*) FROM detections GROUP BY label"
    """
    if sql == "-":
        sql = sys.stdin.read()
    with interruptible(open_tables(directory, locked=True)) as connection:
        write(select(connection, sql, outputs.BATCH_ROWS), output, out)


def write(reader: pa.RecordBatchReader, output: str, out: Path | None) -> None:
    """Write an answer to a file or to standard output; on a terminal, a table fits it."""
    if out is not None and out.is_dir():
        raise NaturelmError(f"{out}: is a directory; give --out a file")
    try:
        if output == "parquet":
            _write_parquet(reader, out)
        elif out is not None:
            with outputs.whole_file(out) as file:
                outputs.TEXT_WRITERS[output](reader, file)
        elif output == "table" and sys.stdout.isatty():
            outputs.write_table(reader, sys.stdout, shutil.get_terminal_size().columns)
        else:
            outputs.TEXT_WRITERS[output](reader, sys.stdout)
    except OSError as error:
        if out is None:
            raise
        raise NaturelmError(f"{out}: cannot be written ({error.strerror}); give another --out") from None


def _write_parquet(reader: pa.RecordBatchReader, out: Path | None) -> None:
    if out is not None:
        with outputs.whole_file(out, "wb") as file:
            outputs.write_parquet(reader, file)
    elif sys.stdout.isatty():
        raise NaturelmError("Parquet is not for a terminal; give --out FILE")
    else:
        outputs.write_parquet(reader, sys.stdout.buffer)
