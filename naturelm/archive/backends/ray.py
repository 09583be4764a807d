"""The job on Ray Data: CPU tasks decode, model actors answer.

Ray Data schedules, moves blocks between nodes and replaces what dies; committing stays with the driver.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from naturelm.archive.attempts import (
    ATTEMPTS,
    CarefulAsk,
    DeviceLostError,
    MakeAsk,
    Register,
    Registered,
    decode_carefully,
)
from naturelm.archive.backends.ray_metrics import Metrics, QueueWatch, watch_queues
from naturelm.archive.fitting import workers_here
from naturelm.archive.progress import Progress
from naturelm.archive.stages import Ask, Decode
from naturelm.archive.stopping import Stop
from naturelm.config.archive import ArchiveConfig
from naturelm.errors import NaturelmError, RunStopped
from naturelm.machine import usable_cores
from naturelm.ray_cluster import CONNECT_TIMEOUT_S, connected_ray
from naturelm.results.rows import AnsweredSegment
from naturelm.segments import Read

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
_WATCH_S = 0.5


def answer_on_ray(
    reads: Sequence[Read],
    config: ArchiveConfig,
    progress: Progress,
    stop: Stop,
    make_ask: MakeAsk = Ask,
) -> Iterator[AnsweredSegment]:
    """Decode and answer on Ray; segments come as they are done, in no order.

    What kills its worker three times is `crashed`. Once `stop` is asked nothing more begins, and what is in
    flight comes.

    Joins a Ray that this process has already started, or `config.job.address`, or starts a local one
    and stops it at the end.

    Raises
    ------
    NaturelmError
        The cluster cannot be reached, or the model cannot be loaded.
    RunStopped
        Ray itself failed.
    """
    with connected_ray(config.job.address):
        progress.show_queues(QueueWatch.depths)
        metrics = Metrics()
        metrics.show(progress)
        try:
            with _register(stop) as register:
                for batch in _dataset(reads, config, register, make_ask).iter_batches(
                    batch_size=None, batch_format="pyarrow", prefetch_batches=0
                ):
                    for item in batch["answered"].to_pylist() if batch.num_rows else ():
                        answered = pickle.loads(item)
                        if isinstance(answered, Exception):
                            raise answered
                        yield answered
                    metrics.show(progress)
        except ray.exceptions.RayTaskError:
            # A defect of this program: reported with its whole traceback.
            raise
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise RunStopped(
                f"Ray failed ({reason}); what was done is kept: run the same command again"
            ) from error


class _RemoteRegister:
    """A `Register` in a process of its own, asked from workers."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def earlier(self, keys: Sequence[str]) -> list[int] | None:
        known: list[int] | None = ray.get(self._actor.earlier.remote(keys))
        return known

    def begin(self, keys: Sequence[str]) -> list[int] | None:
        earlier: list[int] | None = ray.get(self._actor.begin.remote(keys))
        return earlier

    def end(self, keys: Sequence[str]) -> None:
        self._actor.end.remote(keys)


@contextmanager
def _register(stop: Stop) -> Iterator[_RemoteRegister]:
    """A register that tells the workers when the run is to end."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = (
        ray.remote(Register)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        .remote()
    )
    over = threading.Event()

    def watch() -> None:
        longest_s = 0.0
        # Told again and again: a register that was started anew knows nothing.
        while not over.wait(_WATCH_S):
            with suppress(ray.exceptions.RayError):
                if stop.asked(longest_s):
                    ray.get(actor.stop.remote(), timeout=CONNECT_TIMEOUT_S)
                longest_s = ray.get(actor.longest_s.remote(), timeout=CONNECT_TIMEOUT_S)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield _RemoteRegister(actor)
    finally:
        over.set()
        watcher.join()
        ray.kill(actor)


def _dataset(
    reads: Sequence[Read], config: ArchiveConfig, register: _RemoteRegister, make_ask: MakeAsk
) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = _BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    watch_queues(context)
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    gpus = int(ray.cluster_resources().get("GPU", 0))
    gpu_share = config.job.gpus_per_worker
    device = "gpu" if gpus or gpu_share else "cpu"
    segments = sum(len(read.segments) for read in reads)
    now = config.job.workers or (int(gpus / (gpu_share or 1)) if device == "gpu" else _cpu_workers(config))
    now = max(1, min(segments, now))
    most = max(now, min(segments, config.job.max_workers or now))
    windows = sum(segment.window_count for read in reads for segment in read.segments)
    per_call = config.job.batch_size or _WINDOWS_PER_CALL[device]
    blocks = min(len(reads), max(len(reads) // _READS_PER_TASK, 2 * most))
    return (
        ray.data.from_items([{"read": pickle.dumps(read)} for read in reads], override_num_blocks=blocks)
        .map_batches(
            _decode,
            fn_kwargs={"config": config, "register": register},
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=_DECODE_CPUS[device],
        )
        .map_batches(
            _AskActor,
            fn_constructor_kwargs={
                "config": config,
                "threads": None if device == "gpu" else max(1, usable_cores() // now),
                "register": register,
                "make_ask": make_ask,
            },
            batch_size=max(1, min(_MAX_SEGMENTS_PER_CALL, per_call * segments // max(1, windows))),
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=now)
            if most > now
            else ray.data.ActorPoolStrategy(size=now),
            num_cpus=_ACTOR_CPUS,
            num_gpus=(gpu_share or min(1.0, gpus / now)) if device == "gpu" else 0,
        )
    )


def _decode(batch: pa.Table, config: ArchiveConfig, register: Registered) -> Iterator[pa.Table]:
    for item in batch["read"].to_pylist():
        read: Read = pickle.loads(item)
        for decoded in decode_carefully(_decoder(config), read, register):
            yield pa.table({"decoded": pa.array([pickle.dumps(decoded)], pa.large_binary())})


@functools.lru_cache(maxsize=1)
def _decoder(config: ArchiveConfig) -> Decode:
    """One decoder process for each Ray worker process."""
    return Decode(config)


class _AskActor:
    def __init__(
        self, config: ArchiveConfig, threads: int | None, register: Registered, make_ask: MakeAsk
    ) -> None:
        self._failure: Exception | None = None
        # The same after a restart.
        start = f"start of {ray.get_runtime_context().get_actor_id()}"
        try:
            starts = register.begin([start])
            if starts is not None and starts[0] >= ATTEMPTS:
                raise RunStopped(
                    f"the model's process died {ATTEMPTS} times while it started; is there memory for it?"
                )
            self._ask = CarefulAsk(make_ask(config, threads), register)
        except (NaturelmError, RunStopped) as error:
            # Raised here, Ray would start the actor again for ever; handed on, the driver tells the user.
            self._failure = error
        except Exception as error:
            self._failure = RunStopped(f"the model cannot be loaded ({type(error).__name__}: {error})")
        register.end([start])

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._failure is not None:
            done: list[object] = [self._failure]
        else:
            try:
                done = [*self._ask([pickle.loads(item) for item in batch["decoded"].to_pylist()])]
            except DeviceLostError:
                # Ray starts a fresh process, which has the GPU again.
                os._exit(1)
        return pa.table({"answered": pa.array([pickle.dumps(item) for item in done], pa.large_binary())})


def _cpu_workers(config: ArchiveConfig) -> int:
    """One actor of one thread per core: threads within an actor wait for each other, actors do not."""
    resources = ray.cluster_resources()
    fitting = int(resources.get("memory", 0) // _CPU_ACTOR_BYTES)
    if config.job.address is None:
        fitting = min(fitting, workers_here(config.model))
    return max(1, min(int(resources.get("CPU", 1)), fitting))
