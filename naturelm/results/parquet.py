"""Small Parquet files, written whole and read whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from naturelm.storage import Location, write_whole

# Reading small files waits for the disk, or for an object store.
_THREADS = 16

Given = TypeVar("Given")
Result = TypeVar("Result")


def write_table(place: Location, table: pa.Table, scratch: Location | None = None) -> None:
    """Write a Parquet file so that it appears whole or not at all; see `write_whole`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(place, sink.getvalue(), scratch)


def read_table(place: Location, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file at once: in a store that is one request, where reading as needed takes several."""
    # A third of the time that `pq.read_table` takes over a small file.
    return pq.ParquetFile(pa.BufferReader(place.read_bytes())).read(columns=columns)


def at_once(function: Callable[[Given], Result], items: Iterable[Given]) -> list[Result]:
    """Do the same for many small files, whose disk or object store is waited for."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def remove_all(places: Iterable[Location]) -> None:
    """Remove files, those included that are gone already."""
    at_once(lambda place: place.unlink(missing_ok=True), places)
