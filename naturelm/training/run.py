"""A training run from its configuration: checks before anything starts, then this process or Ray."""

from __future__ import annotations

import torch

from naturelm.errors import NaturelmError
from naturelm.models.config import LanguageModelConfig
from naturelm.training.batches import Shares, held_out_batches, load_in_process
from naturelm.training.data import Stream, read_examples
from naturelm.training.display import TrainProgress
from naturelm.training.initial_model import check_start
from naturelm.training.loop import Hooks, has_stalled, train
from naturelm.training.settings import TrainConfig
from naturelm.training.shards import open_shards
from naturelm.training.step import Worker
from naturelm.training.store import RunStore
from naturelm.training.tasks import is_detection, is_naming


def run_training(config: TrainConfig, resume: bool, progress: TrainProgress) -> int:
    """Train as configured; returns the steps done by this call.

    Raises
    ------
    NaturelmError
        A manifest, checkpoint or setting cannot be used, the storage contains another run, or training stopped.
    """
    _check(config)
    stream, held_out = streams(config)
    if held_out:
        _check_best_by(config, held_out)
    _check_window(config, check_start(config.model))
    store = RunStore(config.run.storage)
    done = store.begin(config, resume)
    todo = config.optimisation.steps - done
    if todo <= 0:
        progress.report(f"nothing to do: all {done} steps are in {config.run.storage} already")
        return 0
    if done and has_stalled(config, store.state(done)):
        progress.report(f"nothing to do: {config.run.storage} ended early at step {done}, by run.patience")
        return 0
    progress.start(config.optimisation.steps, done, len(stream), len(held_out) if held_out else 0)
    try:
        if not config.run.ray:
            _train_here(config, stream, held_out, progress)
        else:
            from naturelm.training.ray_adapter import train_on_ray

            train_on_ray(config, stream, held_out, progress)
    finally:
        progress.stop()
    last = store.latest()
    ended = last is not None and (last == config.optimisation.steps or has_stalled(config, store.state(last)))
    if last is None or not ended:
        raise NaturelmError(
            f"{config.run.storage}: the run has ended without a checkpoint of its last step; make sure that all "
            "workers reach this directory, then continue with --resume"
        )
    if last < config.optimisation.steps:
        progress.report(
            f"ended early at step {last}: {config.run.best_by} was best at step {store.state(last).best['step']:.0f}"
        )
    return last - done


def _check(config: TrainConfig) -> None:
    """Raise NaturelmError where settings contradict each other."""
    workers = config.run.workers or 1
    if config.optimisation.batch % workers:
        raise NaturelmError(
            f"optimisation.batch is {config.optimisation.batch}, which {workers} workers cannot share evenly; give a "
            f"multiple of {workers}"
        )


def _check_best_by(config: TrainConfig, held_out: Stream) -> None:
    """Raise NaturelmError where the held-out examples do not give the figure that the best checkpoint is chosen by."""
    name, _, task = config.run.best_by.partition(":")
    tasks = held_out.task_names(min(config.evaluation.examples, len(held_out)))
    if task and task not in tasks:
        raise NaturelmError(
            f"run.best_by is {config.run.best_by!r}, but no held-out example has that task; they have "
            f"{', '.join(sorted(tasks))}"
        )
    with_labels = {
        task for task in tasks if is_detection(task) or (is_naming(task) and config.run.best_by != "f1")
    }
    if name == "f1" and not with_labels & ({task} if task else tasks):
        raise NaturelmError(
            f"run.best_by is {config.run.best_by!r}, but there are no labels in the held-out answers "
            f"({', '.join(sorted(tasks))}); give exact or loss"
        )


def _check_window(config: TrainConfig, model: LanguageModelConfig) -> None:
    if config.data.window_s != model.window_s:
        raise NaturelmError(
            f"data.window_s is {config.data.window_s:g}, but the model's window is {model.window_s:g} s; give that"
        )


def streams(config: TrainConfig) -> tuple[Stream, Stream | None]:
    """Examples to train on, and held-out ones, which are not augmented; None without any.

    Raises
    ------
    NaturelmError
        A manifest is missing or has no valid rows.
    """
    data = config.data
    shards = None
    if data.shards:
        longest_s = data.window_s * (data.time_scale if data.time_scale_probability else 1.0)
        shards = open_shards(data.shards, config.seed, data.shuffle_rows, longest_s, data.crop == "random")
    stream = Stream(read_examples(data.manifests, data), data, config.seed, shards)
    manifests = config.evaluation.manifests
    if not manifests:
        return stream, None
    # One question each: an example with several has the task of the first only.
    settings = data.without_augmentation().model_copy(update={"questions_per_example": 1})
    return stream, Stream(read_examples(manifests, data), settings, config.seed)


def _train_here(
    config: TrainConfig, stream: Stream, held_out: Stream | None, progress: TrainProgress
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shares = Shares(stream, config.optimisation.batch)
    train(
        config,
        Worker(device=device),
        lambda first, last: load_in_process(shares, first, last, config.run.loaders),
        (lambda: held_out_batches(held_out, config)) if held_out else None,
        Hooks(log=progress.row),
    )
