"""Runs in this process: the loss curve, resuming, what is kept, and exporting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from naturelm.errors import NaturelmError
from naturelm.models import NatureLM
from naturelm.storage import list_files, location, write_whole
from naturelm.training.display import TrainProgress
from naturelm.training.export import write_checkpoint
from naturelm.training.held_out import HeldOut
from naturelm.training.run import run_training
from naturelm.training.settings import parse
from naturelm.training.store import RunStore
from tests.paths import REPO
from tests.training.runs import QUESTION, config, losses, run, settings, write_config


@pytest.fixture(scope="session")
def undisturbed(shape, manifest, tmp_path_factory) -> Path:
    """A run of six steps from beginning to end."""
    storage = tmp_path_factory.mktemp("runs") / "undisturbed"
    run(config(shape, manifest, storage))
    return storage


class Interrupted(Exception):
    pass


class StopsAt(TrainProgress):
    """Interrupts the run when a step's metrics come."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._at = step

    def say(self, line: str) -> None:
        pass

    def row(self, row) -> None:
        if row["step"] == self._at:
            raise Interrupted


def same(curve: dict[int, float], other: dict[int, float]) -> None:
    assert curve.keys() == other.keys()
    assert list(curve.values()) == pytest.approx(list(other.values()), abs=1e-5)


def test_loss_falls(shape, manifest, tmp_path):
    run(config(shape, manifest, tmp_path / "run", optimisation={"steps": 30}))
    curve = losses(tmp_path / "run")
    assert sorted(curve) == list(range(1, 31))
    assert curve[30] < curve[1] - 1


@pytest.mark.parametrize("step", [1, 2, 5])
def test_interrupted_run_goes_on_as_if_nothing_had_happened(shape, manifest, undisturbed, tmp_path, step):
    values = config(shape, manifest, tmp_path / "run")
    with pytest.raises(Interrupted):
        run_training(values, False, StopsAt(step))
    run(values, resume=True)
    same(losses(tmp_path / "run"), losses(undisturbed))


def test_processes_that_load_ahead_change_nothing(shape, manifest, undisturbed, tmp_path):
    run(config(shape, manifest, tmp_path / "run", run={"loaders": 2}))
    same(losses(tmp_path / "run"), losses(undisturbed))


