"""What `naturelm train` and `naturelm export-checkpoint` print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.training.paths import load_train_config
from tests.paths import REPO
from tests.training.runs import losses, settings, write_config

CONFIGS = REPO / "configs/train"


def call(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result) -> str:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (message,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return message


@pytest.fixture
def written(shape, manifest, tmp_path):
    """Writes a configuration of a short run with changed sections."""

    def write(**sections) -> Path:
        return write_config(tmp_path / "config.yaml", settings(shape, manifest, tmp_path / "run", **sections))

    return write


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"optimizer": {}}, "unknown setting optimizer; see configs/train/stage1.yaml"),
        ({"optimisation": {"momentum": 1}}, "unknown setting optimisation.momentum"),
        ({"optimisation": {"batch": 0}}, "optimisation.batch is 0"),
        ({"optimisation": {"end_lr": 1.0}}, "end_lr is 1.0, above peak_lr"),
        ({"model": {"checkpoint": "pocket"}}, "give either checkpoint or new"),
        (
            {"model": {"new": "nowhere"}},
            "model.new names {directory}/nowhere, and there is no such directory",
        ),
        ({"model": {"new": {}}}, "needs llm, the base language model"),
        ({"model": {"beats": "none.pt"}}, "model.beats names {directory}/none.pt, and there is no such file"),
        (
            {"model": {"trainable": ["ears"]}},
            "model.trainable names 'ears', which NatureLM does not have; its parts are beats, qformer, projection, "
            "llm, lora",
        ),
        (
            {"data": {"manifests": ["none.jsonl"]}},
            "config.yaml: data.manifests names {directory}/none.jsonl, and there is no such file; relative paths are "
            "taken from the directory of config.yaml",
        ),
        ({"data": {"noise_folders": ["~none"]}}, "data.noise_folders names {directory}/~none"),
        ({"evaluation": {"manifests": ["none.jsonl"]}}, "evaluation.manifests names {directory}/none.jsonl"),
        ({"model": {"new": None, "checkpoint": "./none"}}, "model.checkpoint names {directory}/none"),
        (
            {"optimisation": {"steps": 20, "warmup_steps": 3}},
            "warmup_steps is 3, more than a tenth of steps 20; give at most 2, or leave it out",
        ),
        (
            {"run": {"best_by": "f2"}},
            "run.best_by is 'f2'; give loss, token_accuracy, exact, f1, or one with a task",
        ),
        ({"run": {"patience": 2}}, "run.patience needs evaluation.manifests"),
        ({"data": {"window_s": 3}}, "data.window_s is 3, but the model's window is 2 s"),
        ({"run": {"workers": 0, "ray": True}}, "run.workers is 0"),
        (
            {"run": {"workers": 3, "ray": True}},
            "optimisation.batch is 4, which 3 workers cannot share evenly",
        ),
        (
            {"run": {"shard": True}},
            "config.yaml: run.shard is true, which needs Ray, but {config} has run.ray: false; set run.shard: "
            "false, or give --ray",
        ),
        (
            {"run": {"storage": "what://bucket"}},
            "what://bucket: what:// is not read here; give a path, s3:// or gs://",
        ),
        (
            {"run": {"storage": "/proc/run"}},
            "/proc/run: cannot be used as storage (No such file or directory); check run.storage",
        ),
        ({"run": {"best_by": "f1"}, "evaluation": {"generate": False}}, "needs evaluation.generate"),
    ],
)
def test_mistake_is_one_sentence_and_exit_code_2(written, tmp_path, sections, expected):
    path = written(**sections)
    expected = expected.format(directory=tmp_path, config=path)
    assert expected in refused(call("train", path))
    assert not (tmp_path / "run").exists()


def test_no_workers_are_refused_and_ray_may_be_left_out(written, tmp_path):
    assert "run.workers is 0" in refused(call("train", written(), "--ray", "--workers", "0"))
    assert "--workers needs Ray, but --no-ray was given; leave --workers out" in refused(
        call("train", written(), "--no-ray", "--workers", "2")
    )
    assert "config.yaml has run.ray: false; leave --address out, or give --ray" in refused(
        call("train", written(), "--address", "127.0.0.1:1")
    )
    assert "run.shard is true, which needs Ray, but --no-ray was given; set run.shard: false" in refused(
        call("train", CONFIGS / "stage1.yaml", "--no-ray")
    )
    assert not (tmp_path / "run").exists()


def test_missing_config_is_reported(tmp_path):
    assert "cannot read the configuration" in refused(call("train", tmp_path / "none.yaml"))


def test_manifest_without_rows_is_reported(written, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "empty.jsonl: contains no rows" in refused(
        call("train", written(data={"manifests": [str(empty)]}))
    )


def test_training_reporting_and_exporting_in_a_row(written, tmp_path):
    path = written()
    done = call("train", path)
    assert done.exit_code == 0, done.output
    assert f"naturelm export-checkpoint {tmp_path / 'run'} --out MODEL" in done.output
    assert len(losses(tmp_path / "run")) == 6
    assert "give --resume" in refused(call("train", "run", path))
    again = call("train", "--resume", path)
    assert again.exit_code == 0, again.output
    assert "nothing to do: all 6 steps" in again.output
    for name in ("plot.png", "plot.svg"):
        plotted = call("train", "report", tmp_path / "run", "--out", tmp_path / name)
        assert plotted.exit_code == 0, plotted.output
        assert (tmp_path / name).stat().st_size > 5000
    exported = call("export-checkpoint", tmp_path / "run", "--out", tmp_path / "out")
    assert exported.exit_code == 0, exported.output
    assert "step 6 written" in exported.output
    assert "is not empty" in refused(call("export-checkpoint", tmp_path / "run", "--out", tmp_path / "out"))
    board = list((tmp_path / "run/tensorboard").glob("events.out.tfevents.*"))
    assert board
    assert b"train/learning_rate" in board[0].read_bytes()


def test_report_without_a_run_is_refused(tmp_path):
    assert "contains no run" in refused(call("train", "report", tmp_path, "--out", "x.png"))


def test_help_shows_both_ways():
    text = call("train", "--help").output
    assert "CONFIG [--workers N | --no-ray] [--address RAY] [--resume]" in text
    assert "report RUN --out FILE" in text
    assert "--resume" in call("train", "run", "--help").output


def test_published_stages_are_as_published():
    first, second = load_train_config(CONFIGS / "stage1.yaml"), load_train_config(CONFIGS / "stage2.yaml")
    for stage, steps in ((first, 500_000), (second, 1_600_000)):
        optimisation = stage.optimisation
        assert (optimisation.steps, optimisation.batch, optimisation.warmup_steps) == (steps, 128, 5000)
        assert (optimisation.peak_lr, optimisation.end_lr) == (9e-5, 2e-5)
        assert (optimisation.betas, optimisation.weight_decay) == ((0.9, 0.999), 0.05)
        assert (optimisation.clip_norm, optimisation.max_text_tokens) == (2.0, 200)
        assert stage.precision == "bf16"
        assert set(stage.model.trainable) == {"beats", "qformer", "projection", "lora"}
    assert first.model.beats is not None
    assert second.model.checkpoint is not None
    assert second.data.mixup_probability == 0.45
    assert second.data.noise_only_probability == 0.1
    assert second.data.time_scale_probability == 0.0


def test_training_steps_can_be_measured():
    done = call("bench", "train", "--batch", "2", "--steps", "1", "--device", "cpu", "--format", "json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.output)
    assert result["parameters_trained"] < result["parameters"]
    assert result["examples_per_s"] == pytest.approx(2 / result["seconds_per_step"])
    assert result["positions_per_s"] > result["answer_tokens_per_s"] > 0
