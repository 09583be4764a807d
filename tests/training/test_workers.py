"""Several workers compute what one does, each with the whole model or with a part of it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from naturelm.training.batches import Shares, held_out_batches, load_in_process
from naturelm.training.held_out import measure_held_out
from naturelm.training.loop import Hooks, make_trainer
from naturelm.training.run import streams
from naturelm.training.sharding import shard
from naturelm.training.step import Worker
from tests.paths import REPO
from tests.training.runs import config

STEPS = 4
AUXILIARY = {"labels": ["Owl", "Frog", "Bat"], "steps": 3, "alone_steps": 1}


def work(worker: Worker, shape: Path, manifest: Path, out: Path, sharded: bool) -> None:
    """Train a few steps on this worker, continue from its state in a fresh one, evaluate, and record all results."""
    values = config(
        shape,
        manifest,
        out,
        optimisation={"steps": STEPS, "micro_batch": 1},
        auxiliary=AUXILIARY,
        evaluation={"manifests": [str(manifest)], "examples": 5, "max_new_tokens": 3},
        # A frozen LLM, as in the published stages.
        model={"trainable": ["beats", "qformer", "projection", "lora"]},
    )
    stream, held_out = streams(values)
    assert held_out is not None
    shares = Shares(stream, values.optimisation.batch, worker.rank, worker.world)
    hooks = Hooks(shard=shard if sharded else None)
    trainer = make_trainer(values, worker, hooks)
    results = []
    for number, examples in enumerate(load_in_process(shares, 0, STEPS, 0)):
        if number == STEPS // 2:
            weights, moments = trainer.weights(), trainer.moments()
            trainer = make_trainer(values, worker, hooks)
            trainer.restore(weights, moments, "memory")
        results.append(dataclasses.asdict(trainer.step(number, examples)))
    measured = measure_held_out(
        trainer, held_out_batches(held_out, values, worker.rank, worker.world), values
    )
    weights = trainer.weights()
    if worker.rank == 0:
        total = {name: tensor.double().abs().sum().item() for name, tensor in weights.items()}
        out.write_text(json.dumps({"steps": results, "held_out": measured.figures(), "weights": total}))


def main(rank: int, port: int, shape: Path, manifest: Path, out: Path) -> None:
    """One of two processes: first each with the whole model, then each with its part."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    worker = Worker(rank, 2)
    work(worker, shape, manifest, out / "whole.json", sharded=False)
    work(worker, shape, manifest, out / "sharded.json", sharded=True)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def done(shape, manifest, tmp_path_factory) -> dict[str, dict]:
    """What one worker notes, and what two note."""
    out = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.training.test_workers",
                *map(str, (rank, port, shape, manifest, out)),
            ],
            cwd=REPO,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    work(Worker(), shape, manifest, out / "one.json", sharded=False)
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


@pytest.mark.parametrize("kind", ["whole", "sharded"])
def test_two_workers_give_the_losses_of_one(done, kind):
    for two, one in zip(done[kind]["steps"], done["one"]["steps"], strict=True):
        for name in ("loss", "token_accuracy", "gradient_norm", "tokens"):
            assert two[name] == pytest.approx(one[name], abs=1e-4, nan_ok=True), name


@pytest.mark.parametrize("kind", ["whole", "sharded"])
def test_two_workers_end_with_the_weights_of_one(done, kind):
    # With one query per window the Q-Former's own attention has no gradient but rounding, which AdamW amplifies.
    assert done[kind]["weights"] == pytest.approx(done["one"]["weights"], rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("kind", ["whole", "sharded"])
def test_two_workers_measure_what_one_does(done, kind):
    assert done[kind]["held_out"] == pytest.approx(done["one"]["held_out"], abs=1e-4)


if __name__ == "__main__":
    rank, port, *paths = sys.argv[1:]
    main(int(rank), int(port), *map(Path, paths))
