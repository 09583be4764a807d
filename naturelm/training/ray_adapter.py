"""Training on Ray Train: one process per GPU, replaced when it dies. The only module of training with Ray.

What a run needs to resume is in its own storage, so Ray Train keeps no checkpoints: a group of workers that is
restarted, in the same run or a resumed one, begins at the last complete checkpoint like any other.
"""

from __future__ import annotations

import functools
import logging
import math
import pickle
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.train
import torch
from ray.data import ExecutionResources
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from naturelm.errors import NaturelmError
from naturelm.machine import usable_cores
from naturelm.ray_cluster import connected_ray
from naturelm.storage import StorePath
from naturelm.training.batches import Shares, held_out_batches
from naturelm.training.data import Loaded, Stream
from naturelm.training.display import TrainProgress
from naturelm.training.settings import TrainConfig
from naturelm.training.store import RunStore

_LOOK_EVERY_S = 2.0
# A dataset of so many steps at once: 1.6 million are never listed. Few steps a task keep them coming in small lots.
_STEPS_PER_DATASET = 4096
_STEPS_PER_TASK = 4
_STEPS_AHEAD = 4
# On CPUs the workers leave cores to the tasks that load.
_WORKER_CPUS = {"cpu": 0.5, "gpu": 1.0}
_LOAD_CPUS = {"cpu": 0.5, "gpu": 1.0}


def train_on_ray(
    config: TrainConfig, stream: Stream, held_out: Stream | None, progress: TrainProgress
) -> None:
    """Train with `config.run.workers` workers, by default one per GPU of the cluster, or one.

    Raises
    ------
    NaturelmError
        The cluster cannot be reached or is too small, training stopped, or workers were lost too often.
    """
    with connected_ray(config.run.address):
        store = RunStore(config.run.storage)
        follower = _MetricsFollower(store, progress)
        try:
            trainer = _trainer(config, stream, held_out, store)
            follower.start()
            result = trainer.fit()
            stopped = (result.metrics or {}).get("stopped")
            if stopped:
                raise NaturelmError(stopped)
        except ray.train.TrainingFailedError as error:
            raise _one_sentence(error) from error
        finally:
            follower.stop()


def _trainer(config: TrainConfig, stream: Stream, held_out: Stream | None, store: RunStore) -> TorchTrainer:
    workers = _workers(config)
    device = "gpu" if ray.cluster_resources().get("GPU", 0) else "cpu"
    return TorchTrainer(
        _train_on_worker,
        train_loop_config={
            "config": config,
            # In lists, so that Ray passes the references and not the objects.
            "streams": [ray.put(stream), ray.put(held_out)],
            "load_cpus": _LOAD_CPUS[device],
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=device == "gpu",
            resources_per_worker={"CPU": _WORKER_CPUS[device]} | ({"GPU": 1} if device == "gpu" else {}),
        ),
        run_config=RunConfig(
            # A new name, so that Ray Train resumes nothing that an earlier run left.
            name=uuid.uuid4().hex,
            **_ray_storage(store),
            failure_config=FailureConfig(max_failures=config.run.max_failures),
        ),
    )


