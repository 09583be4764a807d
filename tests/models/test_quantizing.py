"""Quantised models: the same on disk and in memory, near the plain ones, and all or nothing on disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from naturelm.cli import main
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery
from naturelm.errors import NaturelmError
from naturelm.models import NatureLM, load_model, quantizing
from naturelm.models.presets import resolve
from naturelm.models.quantizing import Quantized
from tests.paths import SMALL_MODEL

PROMPT = EngineQuery("What are the common names for the species in the audio, if any?", 8)


@pytest.fixture(scope="module")
def int8_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantized") / "int8"
    NatureLM.quantize(SMALL_MODEL, out, "int8")
    return out


def _logits(model: NatureLM, waveforms: torch.Tensor) -> torch.Tensor:
    audio_BAD = model.encode_audio(waveforms)
    with torch.inference_mode():
        return model.answer_logits(audio_BAD, [model.prompt_tokens(PROMPT.prompt)] * 3, [(5, 6, 7)] * 3)


def test_int8_logits_are_off_by_little_more_than_those_of_bfloat16(
    int8_directory: Path, model: NatureLM, waveforms: torch.Tensor
) -> None:
    quantized = load_model(int8_directory, device="cpu", dtype=torch.float32)
    half = load_model(SMALL_MODEL, device="cpu", dtype=torch.bfloat16)
    plain, ours, rounded = (_logits(one, waveforms).float() for one in (model, quantized, half))
    # The small checkpoint's random weights enlarge every rounding: bfloat16 alone is off by some 6 %.
    assert 0 < (ours - plain).norm() < 2 * (rounded - plain).norm() < 0.2 * plain.norm()


def test_a_directory_and_memory_hold_the_same_int8_weights(
    int8_directory: Path, waveforms: torch.Tensor
) -> None:
    on_disk = load_model(int8_directory, device="cpu", dtype=torch.bfloat16)
    in_memory = load_model(SMALL_MODEL, device="cpu", dtype=torch.bfloat16, weights="int8")
    answers = [
        [answer.token_ids for row in Engine(model, [PROMPT]).answer(waveforms) for answer in row]
        for model in (
            on_disk,
            in_memory,
            in_memory,
        )  # a second engine finds the matrices as the first left them
    ]
    assert answers[0] == answers[1] == answers[2]
    assert torch.equal(_logits(on_disk, waveforms), _logits(in_memory, waveforms))


def test_the_engine_answers_as_the_quantised_model_itself(
    int8_directory: Path, waveforms: torch.Tensor
) -> None:
    quantized = load_model(int8_directory, device="cpu", dtype=torch.float32)
    rows = Engine(quantized, [PROMPT], take_weights=True).answer(waveforms)
    plainly = quantized.generate(waveforms, [PROMPT.prompt] * 3, 8, 1)
    assert [row[0].token_ids for row in rows] == [answer.token_ids for answer in plainly]


def test_adapters_are_merged_at_their_share(tmp_path: Path, model: NatureLM, waveforms: torch.Tensor) -> None:
    NatureLM.quantize(SMALL_MODEL, tmp_path / "half", "int8", merging_alpha=0.5)
    half = load_model(tmp_path / "half", device="cpu", dtype=torch.float32)
    assert half.merging_alpha == 0.5
    model.merging_alpha = 0.5
    plain = _logits(model, waveforms)
    model.merging_alpha = 1.0
    other = _logits(model, waveforms)
    assert (_logits(half, waveforms) - plain).norm() < 0.5 * (_logits(half, waveforms) - other).norm()
    with pytest.raises(NaturelmError, match=r"half: its adapters were merged at 0.5, not 0.4; quantise"):
        load_model(tmp_path / "half", merging_alpha=0.4)


def test_matrices_are_stored_in_a_byte_for_each_number(int8_directory: Path) -> None:
    tensors = load_file(next((int8_directory / "llm").glob("*.safetensors")))
    weight = tensors["model.layers.0.mlp.up_proj.weight"]
    assert weight.dtype == torch.int8
    assert tensors["model.layers.0.mlp.up_proj.weight_scales"].shape == (len(weight), 1)
    assert tensors["lm_head.weight"].dtype == torch.bfloat16


def test_what_does_not_fit_a_quantised_directory_is_one_sentence(
    int8_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(NaturelmError, match="its weights are int8, not fp8; leave out --weights"):
        load_model(int8_directory, weights="fp8")
    with pytest.raises(NaturelmError, match="is quantised with its base LLM; leave out --llm"):
        load_model(int8_directory, llm=int8_directory / "llm")
    with pytest.raises(NaturelmError, match="to answer queries only"):
        NatureLM.read(int8_directory)
    with pytest.raises(NaturelmError, match="is quantised already"):
        NatureLM.quantize(int8_directory, tmp_path / "again", "int8")
    with pytest.raises(NaturelmError, match="weights are 'int3'; give fp8, int8"):
        NatureLM.quantize(SMALL_MODEL, tmp_path / "again", "int3")
    other = tmp_path / "other"
    shutil.copytree(int8_directory, other)
    values = json.loads((other / "llm" / "config.json").read_text())
    (other / "llm" / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 99}))
    with pytest.raises(NaturelmError, match=r"has no tensor model\.layers"):
        load_model(other)
    (other / "llm" / "config.json").write_text(
        json.dumps({**values, "hidden_size": 2 * values["hidden_size"]})
    )
    with pytest.raises(NaturelmError, match="base LLM of width"):
        load_model(other)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quantizing, "save_file", full)
    with pytest.raises(
        NaturelmError, match=r"out: cannot be written \(.*No space left.*nothing of it is kept"
    ):
        NatureLM.quantize(SMALL_MODEL, tmp_path / "out", "int8")
    assert os.listdir(tmp_path) == []


def test_too_small_a_disk_and_a_full_directory_are_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(NaturelmError, match="taken: is not empty"):
        NatureLM.quantize(SMALL_MODEL, tmp_path / "taken", "int8")
    monkeypatch.setattr(quantizing.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(NaturelmError, match=r"needs 0.0 GB and its disk has 0.0 GB free"):
        NatureLM.quantize(SMALL_MODEL, tmp_path / "out", "int8")


def test_the_command_writes_a_model_that_other_commands_take(tmp_path: Path) -> None:
    out = tmp_path / "湿地"
    done = CliRunner().invoke(main, ["quantize", str(SMALL_MODEL), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"naturelm infer SOUND --model {out}" in done.output
    assert Quantized.of(load_model(out).config, "") == Quantized("int8", 1.0, resolve(SMALL_MODEL).revision)
    again = CliRunner().invoke(main, ["quantize", str(SMALL_MODEL), "--out", str(out)])
    assert (again.exit_code, again.output) == (
        2,
        f"Error: {out}: is not empty; give a new directory with --out\n",
    )


def test_bf16_beside_float32_is_refused() -> None:
    with pytest.raises(NaturelmError, match="weights are bf16 and dtype is float32; leave out one"):
        load_model(SMALL_MODEL, weights="bf16", dtype=torch.float32)
    with pytest.raises(NaturelmError, match="weights are 'plain'; give one of auto, bf16, fp8, int8"):
        load_model(SMALL_MODEL, weights="plain")
