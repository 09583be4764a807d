"""Batches of loaded examples in this process, prepared ahead by other processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from naturelm.training.data import Loaded, Stream
from naturelm.training.settings import TrainConfig

_STEPS_AHEAD = 4


class Shares(Dataset):
    """A worker's share of each step's batch; its contents depend on seed, step and place in the batch alone.

    Parameters
    ----------
    stream
        Where examples come from.
    batch
        Examples of a step, over all workers.
    rank, world
        This worker's number among how many.
    """

    def __init__(self, stream: Stream, batch: int, rank: int = 0, world: int = 1) -> None:
        self._stream, self._batch = stream, batch
        # Every so many places, as shards are read in lanes: each worker then reads some of them, and not all.
        self._places = slice(rank, None, world)

    def __getitem__(self, step: int) -> list[Loaded]:
        return [self._stream.load(spec) for spec in self._stream.specs(step, self._batch)[self._places]]


def load_in_process(shares: Shares, first: int, last: int, processes: int) -> Iterator[list[Loaded]]:
    """Shares of the steps from `first` up to `last`, in order, loaded ahead by `processes`, or on request with 0."""
    loader = DataLoader(
        shares,
        batch_size=None,
        sampler=range(first, last),
        num_workers=processes,
        prefetch_factor=_STEPS_AHEAD if processes else None,
        collate_fn=_unchanged,
        worker_init_fn=_one_thread,
    )
    yield from loader


def held_out_batches(
    stream: Stream, config: TrainConfig, rank: int = 0, world: int = 1
) -> Iterator[tuple[list[Loaded], bool]]:
    """A worker's share of the held-out examples, the same at every evaluation, in batches, and whether each counts.

    Every worker gets as many batches, since sharded weights are gathered only while all of them compute; one that has
    no examples left gets the first again, which does not count.
    """
    specs = stream.specs(0, min(config.evaluation.examples, len(stream)))
    size = config.optimisation.micro_batch or max(1, config.optimisation.batch // world)
    for start in range(0, len(specs), size * world):
        own = specs[start + rank * size : start + (rank + 1) * size]
        yield [stream.load(spec) for spec in own or specs[:1]], bool(own)


def _unchanged(item: list[Loaded]) -> list[Loaded]:
    return item


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
