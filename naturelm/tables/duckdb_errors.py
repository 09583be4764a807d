"""DuckDB's errors in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import duckdb
import pyarrow as pa

from naturelm.errors import NaturelmError
from naturelm.results.layout import STAGING, day_file, folder_name
from naturelm.results.parquet import REMEDY

# A file of the tables as DuckDB knows it (see `naturelm.tables.query`).
_SERVED = re.compile(
    r"results://(?:published/(?P<table>[\w/]+)/station=(?P<station>[^/]*)/date=(?P<date>[^/]+)/rows|"
    r"staged/(?P<home>\w+/)?(?P<staged>\w+)/(?P<segment>[\w-]+))\.parquet"
)


def _name_of(served: re.Match[str]) -> str:
    """The path of a file below the output directory."""
    if served["staged"]:
        return f"{served['home'] or ''}{STAGING}/{served['staged']}/{served['segment']}.parquet"
    date = served["date"] if served["date"][0].isdigit() else ""
    return f"{served['table']}/{day_file(folder_name(unquote(served['station'])), date)}"


@contextmanager
def readable_errors(what: str = "reading the tables") -> Iterator[None]:
    """Raise what DuckDB raises as a NaturelmError that says that `what` failed."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        # DuckDB's errors come as OSError where Arrow hands them on; the system's own have a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        message = str(error)
        if "FileNotFoundError" in message:
            raise NaturelmError(
                "a day was published while it was read, and its staged files are gone; ask again"
            ) from None
        if "Traceback" in message:
            message = message.strip().splitlines()[-1]
        # The first lines say what and what was meant; the SQL with a marker below it comes after a blank one.
        sentence = " ".join(message.split("\n\n")[0].split())
        damaged = _SERVED.search(sentence)
        if damaged is not None:
            raise NaturelmError(f"{_name_of(damaged)}: not a whole Parquet file; {REMEDY}") from None
        raise NaturelmError(f"{what} failed: {sentence}") from None


def readable_batches(reader: pa.RecordBatchReader, what: str = "reading the tables") -> pa.RecordBatchReader:
    """The same batches; errors on the way as `readable_errors` raises them."""

    def batches() -> Iterator[pa.RecordBatch]:
        with readable_errors(what):
            yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, batches())
