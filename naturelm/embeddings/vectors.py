"""The stored vectors of a results directory, streamed day by day in bounded memory.

Files are read as they are, not through SQL: millions of vectors are then read at the disk's rate.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from naturelm.config.spans import DateSpans, parse_dates
from naturelm.errors import NaturelmError
from naturelm.machine import usable_cores
from naturelm.results.analysis import check_version, read_analysis
from naturelm.results.layout import check_results, holds_results
from naturelm.results.schemas import EMBEDDINGS
from naturelm.results.table_sets import VECTORS
from naturelm.results.visible import Visible, read_visible
from naturelm.segments import Day
from naturelm.storage import Location, location
from naturelm.text import suggestion

# Of 768 numbers, 12 MB a batch: each thread has one as float16 and one as float32.
BATCH_ROWS = 8192
_KEYS = ["station", "date", "recording_id", "window", "start_s", "end_s"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class VectorBatch:
    """Neighbouring windows of one day.

    Attributes
    ----------
    keys : Table
        `station`, `date`, `recording_id`, `window`, `start_s` and `end_s`.
    vectors : array, float16 [windows, width]
    """

    keys: pa.Table
    vectors: NDArray[np.float16]

    def unit_vectors(self) -> NDArray[np.float32]:
        """The vectors at length 1, float32; zeros stay zeros."""
        return normalised(self.vectors.astype(np.float32))


class StoredVectors:
    """The embeddings of a results directory.

    Parameters
    ----------
    directory : str, Path or StorePath
        The results directory; a run may still be writing there.

    Attributes
    ----------
    directory : Path or StorePath
    analysis : Analysis
        What determined the vectors: encoder, pooling, windows.
    width : int
        Numbers of a vector.

    Raises
    ------
    NaturelmError
        It holds no embeddings.
    """

    def __init__(self, directory: str | Location) -> None:
        self.directory = directory = location(directory)
        check_results(directory)
        home = VECTORS.home(directory)
        if not holds_results(home):
            raise _none(directory)
        check_version(home)
        self.analysis = read_analysis(home)
        self._visible = read_visible(directory, VECTORS)
        self._withdrawn = {(key, day) for key, day in self._visible.withdrawn}
        self._replaced = set(self._visible.replaced)
        files = [file for _, file, _ in self._files((), None)]
        if not files:
            raise _none(directory)
        width = _vector_width(files)
        if width is None:
            raise _none(directory)
        self.width = width

    @property
    def encoder(self) -> str:
        """The encoder as errors and probes name it."""
        return f"{self.analysis.encoder} ({self.analysis.revision[:12]}, {self.pooling})"

    @property
    def pooling(self) -> str:
        return str(self.analysis.settings["embeddings"]["pooling"])

    @property
    def visible(self) -> Visible:
        return self._visible

    def days(self) -> list[Day]:
        """The published days that have vectors."""
        return sorted(self._visible.published[EMBEDDINGS])

    def batches(
        self, stations: Sequence[str] = (), dates: str | None = None, days: Sequence[Day] | None = None
    ) -> Iterator[VectorBatch]:
        """All vectors that count, in the order of station, date, recording and window.

        Parameters
        ----------
        stations : sequence of str
            Only these; all where empty.
        dates : str, optional
            Only these local dates, as `--dates` takes them.
        days : sequence of Day, optional
            Only these published days, and nothing that is staged.
        """
        yield from self.map(lambda batch: batch, stations, dates, days)

    def map(
        self,
        function: Callable[[VectorBatch], Result],
        stations: Sequence[str] = (),
        dates: str | None = None,
        days: Sequence[Day] | None = None,
    ) -> Iterator[Result]:
        """The function's result for every batch, in order; files are read by several threads.

        Raises
        ------
        NaturelmError
            A station or date has no vectors.
        """
        spans = parse_dates(dates) if dates else None
        self._check(stations, spans, dates)
        chosen = None if days is None else set(days)
        work = [
            (day, file, staged)
            for day, file, staged in self._files(stations, spans)
            if chosen is None or (day in chosen and not staged)
        ]
        threads = max(1, min(usable_cores(), 8))
        waiting: deque[Future[list[Result]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for day, file, staged in work:
                    waiting.append(
                        pool.submit(self._read, day, file, staged, frozenset(stations), spans, function)
                    )
                    if len(waiting) > 2 * threads:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _files(
        self, stations: Sequence[str], spans: DateSpans | None
    ) -> Iterator[tuple[Day, Location, bool]]:
        for day, file in sorted(self._visible.published[EMBEDDINGS].items()):
            if (not stations or day.station in stations) and _within(day.as_date(), spans):
                yield day, file, False
        for file in self._visible.staged.get(EMBEDDINGS, ()):
            yield Day("", ""), file, True

    def _check(self, stations: Sequence[str], spans: DateSpans | None, dates: str | None) -> None:
        days = self._visible.published[EMBEDDINGS].keys()
        known = {day.station for day in days}
        staged = bool(self._visible.staged.get(EMBEDDINGS))
        for name in stations:
            if name not in known and not staged:
                raise NaturelmError(
                    f"--stations: there are no embeddings of station {name!r}; {suggestion(name, known)}"
                )
        if spans is not None and not staged and not any(_within(day.as_date(), spans) for day in days):
            dated = sorted(day.date for day in days if day.date)
            there = f"they are of {dated[0]} to {dated[-1]}" if dated else "none has a known date"
            raise NaturelmError(f"--dates: there are no embeddings of {dates}; {there}")

    def _read(
        self,
        day: Day,
        file: Location,
        staged: bool,
        stations: frozenset[str],
        spans: DateSpans | None,
        function: Callable[[VectorBatch], Result],
    ) -> list[Result]:
        results = []
        with file.open("rb") as stream:
            for rows in pq.ParquetFile(stream).iter_batches(BATCH_ROWS, use_threads=False):
                table = pa.Table.from_batches([rows])
                if staged:
                    table = _chosen(table, stations, spans)
                elif self._withdrawn or self._replaced:
                    table = self._counting(table, day)
                if table.num_rows:
                    results.append(
                        function(VectorBatch(table.select(_KEYS), _array(table["vector"].combine_chunks())))
                    )
        return results

    def _counting(self, table: pa.Table, day: Day) -> pa.Table:
        size = self.analysis.segment_windows
        counts = [
            (key, day) not in self._withdrawn and (key, window // size * size) not in self._replaced
            for key, window in zip(
                table["recording_id"].to_pylist(), table["window"].to_pylist(), strict=True
            )
        ]
        return table.filter(pa.array(counts, pa.bool_()))


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors ``[…, width]`` at length 1; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _array(column: pa.FixedSizeListArray) -> NDArray[np.float16]:
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    values: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def _chosen(table: pa.Table, stations: frozenset[str], spans: DateSpans | None) -> pa.Table:
    if stations:
        table = table.filter(pc.is_in(table["station"], pa.array(sorted(stations), pa.string())))
    if spans is not None:
        table = table.filter(
            pa.array([_within(date, spans) for date in table["date"].to_pylist()], pa.bool_())
        )
    return table


def _within(date: dt.date | None, spans: DateSpans | None) -> bool:
    return spans is None or (date is not None and any(first <= date <= last for first, last in spans))


def _vector_width(files: Sequence[Location]) -> int | None:
    for file in files:
        with file.open("rb") as stream:
            kind = pq.ParquetFile(stream).schema_arrow.field("vector").type
        if isinstance(kind, pa.FixedSizeListType):
            return int(kind.list_size)
    return None


def _none(directory: Location) -> NaturelmError:
    return NaturelmError(
        f"{directory}: holds no embeddings; add them with: naturelm embed ARCHIVE --out {directory}"
    )
