"""Training sets in the layout of the hub: many Parquet files with the sound inside, read in order and shuffled.

The order of an epoch is that of all rows of the shards, these in a random order, cut into equal lanes that are read
side by side. Each lane gives its rows in blocks, shuffled within. So a place in the order is arithmetic on a number, a
run resumes exactly at any step, and memory holds a block of each lane, however many rows there are.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soxr

from naturelm.audio.streaming import Samples
from naturelm.errors import NaturelmError
from naturelm.storage import StoreError, list_files, location
from naturelm.text import one_line
from naturelm.windows import SAMPLE_RATE_HZ

_LOG = logging.getLogger(__name__)

NEEDED = ("audio", "metadata", "output", "task")
PROMPTS = ("instruction_text", "instruction")
"""Columns of a row: the sound as numbers, its sample rate within JSON, the answer and its kind; and the question."""

SOUND_MARK = "<Audio><AudioHere></Audio>"

_LANES = 8
_BATCH_ROWS = 8
_FOOTERS_AT_ONCE = 16
# Without it, the sound of a whole row group, gigabytes, is fetched at once.
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A row of a shard.

    Attributes
    ----------
    id, prompt, text, task : str
        As of `naturelm.training.manifest.Example`.
    waveform : float32 [samples]
        At 16 kHz; of a long sound the piece that training takes.
    """

    id: str
    prompt: str
    text: str
    task: str
    waveform: Samples


class _Place(NamedTuple):
    lane: int
    epoch: int
    block: int
    within: int