@pytest.mark.slow
def test_killed_process_is_resumed_at_the_exact_step(shape, manifest, tmp_path):
    """With SIGKILL, somewhere in a run of 60 steps, checkpoints every 7."""
    changes = {"optimisation": {"steps": 60}, "run": {"checkpoint_every": 7}}
    whole = tmp_path / "whole"
    run(config(shape, manifest, whole, **changes))
    values = settings(shape, manifest, tmp_path / "killed", **changes)
    path = write_config(tmp_path / "config.yaml", values)
    command = [sys.executable, "-m", "naturelm.cli", "train", str(path), "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=REPO, env=environment, stderr=subprocess.DEVNULL)
    store = RunStore(str(tmp_path / "killed"))
    while not store.latest():
        assert process.poll() is None, "ended before its first checkpoint"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < (store.latest() or 0) < 60
    run(config(shape, manifest, tmp_path / "killed", **changes), resume=True)
    same(losses(tmp_path / "killed"), losses(whole))


def test_checkpoint_that_was_never_finished_is_passed_over(shape, manifest, undisturbed, tmp_path):
    values = config(shape, manifest, tmp_path / "run")
    with pytest.raises(Interrupted):
        run_training(values, False, StopsAt(5))
    torn = tmp_path / "run/checkpoints/step-00000005"
    torn.mkdir()
    (torn / "trainable.safetensors").write_bytes(b"half")
    run(values, resume=True)
    same(losses(tmp_path / "run"), losses(undisturbed))
    assert not torn.exists()


@pytest.fixture
def contrary(manifest, tmp_path) -> Path:
    """The same sounds with answers that training makes less and less likely."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        row |= {"path": str(manifest.parent / row["path"]), "text": "9 8 7 6 5 9 8 7 6 5"}
    path = tmp_path / "contrary.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_last_checkpoints_and_the_best_are_kept(shape, manifest, contrary, tmp_path):
    storage = tmp_path / "run"
    evaluation = {"manifests": [str(contrary)], "every_steps": 2, "examples": 3, "generate": False}
    values = config(
        shape,
        manifest,
        storage,
        optimisation={"steps": 12, "peak_lr": 3e-2, "end_lr": 3e-2, "warmup_steps": 1},
        evaluation=evaluation,
        run={"checkpoint_every": 2, "keep": 2},
    )
    run(values)
    store = RunStore(str(storage))
    held_out = {row["step"]: row["held_out_loss"] for row in store.metrics() if "held_out_loss" in row}
    best = min(held_out, key=held_out.__getitem__)
    assert best < 10
    assert store.steps() == [best, 10, 12]
    assert store.state(12).best == {"step": best, "value": pytest.approx(held_out[best])}
    assert write_checkpoint(str(storage), tmp_path / "best", best=True) == best


def test_run_ends_early_when_evaluations_are_not_better(shape, manifest, contrary, tmp_path):
    storage = tmp_path / "run"
    evaluation = {"manifests": [str(contrary)], "every_steps": 2, "examples": 3, "max_new_tokens": 2}
    values = config(
        shape,
        manifest,
        storage,
        optimisation={"steps": 40, "peak_lr": 3e-2, "end_lr": 3e-2, "warmup_steps": 1},
        evaluation=evaluation,
        run={"checkpoint_every": 100, "best_by": "loss:common-detection", "patience": 2},
    )
    done = run(values)
    store = RunStore(str(storage))
    held_out = {row["step"]: row["held_out_loss"] for row in store.metrics() if "held_out_loss" in row}
    best = min(held_out, key=held_out.__getitem__)
    assert done == store.latest() == best + 4 < 40
    assert store.steps() == [best, best + 4]
    assert run(values, resume=True) == 0


def test_best_figure_that_is_never_measured_is_refused(shape, manifest, tmp_path):
    evaluation = {"manifests": [str(manifest)]}
    values = config(
        shape, manifest, tmp_path / "run", evaluation=evaluation, run={"best_by": "f1:sci-detection"}
    )
    with pytest.raises(NaturelmError, match="no held-out example has that task; they have common-detection"):
        run(values)
    assert not (tmp_path / "run").exists()


def test_figures_by_task_and_label_add_up():
    measured = HeldOut(correct=3, tokens=6)
    measured.add_loss("common-detection", 2.0, 4)
    measured.add_loss("caption", 4.0, 2)
    for text, answer in (("Owl, Frog", "owl"), ("None", "Frog"), ("Owl", "Owl.")):
        measured.add_answer("common-detection", text, answer)
    measured.add_answer("caption", "An owl calls.", "an owl  calls")
    figures = measured.figures()
    assert figures == pytest.approx(
        {
            "loss": 1.0,
            "token_accuracy": 0.5,
            "exact": 0.5,
            "f1": 2 / 3,
            "loss:caption": 2.0,
            "exact:caption": 1.0,
            "loss:common-detection": 0.5,
            "exact:common-detection": 1 / 3,
            "f1:common-detection": 2 / 3,
        }
    )
    rows = {row["label"]: row for row in measured.by_label()}
    assert rows["Owl"] | {"f1": 1.0} == rows["Owl"]
    assert (rows["Frog"]["hits"], rows["Frog"]["predicted"], rows["Frog"]["expected"]) == (0, 1, 1)


def test_evaluation_reports_answers_and_labels(shape, manifest, tmp_path):
    evaluation = {"manifests": [str(manifest)], "every_steps": 5, "examples": 5, "max_new_tokens": 6}
    run(config(shape, manifest, tmp_path / "run", optimisation={"steps": 1}, evaluation=evaluation))
    (row,) = [row for row in RunStore(str(tmp_path / "run")).metrics() if "held_out_loss" in row]
    assert row["step"] == 1
    assert {"held_out_token_accuracy", "held_out_exact", "held_out_f1"} <= row.keys()
    assert row["held_out_loss:common-detection"] == pytest.approx(row["held_out_loss"])
    labels = [json.loads(line) for line in (tmp_path / "run/held_out/step-00000001.jsonl").open()]
    assert sum(row["expected"] for row in labels) == 5


def test_finished_run_has_nothing_to_do(shape, manifest, undisturbed):
    assert run(config(shape, manifest, undisturbed), resume=True) == 0


def test_storage_with_a_run_is_refused_without_resume(shape, manifest, undisturbed):
    with pytest.raises(NaturelmError, match=r"already contains a run, 6 steps .* give --resume"):
        run(config(shape, manifest, undisturbed))


def test_run_with_other_settings_is_refused_and_they_are_named(shape, manifest, undisturbed):
    with pytest.raises(NaturelmError, match=r"optimisation\.batch \(4 there, 2 now\)"):
        run(config(shape, manifest, undisturbed, optimisation={"batch": 2}), resume=True)


def test_checkpoint_of_another_shape_is_refused(shape, manifest, undisturbed, tmp_path):
    copy = tmp_path / "run"
    (copy / "checkpoints").mkdir(parents=True)
    (copy / "config.yaml").write_bytes((undisturbed / "config.yaml").read_bytes())
    (undisturbed / "checkpoints/step-00000004").rename(copy / "checkpoints/step-00000004")
    try:
        other = json.loads((shape / "config.json").read_text()) | {"lora_rank": 4}
        original = (shape / "config.json").read_text()
        (shape / "config.json").write_text(json.dumps(other))
        with pytest.raises(
            NaturelmError, match=r"contains weights of another model: 16 are .* such as model\.llama"
        ):
            run(config(shape, manifest, copy), resume=True)
    finally:
        (shape / "config.json").write_text(original)
        (copy / "checkpoints/step-00000004").rename(undisturbed / "checkpoints/step-00000004")


def test_object_store_holds_the_same_as_a_directory(shape, manifest, undisturbed, bucket, tmp_path):
    """Recordings and run on a real S3 server: killed after a checkpoint, resumed, begun from and exported."""
    for file in list_files(manifest.parent):
        write_whole(location(f"{bucket}/made/{file.relative_path}"), file.location.read_bytes())
    manifest = f"{bucket}/made/{manifest.name}"
    storage = f"{bucket}/runs/first"
    values = config(shape, manifest, storage)
    with pytest.raises(Interrupted):
        run_training(values, False, StopsAt(5))
    assert RunStore(storage).steps() == [2, 4]
    run(values, resume=True)
    same(losses(storage), losses(undisturbed))
    store, plain = RunStore(storage), RunStore(str(undisturbed))
    assert store.steps() == plain.steps() == [4, 6]
    for name, tensor in store.weights(6).items():
        assert torch.equal(tensor, plain.weights(6)[name])
    assert run(values, resume=True) == 0
    names = {file.relative_path.partition("/")[0] for file in list_files(store.root, recursive=True)}
    assert names == {"config.yaml", "checkpoints", "metrics", "tensorboard"}
    assert write_checkpoint(storage, tmp_path / "exported") == 6
    second = settings(shape, manifest, f"{bucket}/runs/second", optimisation={"steps": 1})
    run(parse(second | {"model": {"checkpoint": storage, "trainable": ["lora"]}}, "second"))
    assert RunStore(f"{bucket}/runs/second").steps() == [1]


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        ("ftp://there/run", r"ftp://there/run: ftp:// is not read here; give a path, s3:// or gs://"),
        ("/dev/null/run", r"/dev/null/run: cannot be used as storage \(Not a directory\); check run.storage"),
    ],
)
def test_storage_that_cannot_be_used_is_refused(shape, manifest, storage, sentence):
    with pytest.raises(NaturelmError, match=sentence):
        run(config(shape, manifest, storage))


def test_bucket_that_is_not_there_is_refused(shape, manifest, bucket):
    storage = f"{bucket}-else/run"
    with pytest.raises(NaturelmError, match=r"-else/run: cannot be used as storage .*check run\.storage"):
        run(config(shape, manifest, storage))


# -- export ----------------------------------------------------------------------------------------------------


def test_exported_checkpoint_answers_as_the_model_that_was_trained(shape, manifest, undisturbed, tmp_path):
    out = tmp_path / "exported"
    assert write_checkpoint(str(undisturbed), out) == 6
    model = NatureLM.from_pretrained(out, device="cpu")
    trained = RunStore(str(undisturbed)).weights(6)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, trained[f"model.{name}"]), name
    waveform = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 32_000)).astype(np.float32))
    model.generate(waveform, [QUESTION], max_new_tokens=2, num_beams=1)


def test_one_checkpoint_of_a_run_can_be_exported_in_half_precision(undisturbed, tmp_path):
    assert (
        write_checkpoint(f"{undisturbed}/checkpoints/step-00000004", tmp_path / "out", dtype="float16") == 4
    )
    whole = write_checkpoint(f"{undisturbed}/checkpoints/step-00000004", tmp_path / "whole")
    assert whole == 4
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("out", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    NatureLM.from_pretrained(tmp_path / "out", device="cpu")


def test_second_stage_begins_with_what_the_first_one_learnt(shape, manifest, undisturbed, tmp_path):
    write_checkpoint(str(undisturbed), tmp_path / "stage1")
    starts = {"checkpoint": str(tmp_path / "stage1")}, {"checkpoint": str(undisturbed)}
    curves = []
    for number, start in enumerate(starts):
        values = settings(shape, manifest, tmp_path / f"stage2-{number}", optimisation={"steps": 1})
        values["model"] = start | {"trainable": ["beats", "lora"]}
        path = write_config(tmp_path / f"{number}.yaml", values)
        from naturelm.training.paths import load_train_config

        run(load_train_config(path))
        curves.append(losses(tmp_path / f"stage2-{number}"))
    assert curves[0] == curves[1]
    assert curves[0][1] < losses(undisturbed)[1]
    # The LLM was trained in the first stage, so it goes along though the second left it as it was.
    write_checkpoint(str(tmp_path / "stage2-1"), tmp_path / "stage2")
    assert (tmp_path / "stage2/llm/model.safetensors").is_file()


def test_checkpoint_that_does_not_exist_is_reported(undisturbed, tmp_path):
    with pytest.raises(NaturelmError, match="has no checkpoint of step 3; there are 4, 6"):
        write_checkpoint(f"{undisturbed}/checkpoints/step-00000003", tmp_path / "out")
    with pytest.raises(NaturelmError, match="contains no run"):
        write_checkpoint(str(tmp_path), tmp_path / "out")
