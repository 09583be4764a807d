"""The job on Ray Data: CPU tasks decode, model actors answer. The only module of the pipeline with Ray.

Ray Data schedules, moves blocks between nodes and replaces what dies; committing stays with the driver.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import ray
import ray.data

from naturelm.config import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.pipeline.plan import Read
from naturelm.pipeline.rows import AnsweredSegment
from naturelm.pipeline.stages import Ask, Decode

# Reads are small to describe and long to do: many a task keeps Ray's overhead per read low.
_READS_PER_TASK = 16
_BLOCK_BYTES = 32 << 20
_WINDOWS_PER_CALL = {"cpu": 64, "gpu": 512}
_MAX_SEGMENTS_PER_CALL = 64
# On CPUs, one model actor per core leaves a quarter of it for decoding, which needs less. The shares must
# differ: Ray Data fuses neighbouring stages of equal resources, and decoding would then hold up the model.
_ACTOR_CPUS = 0.75
_DECODE_CPUS = {"cpu": 0.25, "gpu": 1.0}
# What a model actor on a CPU takes, libraries and all: as many start as fit.
_CPU_ACTOR_BYTES = 2 << 30
_KNOCK_S = 10


def answer_on_ray(reads: Sequence[Read], config: ArchiveConfig) -> Iterator[AnsweredSegment]:
    """Decode and answer on Ray; segments come as they are done, in no order.

    Joins a Ray that this process has already started, or `config.job.address`, or starts a local one
    and stops it at the end.

    Raises
    ------
    NaturelmError
        The cluster cannot be reached, or the model cannot be loaded.
    """
    started = not ray.is_initialized()
    if started:
        _start(config.job.address)
    try:
        for batch in _dataset(reads, config).iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for item in batch["answered"].to_pylist():
                answered = pickle.loads(item)
                if isinstance(answered, NaturelmError):
                    raise answered
                yield answered
    finally:
        if started:
            ray.shutdown()


def _start(address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with _silenced():
            ray.init(
                # Not "auto": a stale record of an earlier cluster must not be joined.
                address="local",
                num_cpus=_cores(),
                include_dashboard=False,
                object_store_memory=min(8 << 30, max(128 << 20, memory_bytes // 8)),
                **quiet,
            )
        return
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NaturelmError(
            f"{address}: no Ray cluster answers there ({reason}); check --address or leave it out"
        ) from None


def _knock(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would go on trying for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep Ray's core from writing to the terminal about every actor pool, and about being kept from it.

    It writes past Python; what goes wrong still comes as an exception.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def _dataset(reads: Sequence[Read], config: ArchiveConfig) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = _BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    gpus = int(ray.cluster_resources().get("GPU", 0))
    segments = sum(len(read.segments) for read in reads)
    workers = min(segments, config.job.workers or gpus or _cpu_workers())
    windows = sum(segment.window_count for read in reads for segment in read.segments)
    device = "gpu" if gpus else "cpu"
    per_call = config.job.batch_size or _WINDOWS_PER_CALL[device]
    blocks = min(len(reads), max(len(reads) // _READS_PER_TASK, 2 * workers))
    return (
        ray.data.from_items([{"read": pickle.dumps(read)} for read in reads], override_num_blocks=blocks)
        .map_batches(
            _decode,
            fn_kwargs={"config": config},
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=_DECODE_CPUS[device],
        )
        .map_batches(
            _AskActor,
            fn_constructor_kwargs={
                "config": config,
                "threads": None if gpus else max(1, _cores() // workers),
            },
            batch_size=max(1, min(_MAX_SEGMENTS_PER_CALL, per_call * segments // max(1, windows))),
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=_ACTOR_CPUS,
            num_gpus=min(1.0, gpus / workers) if gpus else 0,
        )
    )


def _decode(batch: pa.Table, config: ArchiveConfig) -> Iterator[pa.Table]:
    for item in batch["read"].to_pylist():
        for decoded in _decoder(config)(pickle.loads(item)):
            yield pa.table({"decoded": pa.array([pickle.dumps(decoded)], pa.large_binary())})


@functools.lru_cache(maxsize=1)
def _decoder(config: ArchiveConfig) -> Decode:
    """One decoder process for each Ray worker process."""
    return Decode(config)


class _AskActor:
    def __init__(self, config: ArchiveConfig, threads: int | None) -> None:
        self._failure: NaturelmError | None = None
        try:
            self._ask = Ask(config, threads)
        except NaturelmError as error:
            # Raised here, Ray would start the actor again for ever; handed on, the driver tells the user.
            self._failure = error

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._failure is not None:
            done: list[object] = [self._failure]
        else:
            done = [*self._ask([pickle.loads(item) for item in batch["decoded"].to_pylist()])]
        return pa.table({"answered": pa.array([pickle.dumps(item) for item in done], pa.large_binary())})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_workers() -> int:
    """One actor of one thread per core: threads within an actor wait for each other, actors do not."""
    resources = ray.cluster_resources()
    fitting = int(resources.get("memory", 0) // _CPU_ACTOR_BYTES)
    return max(1, min(int(resources.get("CPU", 1)), fitting))