class ShardRows:
    """The rows of shards in an endless shuffled order.

    Parameters
    ----------
    paths
        The shards.
    counts
        Rows of each.
    seed
        Of the order and of the pieces taken.
    buffer_rows
        How many rows are shuffled at once, over all lanes.
    longest_s
        Of a longer sound, a piece of so many seconds is kept.
    random_piece
        The piece lies anywhere; otherwise at the start.
    """

    def __init__(
        self,
        paths: Sequence[str],
        counts: Sequence[int],
        seed: int,
        buffer_rows: int,
        longest_s: float,
        random_piece: bool,
    ) -> None:
        self._paths, self._counts, self._seed = list(paths), np.array(counts, np.int64), seed
        self._longest_s, self._random_piece = longest_s, random_piece
        self._lanes = min(_LANES, len(self))
        self._lane_rows = len(self) // self._lanes
        self._block_rows = max(1, min(buffer_rows // self._lanes, self._lane_rows))
        self._epoch: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None
        self._blocks: dict[int, tuple[tuple[int, int], list[PackedRow | None]]] = {}
        self._cursors: dict[int, _Cursor] = {}

    def __len__(self) -> int:
        """Rows of all shards."""
        return int(self._counts.sum())

    def __getstate__(self) -> dict[str, Any]:
        # What was read stays in its process.
        return self.__dict__ | {"_blocks": {}, "_cursors": {}, "_epoch": None}

    def row(self, draw: int) -> PackedRow | None:
        """The row of a draw, numbered from 0 through all epochs; None for one that cannot be used."""
        place = self._place(draw)
        return self._block(place)[self._order(place)[place.within]]

    def neighbours(self, draw: int) -> list[PackedRow]:
        """All rows that can be used of the block that a draw is from, in order."""
        return [row for row in self._block(self._place(draw)) if row is not None]

    def position(self, draw: int) -> tuple[str, int]:
        """Shard and row number of a draw, without reading it."""
        place = self._place(draw)
        first = self._first(place)
        ((shard, start, _),) = self._ranges(place.epoch, first + int(self._order(place)[place.within]), 1)
        return self._paths[shard], start

    def _place(self, draw: int) -> _Place:
        turn, lane = divmod(draw, self._lanes)
        epoch, row = divmod(turn, self._lane_rows)
        return _Place(lane, epoch, *divmod(row, self._block_rows))

    def _size(self, place: _Place) -> int:
        return min(self._block_rows, self._lane_rows - place.block * self._block_rows)

    def _first(self, place: _Place) -> int:
        """Number of a block's first row in the order of its epoch."""
        return place.lane * self._lane_rows + place.block * self._block_rows

    def _order(self, place: _Place) -> npt.NDArray[np.int64]:
        seed = np.random.SeedSequence((self._seed, place.epoch, place.lane, place.block))
        return np.random.default_rng(seed).permutation(self._size(place))

    def _block(self, place: _Place) -> list[PackedRow | None]:
        key = (place.epoch, place.block)
        if place.lane not in self._blocks or self._blocks[place.lane][0] != key:
            # The old one first, so that two are never in memory.
            self._blocks.pop(place.lane, None)
            self._blocks[place.lane] = key, self._read(place)
        return self._blocks[place.lane][1]

    def _read(self, place: _Place) -> list[PackedRow | None]:
        number = self._first(place)
        rows: list[PackedRow | None] = []
        for shard, start, count in self._ranges(place.epoch, number, self._size(place)):
            cursor = self._cursors.get(place.lane)
            if cursor is None or (cursor.shard, cursor.position) != (shard, start):
                if cursor is not None:
                    cursor.close()
                cursor = self._cursors[place.lane] = _Cursor(shard, self._paths[shard], start)
            for row, values in enumerate(cursor.take(count), start=start):
                rng = np.random.default_rng(
                    np.random.SeedSequence((self._seed, place.epoch, number + len(rows)))
                )
                rows.append(self._packed(values, self._paths[shard], row, rng.random()))
        return rows

    def _packed(self, values: Mapping[str, Any], path: str, row: int, place: float) -> PackedRow | None:
        try:
            rate_hz = _sample_rate(values["metadata"])
            prompt, text, task = (_text(values, name) for name in ("prompt", "output", "task"))
            sound = np.asarray(values["audio"], np.float32)
            if not len(sound) or not np.isfinite(sound).all():
                raise ValueError("audio is empty or not finite")
        except ValueError as error:
            _LOG.warning("left out: %s, row %d: %s", path, row, error)
            return None
        longest = round(self._longest_s * rate_hz)
        start = int((place if self._random_piece else 0.0) * max(0, len(sound) - longest))
        # A copy: the piece must not keep the batch that it is from.
        sound = sound[start : start + longest].copy()
        if rate_hz != SAMPLE_RATE_HZ:
            sound = soxr.resample(sound, rate_hz, SAMPLE_RATE_HZ).astype(np.float32, copy=False)
        return PackedRow(str(values.get("id") or f"{path}:{row}"), prompt, text, task, sound.clip(-1.0, 1.0))

    def _ranges(self, epoch: int, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Shard, first row and number of rows of a stretch of an epoch's order."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng(np.random.SeedSequence((self._seed, epoch))).permutation(
                len(self._paths)
            )
            self._epoch = epoch, order, np.concatenate([[0], self._counts[order].cumsum()])
        _, order, starts = self._epoch
        place = int(np.searchsorted(starts, first, side="right")) - 1
        while count:
            taken = min(count, int(starts[place + 1]) - first)
            if taken:
                yield int(order[place]), first - int(starts[place]), taken
            first, count, place = first + taken, count - taken, place + 1


class _Cursor:
    """Reads the rows of one shard in order."""

    def __init__(self, shard: int, path: str, start: int) -> None:
        self.shard, self.position, self._path = shard, start, path
        self._file = location(path).open("rb")
        self._table = pq.ParquetFile(self._file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        groups = [self._table.metadata.row_group(n).num_rows for n in range(self._table.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(groups)])
        first = int(np.searchsorted(starts, start, side="right")) - 1
        names = set(self._table.schema_arrow.names)
        prompt = next(name for name in PROMPTS if name in names)
        self._columns = {"prompt": prompt} | {name: name for name in (*NEEDED, "id") if name in names}
        self._rows = self._read(range(first, len(groups)), start - int(starts[first]))

    def take(self, count: int) -> Iterator[dict[str, Any]]:
        """The next rows."""
        for _ in range(count):
            try:
                row = next(self._rows)
            except (OSError, pa.ArrowException) as error:
                if isinstance(error, StoreError):
                    raise
                raise NaturelmError(
                    f"{self._path}: cannot be read ({one_line(str(error))}); fetch the shard again"
                ) from None
            self.position += 1
            yield row

    def close(self) -> None:
        self._file.close()

    def _read(self, groups: Sequence[int], skipped: int) -> Iterator[dict[str, Any]]:
        for batch in self._table.iter_batches(
            _BATCH_ROWS, row_groups=list(groups), columns=list(set(self._columns.values()))
        ):
            if skipped >= len(batch):
                skipped -= len(batch)
                continue
            texts = {
                name: batch.column(column).to_pylist()
                for name, column in self._columns.items()
                if name != "audio"
            }
            sounds = batch.column("audio")
            for number in range(skipped, len(batch)):
                sound = sounds[number].values
                yield {
                    "audio": () if sound is None else sound.to_numpy(zero_copy_only=False),
                    **{name: values[number] for name, values in texts.items()},
                }
            skipped = 0


def find_shards(places: Iterable[str]) -> list[str]:
    """All Parquet files that places name, or that lie in and below them, in order.

    Raises
    ------
    NaturelmError
        There are none in one of them.
    """
    shards: list[str] = []
    for text in places:
        place = location(text)
        files = [place] if place.is_file() else [file.location for file in list_files(place, recursive=True)]
        found = [str(file) for file in files if file.suffix == ".parquet"]
        if not found:
            raise NaturelmError(f"{text}: contains no .parquet files; give data.shards directories of shards")
        shards += found
    return shards


def open_shards(
    places: Iterable[str], seed: int, buffer_rows: int, longest_s: float, random_piece: bool
) -> ShardRows:
    """Find shards and read how many rows each has; the parameters are those of `ShardRows`.

    Raises
    ------
    NaturelmError
        One is not Parquet or lacks a column, or they have no rows.
    """
    paths = find_shards(places)
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        counts = list(pool.map(_count_rows, paths))
    if not sum(counts):
        raise NaturelmError(f"{', '.join(places)}: contains no rows; give data.shards with some")
    return ShardRows(paths, counts, seed, buffer_rows, longest_s, random_piece)


def _count_rows(path: str) -> int:
    try:
        with location(path).open("rb") as file:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            rows = int(table.metadata.num_rows)
    except StoreError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise NaturelmError(
            f"{path}: not a Parquet file ({one_line(str(error))}); fetch the shard again"
        ) from None
    missing = [name for name in NEEDED if name not in names]
    if not set(PROMPTS) & set(names):
        missing.append(PROMPTS[0])
    if missing:
        raise NaturelmError(
            f"{path}: has no column {', '.join(missing)}; a shard has audio, metadata, instruction_text, output and "
            f"task, and this one {', '.join(names)}"
        )
    kind = table.schema_arrow.field("audio").type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_floating(
        kind.value_type
    ):
        raise NaturelmError(f"{path}: audio is {kind}; give a list of floating-point samples")
    return rows


def _sample_rate(metadata: Any) -> float:
    try:
        values = json.loads(metadata) if isinstance(metadata, str) else metadata
        rate_hz = float(values["sample_rate"])
    except (TypeError, ValueError, KeyError):
        raise ValueError("metadata has no sample_rate") from None
    if not 1 <= rate_hz < math.inf:
        raise ValueError(f"sample_rate is {rate_hz:g}")
    return rate_hz


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values[name]
    text = value.replace(SOUND_MARK, "").strip() if isinstance(value, str) else ""
    if not text:
        raise ValueError(f"{name} is missing or empty")
    return text