def _workers(config: TrainConfig) -> int:
    """How many workers, refused where they cannot share the batch evenly or the cluster is too small."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    workers = config.run.workers or gpus or 1
    if config.optimisation.batch % workers:
        raise NaturelmError(
            f"optimisation.batch is {config.optimisation.batch}, which {workers} workers cannot share evenly; give "
            "--workers a number that divides it"
        )
    most = gpus or int(resources.get("CPU", 1) / _WORKER_CPUS["cpu"])
    if workers > most:
        raise NaturelmError(
            f"{workers} workers are more than the {most} that this cluster can run; give fewer --workers"
        )
    return workers


def _train_on_worker(settings: dict[str, Any]) -> None:
    # Imported here: the loading tasks import this module too, and need no model.
    from naturelm.training.loop import Hooks, train
    from naturelm.training.sharding import shard
    from naturelm.training.step import TrainingStopped, Worker

    config: TrainConfig = settings["config"]
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), get_device())
    if worker.device.type == "cpu":
        torch.set_num_threads(max(1, usable_cores() // worker.world))
    _quiet_data(worker.world)
    stream_ref, held_out_ref = settings["streams"]
    held_out = ray.get(held_out_ref)
    load = functools.partial(
        _load_steps,
        stream_ref,
        config.optimisation.batch,
        worker.rank,
        worker.world,
        settings["load_cpus"],
    )
    hooks = Hooks(
        shard=shard if config.run.shard else None,
        # Informs Ray Train of each checkpoint, and that the workers are alive.
        saved=lambda step: ray.train.report({"step": step}),
    )
    try:
        train(
            config,
            worker,
            load,
            (lambda: held_out_batches(held_out, config, worker.rank, worker.world)) if held_out else None,
            hooks,
        )
    except TrainingStopped as error:
        # If it were raised, the workers would be restarted, only to stop at the same batch.
        ray.train.report({"stopped": str(error)})


def _load_steps(
    stream_ref: ray.ObjectRef, batch: int, rank: int, world: int, cpus: float, first: int, last: int
) -> Iterator[Sequence[Loaded]]:
    """This worker's share of each step, in order, loaded by CPU tasks wherever there are cores."""
    for start in range(first, last, _STEPS_PER_DATASET):
        steps = min(_STEPS_PER_DATASET, last - start)
        dataset = ray.data.range(steps, override_num_blocks=math.ceil(steps / _STEPS_PER_TASK)).map_batches(
            _load,
            fn_kwargs={
                "start": start,
                "stream": [stream_ref],
                "batch": batch,
                "rank": rank,
                "world": world,
            },
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=cpus,
        )
        for row in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=_STEPS_AHEAD):
            yield pickle.loads(row["examples"][0].as_buffer())


def _load(
    rows: pa.Table, start: int, stream: list[ray.ObjectRef], batch: int, rank: int, world: int
) -> pa.Table:
    shares = Shares(_stream(stream[0]), batch, rank, world)
    loaded = [pickle.dumps(shares[start + step], protocol=5) for step in rows["id"].to_pylist()]
    return pa.table({"examples": pa.array(loaded, pa.large_binary())})


@functools.lru_cache(maxsize=2)
def _stream(reference: ray.ObjectRef) -> Stream:
    """Fetched once for each of Ray's processes: a manifest may have millions of rows."""
    return ray.get(reference)


def _quiet_data(world: int) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Steps must come in order; each worker loads with its part of the cores.
    context.execution_options.preserve_order = True
    cores = ray.cluster_resources().get("CPU", 1.0)
    context.execution_options.resource_limits = ExecutionResources(cpu=max(1.0, cores / world))
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _ray_storage(store: RunStore) -> dict[str, Any]:
    """Where Ray Train stores its state during a run: within the run's storage."""
    place = store.root / "ray"
    if isinstance(place, StorePath):
        return {"storage_path": place.key, "storage_filesystem": place.filesystem}
    return {"storage_path": str(place.absolute())}


def _one_sentence(error: ray.train.TrainingFailedError) -> NaturelmError:
    for failure in getattr(error, "worker_failures", {}).values():
        if isinstance(failure, NaturelmError):
            return failure
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return NaturelmError(
        f"training stopped ({lines[-1].strip() if lines else type(error).__name__}); the last checkpoint is "
        "kept: continue with --resume"
    )


class _MetricsFollower:
    """Shows the rows that the workers write to the run's metrics, wherever they run."""

    def __init__(self, store: RunStore, progress: TrainProgress) -> None:
        self._store, self._progress = store, progress
        self._last = store.latest() or 0
        # Rows already shown of the last step: training and evaluation write one each.
        self._shown: set[tuple[str, ...]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            rows = list(self._store.metrics(after=self._last - 1))
        except OSError:
            return  # replaced just now; the next look finds it
        for row in rows:
            if row["step"] > self._last:
                self._last, self._shown = row["step"], set()
            if row["step"] == self._last and tuple(row) not in self._shown:
                self._shown.add(tuple(row))
                self._progress.row(row)
