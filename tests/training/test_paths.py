"""Training from another directory than the configuration's: paths mean the same everywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
import yaml

from naturelm.training.paths import with_absolute_paths
from naturelm.training.store import RunStore
from tests.paths import REPO
from tests.training.runs import losses, settings

STEPS = 20


def naturelm(directory: Path, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """The program, run from a directory."""
    return subprocess.run(
        [sys.executable, "-m", "naturelm.cli", *map(str, arguments)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


@pytest.fixture
def project(shape, manifest, tmp_path) -> Path:
    """A directory with everything that a run needs, named relatively in its configuration."""
    project = tmp_path / "project"
    shutil.copytree(shape, project / "models" / "shape")
    shutil.copytree(manifest.parent, project / "data")
    values = settings(Path("models/shape"), Path("data/train.jsonl"), "runs/first")
    values["optimisation"] |= {"steps": STEPS, "peak_lr": 1e-3, "end_lr": 5e-4}
    values["evaluation"] = {"manifests": ["data/train.jsonl"], "every_steps": 10, "examples": 4}
    values["run"] |= {"checkpoint_every": 3}
    (project / "train.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "elsewhere").mkdir()
    return project


def kill_after_a_checkpoint(project: Path, elsewhere: Path, *options: str) -> None:
    """Start a run from another directory and kill it, its workers included, once it has a checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "naturelm.cli", "train", "../project/train.yaml", *options],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    store = RunStore(str(project / "runs/first"))
    try:
        while not store.latest():
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert 0 < (store.latest() or 0) < STEPS


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--no-ray"], id="in this process"),
        pytest.param(["--ray", "--workers", "2"], id="on Ray", marks=pytest.mark.ray),
    ],
)
def test_run_from_another_directory_is_killed_resumed_exported_and_used(project, tmp_path, options):
    elsewhere = tmp_path / "elsewhere"
    whole = tmp_path / "whole"
    shutil.copytree(project, whole)
    assert naturelm(whole, "train", "train.yaml", "--no-ray").returncode == 0
    kill_after_a_checkpoint(project, elsewhere, *options)
    done = naturelm(elsewhere, "train", "../project/train.yaml", *options, "--resume")
    assert done.returncode == 0, done.stderr
    assert "steps, 0 of them" not in done.stderr
    curve, undisturbed = losses(project / "runs/first"), losses(whole / "runs/first")
    assert curve.keys() == undisturbed.keys()
    assert list(curve.values()) == pytest.approx(list(undisturbed.values()), abs=1e-4)
    assert not list(elsewhere.iterdir())
    exported = naturelm(elsewhere, "export-checkpoint", "../project/runs/first", "--out", "model")
    assert exported.returncode == 0, exported.stderr
    (elsewhere / "archive").mkdir()
    sound, rate_hz = soundfile.read(project / "data/0.wav")
    soundfile.write(elsewhere / "archive/湿地_20261127_060000.wav", sound, rate_hz)
    processed = naturelm(
        elsewhere, "process", "archive", "--out", "tables", "--model", "model", "--window", 2, "--workers", 0
    )
    assert processed.returncode == 0, processed.stderr
    assert list((elsewhere / "tables/answers").rglob("*.parquet"))


def test_missing_manifest_is_reported_within_two_seconds(project, tmp_path):
    (project / "data/train.jsonl").unlink()
    began = time.process_time(), os.times().children_user
    failed = naturelm(tmp_path / "elsewhere", "train", "../project/train.yaml")
    assert failed.returncode == 2
    assert f"data.manifests names {project}/data/train.jsonl, and there is no such file" in failed.stderr
    # Of CPU time, since the machine may be busy.
    assert os.times().children_user - began[1] < 2


def test_names_of_models_and_urls_are_no_paths(tmp_path):
    (tmp_path / "models/mine").mkdir(parents=True)
    raw = {
        "model": {
            "checkpoint": "models/mine",
            "llm": "meta-llama/Llama",
            "beats": "b.pt",
            "trainable": ["lora"],
        },
        "data": {
            "manifests": ["a.jsonl", "s3://bucket/b.jsonl", "/c.jsonl", 3],
            "noise_folders": ["../noise"],
        },
        "evaluation": None,
        "run": {"storage": "gs://bucket/run"},
    }
    assert with_absolute_paths(raw, tmp_path) == {
        "model": {
            "checkpoint": f"{tmp_path}/models/mine",
            "llm": "meta-llama/Llama",
            "beats": f"{tmp_path}/b.pt",
            "trainable": ["lora"],
        },
        "data": {
            "manifests": [f"{tmp_path}/a.jsonl", "s3://bucket/b.jsonl", "/c.jsonl", 3],
            "noise_folders": [f"{tmp_path.parent}/noise"],
        },
        "evaluation": None,
        "run": {"storage": "gs://bucket/run"},
    }
    assert (
        with_absolute_paths({"model": {"checkpoint": "pocket"}}, tmp_path)["model"]["checkpoint"] == "pocket"
    )
