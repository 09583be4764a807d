"""Small Parquet files, written whole and read whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from naturelm.errors import NaturelmError
from naturelm.storage import Location, write_whole

REMEDY = "delete it and run naturelm process with the same --out again"
"""What restores a damaged file of the tables."""

# Reading small files waits for the disk, or for an object store.
_THREADS = 16

VECTOR = "vector"

Given = TypeVar("Given")
Result = TypeVar("Result")


def write_table(place: Location, table: pa.Table, scratch: Location | None = None) -> None:
    """Write a Parquet file so that it appears whole or not at all; see `write_whole`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_layout(table))
    write_whole(place, sink.getvalue(), scratch)


def _layout(table: pa.Table) -> dict[str, Any]:
    """How columns are encoded: numbers of vectors do not repeat, and are read ten times faster as they are."""
    names = [name for name in table.schema.names if name != VECTOR]
    if len(names) == len(table.schema.names):
        return {"compression": "zstd"}
    return {
        "use_dictionary": names,
        "compression": {**dict.fromkeys(names, "zstd"), f"{VECTOR}.list.element": "none"},
    }


def read_table(place: Location, columns: list[str] | None = None, remedy: str = REMEDY) -> pa.Table:
    """Read a Parquet file at once: in a store that is one request, where reading as needed takes several.

    Raises
    ------
    NaturelmError
        The file is not a whole Parquet file; `remedy` says what to do.
    """
    content = place.read_bytes()
    try:
        # A third of the time that `pq.read_table` takes over a small file.
        return pq.ParquetFile(pa.BufferReader(content)).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split(". ")[0].rstrip(".")
        raise NaturelmError(f"{place}: not a whole Parquet file ({reason[:200]}); {remedy}") from None


def at_once(function: Callable[[Given], Result], items: Iterable[Given]) -> list[Result]:
    """Do the same for many small files, whose disk or object store is waited for."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def remove_all(places: Iterable[Location]) -> None:
    """Remove files, those included that are gone already."""
    at_once(lambda place: place.unlink(missing_ok=True), places)
