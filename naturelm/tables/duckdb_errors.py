"""DuckDB's errors in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from naturelm.errors import NaturelmError


@contextmanager
def told(what: str = "reading the tables") -> Iterator[None]:
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
        raise NaturelmError(f"{what} failed: {sentence}") from None


def told_batches(reader: pa.RecordBatchReader, what: str = "reading the tables") -> pa.RecordBatchReader:
    """The same batches; errors on the way as `told` raises them."""

    def batches() -> Iterator[pa.RecordBatch]:
        with told(what):
            yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, batches())
