"""A run on one worker: steps, metrics, evaluations and checkpoints, from the last checkpoint to the last step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from naturelm.training.data import Loaded
from naturelm.training.held_out import measure_held_out
from naturelm.training.initial_model import checkpoint_activations, make_model
from naturelm.training.metrics_log import MetricsLog
from naturelm.training.objective import Objective
from naturelm.training.settings import TrainConfig
from naturelm.training.step import Trainer, Worker
from naturelm.training.store import RunState, RunStore, config_hash

# From step and to step -> this worker's share of each of their batches.
LoadSteps = Callable[[int, int], Iterator[Sequence[Loaded]]]
# This worker's share of the held-out examples, in batches, and whether each counts.
LoadHeldOut = Callable[[], Iterable[tuple[Sequence[Loaded], bool]]]


@dataclass
class Hooks:
    """What the environment adds to a run, such as Ray.

    Attributes
    ----------
    shard : callable
        Shards the objective over the workers, in place.
    saved : callable
        Called after each checkpoint and at the end.
    log : callable
        Called with each row of the metrics.
    """

    shard: Callable[[Objective], None] | None = None
    saved: Callable[[int], None] | None = None
    log: Callable[[dict[str, Any]], None] | None = None


def train(
    config: TrainConfig,
    worker: Worker,
    load_steps: LoadSteps,
    load_held_out: LoadHeldOut | None,
    hooks: Hooks,
) -> None:
    """Train from the last complete checkpoint in the run's storage to the last step.

    Raises
    ------
    NaturelmError
        Weights do not fit, or the loss was not finite three times in a row.
    """
    store = RunStore(config.run.storage)
    trainer = make_trainer(config, worker, hooks)
    done, best = _restore(trainer, store)
    log = MetricsLog(store, done, hooks.log) if worker.rank == 0 else None
    window: list[dict[str, float]] = []
    began = time.monotonic()
    try:
        batches = load_steps(done, config.optimisation.steps)
        for number, examples in enumerate(batches, start=done):
            result = trainer.step(number, examples)
            step = number + 1
            window.append(vars(result))
            last = step == config.optimisation.steps
            if log and (step % config.run.log_every == 0 or last):
                seconds, began = time.monotonic() - began, time.monotonic()
                log.add(_row(step, window, seconds, trainer.skipped))
            if step % config.run.log_every == 0:
                window = []
            measured: dict[str, float] = {}
            if load_held_out and (step % config.evaluation.every_steps == 0 or last):
                held_out = measure_held_out(trainer, load_held_out(), config)
                measured = held_out.figures()
                if log:
                    log.add({"step": step} | {f"held_out_{name}": value for name, value in measured.items()})
                    store.write_held_out(step, held_out.by_label())
            better = _is_better(config.run.best_by, measured, best)
            if better:
                best = {"step": step, "value": measured[config.run.best_by]}
            stalled = bool(measured) and _stalled(config, step, best)
            if better or last or stalled or step % config.run.checkpoint_every == 0:
                state = RunState(
                    step,
                    config.seed,
                    config_hash(config),
                    trainer.skipped,
                    trainer.skipped_in_a_row,
                    measured,
                    best,
                )
                weights, moments = trainer.weights(), trainer.moments()
                if log:
                    log.flush()
                    store.save(state, weights, moments, config.run.keep)
                    log.next_part(step)
                if hooks.saved:
                    hooks.saved(step)
            if stalled:
                break
    finally:
        if log:
            log.close()


def make_trainer(config: TrainConfig, worker: Worker, hooks: Hooks) -> Trainer:
    """Model, auxiliary layers and optimizer on a worker, as a run starts."""
    model = make_model(config.model, config.seed, worker.device)
    objective = Objective(model, config.auxiliary.labels if config.auxiliary else ())
    if config.run.activation_checkpointing:
        checkpoint_activations(model)
    if hooks.shard:
        hooks.shard(objective)
    return Trainer(config, objective, worker)


def _restore(trainer: Trainer, store: RunStore) -> tuple[int, dict[str, float]]:
    step = store.latest()
    if step is None:
        return 0, {}
    state = store.state(step)
    trainer.restore(store.weights(step), store.moments(step), f"{store.storage}, step {step}")
    trainer.skipped, trainer.skipped_in_a_row = state.skipped, state.skipped_in_a_row
    return step, state.best


def has_stalled(config: TrainConfig, state: RunState) -> bool:
    """Whether a run has ended early at this checkpoint, by `run.patience`."""
    return bool(state.metrics) and _stalled(config, state.step, state.best)


def _stalled(config: TrainConfig, step: int, best: dict[str, float]) -> bool:
    patience = config.run.patience
    return patience is not None and step - best.get("step", 0) >= patience * config.evaluation.every_steps


def _is_better(measure: str, measured: dict[str, float], best: dict[str, float]) -> bool:
    value = measured.get(measure)
    if value is None or not math.isfinite(value):
        return False
    lower = measure.partition(":")[0] == "loss"
    return not best or (value < best["value"] if lower else value > best["value"])


def _row(step: int, window: Sequence[dict[str, float]], seconds: float, skipped: int) -> dict[str, Any]:
    """Means over the steps since the last row; figures that none of them has are left out."""
    row: dict[str, Any] = {"step": step}
    for name in ("loss", "words", "auxiliary", "token_accuracy", "learning_rate", "gradient_norm"):
        values = [entry[name] for entry in window if math.isfinite(entry[name])]
        if values:
            row[name] = sum(values) / len(values)
    row["tokens_per_s"] = sum(entry["tokens"] for entry in window) / seconds
    row["seconds_per_step"] = seconds / len(window)
    row["skipped"] = skipped
    return row
