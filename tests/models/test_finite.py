"""Models whose weights, or whose output, are not numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import naturelm.models
from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.infer import Pipeline
from naturelm.models import load_model
from naturelm.models.parts.finite import check_finite
from naturelm.tables.query import open_tables

POCKET = Path(naturelm.models.__file__).parent / "bundled/pocket"


def changed(directory: Path, file: str, name: str, value: float) -> Path:
    """A copy of the bundled model in which one weight is another number."""
    shutil.copytree(POCKET, directory)
    tensors = {key: tensor.float() for key, tensor in load_file(directory / file).items()}
    whole = next(key for key in sorted(tensors) if name in key)
    tensors[whole].view(-1)[0] = value
    save_file(tensors, directory / file, metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("file", ["model.safetensors", "llm/model.safetensors"])
def test_weights_that_are_no_numbers_are_refused_when_loaded(tmp_path, file: str, value: float) -> None:
    directory = changed(tmp_path / "model", file, "weight", value)
    with pytest.raises(NaturelmError, match=r"1 tensor contains NaN or infinity \(.*weight\); fetch the"):
        load_model(str(directory))


def test_every_kind_of_tensor_is_checked() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e5m2):
        good = torch.ones(3, 4).to(dtype)
        bad = torch.tensor([1.0, float("nan")]).to(dtype)
        check_finite([("good", good), ("count", torch.arange(3)), ("none", torch.empty(0))], "x")
        with pytest.raises(NaturelmError, match=r"x: 1 tensor contains NaN or infinity \(bad\)"):
            check_finite([("good", good), ("bad", bad)], "x")


@pytest.fixture
def overflowing(tmp_path: Path) -> Path:
    """A model of finite weights that overflow on the way."""
    return changed(tmp_path / "model", "llm/model.safetensors", "norm.weight", 3e38)


def test_output_that_is_not_finite_is_a_failed_recording_and_never_a_row(tmp_path, overflowing: Path) -> None:
    for number in range(2):
        noise = np.random.default_rng(number).normal(0, 0.1, 16_000 * 10)
        (tmp_path / "in").mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"in/{number}.wav", noise, 16_000)
    done = CliRunner().invoke(
        main,
        ["process", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", str(overflowing), "--workers=0"],
    )  # fmt: skip
    assert done.exit_code == 0
    tables = open_tables(tmp_path / "out")
    assert tables.sql("SELECT DISTINCT status, error FROM recordings").fetchall() == [
        ("crashed", "the model's output for the window at 0 s is NaN or infinite")
    ]
    for table in ("answers", "detections", "captions"):
        assert tables.sql(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]


def test_the_pipeline_refuses_output_that_is_not_finite(overflowing: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 16_000 * 10).astype(np.float32)
    with pytest.raises(NaturelmError, match="window at 0 s is NaN or infinite"):
        Pipeline(str(overflowing))([noise], "What is it?")
