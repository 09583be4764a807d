"""Loading and saving: what fits is read, what does not is reported in one sentence."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from naturelm.errors import NaturelmError
from naturelm.models import NatureLM
from naturelm.models import checkpoint as checkpoints
from naturelm.models.naturelm.config import NatureLMConfig
from naturelm.models.naturelm.names import NAMES
from naturelm.models.parts.beats import Beats, BeatsConfig


@pytest.fixture
def checkpoint(tmp_path: Path, small_release: Path) -> Path:
    """A copy of the small checkpoint to be damaged, its base LLM beside it."""
    shutil.copytree(small_release, tmp_path / "release")
    (tmp_path / "llm").symlink_to(small_release.parent / "llm")
    return tmp_path / "release"


def change_tensors(checkpoint: Path, change) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")


def load(checkpoint: Path, **kwargs) -> NatureLM:
    return NatureLM.from_pretrained(checkpoint, device="cpu", **kwargs)


def same_weights(one: NatureLM, other: NatureLM) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_saved_model_loads_as_the_same_model(model: NatureLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "saved", with_llm=True)
    loaded = load(tmp_path / "saved")
    assert same_weights(loaded, model)
    assert loaded.config.beats == model.config.beats
    assert loaded.end_token_ids == model.end_token_ids
    # Whoever may read its settings may read its weights.
    assert len({path.stat().st_mode for path in (tmp_path / "saved").rglob("*.*")}) == 1


def test_release_has_the_published_names_and_no_base_llm(
    model: NatureLM, small_release: Path, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(small_release / "model.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    unused = {"beats.predictor.weight", "beats.predictor.bias", "audio_Qformer.bert.embeddings.position_ids"}
    assert theirs.keys() - ours.keys() == unused
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    written, published = (
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path, small_release)
    )
    assert published.keys() <= written.keys()
    assert {name: written["beats_cfg"][name] for name in published["beats_cfg"]} == published["beats_cfg"]


def test_half_precision_files_load_close_to_what_was_saved(model: NatureLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, with_llm=True, dtype=torch.float16)
    assert load_file(tmp_path / "model.safetensors")["ln_audio.weight"].dtype == torch.float16
    loaded = load(tmp_path)
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=2e-3, rtol=1e-3)


def test_relative_llm_is_found_from_the_checkpoint_not_the_working_directory(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(checkpoint).audio_tokens == 29


def test_shared_bias_under_every_layers_name_is_accepted(checkpoint: Path, model: NatureLM) -> None:
    name = "beats.encoder.layers.{}.self_attn.relative_attention_bias.weight"

    def repeat(tensors):
        for layer in (1, 2):
            tensors[name.format(layer)] = tensors[name.format(0)].clone()

    change_tensors(checkpoint, repeat)
    assert same_weights(load(checkpoint), model)


def test_missing_predictor_is_accepted(checkpoint: Path, model: NatureLM) -> None:
    change_tensors(
        checkpoint, lambda tensors: [tensors.pop(f"beats.predictor.{x}") for x in ("weight", "bias")]
    )
    assert same_weights(load(checkpoint), model)


def test_missing_unknown_and_misshaped_tensors_are_told_in_one_error(checkpoint: Path) -> None:
    def damage(tensors):
        del tensors["ln_audio.weight"]
        tensors["speech_encoder.weight"] = torch.zeros(2)
        tensors["audio_llama_proj.bias"] = torch.zeros(7)

    change_tensors(checkpoint, damage)
    with pytest.raises(NaturelmError) as error:
        load(checkpoint)
    sentence = str(error.value)
    assert "1 missing (ln_audio.weight)" in sentence
    assert "1 unknown (speech_encoder.weight)" in sentence
    assert "1 of another shape (audio_llama_proj.bias [7] instead of [64])" in sentence
    assert "\n" not in sentence


def test_long_lists_of_tensors_are_cut_short(checkpoint: Path) -> None:
    change_tensors(checkpoint, lambda t: [t.pop(name) for name in list(t) if name.startswith("beats.")])
    with pytest.raises(NaturelmError, match=r"\d\d missing \(.*and \d+ more\)") as error:
        load(checkpoint)
    assert len(str(error.value)) < 1000


def test_shape_mistake_loads_nothing(small_release: Path) -> None:
    beats = torch.nn.ModuleDict(
        {"beats": Beats(NatureLMConfig.from_file(small_release / "config.json").beats)}
    )
    before = {name: tensor.clone() for name, tensor in beats.state_dict().items()}
    tensors = load_file(small_release / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("beats.")}
    tensors["beats.layer_norm.bias"] = torch.zeros(1)
    with pytest.raises(NaturelmError):
        checkpoints.load_published(beats, tensors, NAMES, "here")
    assert all(torch.equal(tensor, before[name]) for name, tensor in beats.state_dict().items())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"not weights"),
        ("model.safetensors", None),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", None),
    ],
)
def test_damaged_or_missing_file_is_told_in_one_sentence(
    checkpoint: Path, file: str, content: bytes | None
) -> None:
    (checkpoint / file).unlink()
    if content is not None:
        (checkpoint / file).write_bytes(content)
    with pytest.raises(NaturelmError, match=file) as error:
        load(checkpoint)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"lora": False},
        {"window_level_Qformer": False},
        {"beats_cfg": {"layer_norm_first": True}},
        {"lora_rank": "many"},
        {"beats_cfg": {"encoder_layers": 0}},
        {"window_s": -1},
        {"second_stride": 0.0},
        {"lora_targets": ["gate_proj"]},
    ],
)
def test_settings_that_cannot_be_met_are_refused_by_name(values: dict) -> None:
    setting = next(iter(values.get("beats_cfg", values)))
    with pytest.raises(NaturelmError, match=setting):
        NatureLMConfig.from_dict(values)


def test_config_without_sizes_is_the_released_model() -> None:
    config = NatureLMConfig.from_dict({"llama_path": "x"})
    assert config.beats == BeatsConfig()
    assert (config.lora_rank, config.lora_alpha, config.window_patches) == (32, 32, 17)


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_base_llm_that_cannot_be_read_is_told_in_one_sentence(
    checkpoint: Path, tmp_path: Path, content: bytes | None
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "llm", broken, copy_function=shutil.copyfile)
    (broken / "model.safetensors").unlink()
    if content is not None:
        (broken / "model.safetensors").write_bytes(content)
    with pytest.raises(NaturelmError, match="broken: holds no readable base LLM"):
        load(checkpoint, llm=broken)


def test_base_llm_that_lacks_tensors_is_not_filled_with_random_ones(checkpoint: Path, tmp_path: Path) -> None:
    lacking = tmp_path / "lacking"
    shutil.copytree(tmp_path / "llm", lacking, copy_function=shutil.copyfile)
    tensors = load_file(lacking / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:10].clone()
    save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NaturelmError, match=r"2 tensors .*lm_head.weight, model.norm.weight"):
        load(checkpoint, llm=lacking)


def test_base_llm_without_the_end_token_is_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "end_sym": "<|fin|>"}))
    with pytest.raises(NaturelmError, match=r"<\|fin\|>"):
        load(checkpoint)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_merging_alpha_out_of_range_is_refused_and_changes_nothing(model: NatureLM, alpha: float) -> None:
    with pytest.raises(NaturelmError, match="merging_alpha"):
        model.merging_alpha = alpha
    assert model.merging_alpha == 1.0


def test_beats_checkpoint_of_its_own_is_read_without_running_code(tmp_path: Path, model: NatureLM) -> None:
    named = checkpoints.published_tensors(torch.nn.ModuleDict({"beats": model.beats}), NAMES)
    own = {name.removeprefix("beats."): tensor for name, tensor in named.items()}
    torch.save({"cfg": {"encoder_layers": 3}, "model": own}, tmp_path / "beats.pt")
    other = copy.deepcopy(model)
    for parameter in other.beats.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_part("beats", tmp_path / "beats.pt")
    assert same_weights(other, model)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Boom:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": {"x": Boom()}}, tmp_path / "evil.pt")
    with pytest.raises(NaturelmError, match="holds no readable weights"):
        checkpoints.read_tensors(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_bfloat16_model_keeps_its_adapters_in_float32(checkpoint: Path) -> None:
    model = load(checkpoint, dtype=torch.bfloat16)
    kinds = {("lora_" in name, parameter.dtype) for name, parameter in model.named_parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    assert model.merged_language_model().dtype == torch.bfloat16
    assert model.encode_audio(torch.zeros(1, 160_000)).dtype == torch.bfloat16


@pytest.mark.parametrize("tied", [False, True])
def test_model_from_scratch_trains_saves_and_loads(model: NatureLM, tmp_path: Path, tied: bool) -> None:
    sizes = LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    config = dataclasses.replace(model.config, window_s=1.0)
    scratch = NatureLM.from_config(config, sizes, model.tokenizer)
    assert scratch.audio_tokens == 2
    scratch.requires_grad_(True)
    waveforms = torch.randn(2, 16_000) * 0.1
    batch = waveforms, ["What is it?", "Caption the audio."], ["Robin", "A wren sings."]
    optimizer = torch.optim.AdamW(scratch.parameters(), lr=1e-2)
    first = scratch.loss(*batch).item()
    for _ in range(5):
        optimizer.zero_grad()
        scratch.loss(*batch).backward()
        optimizer.step()
    last = scratch.loss(*batch).item()
    assert last < 0.8 * first
    assert all(parameter.grad is not None for parameter in scratch.parameters())
    scratch.save_pretrained(tmp_path, with_llm=True)
    loaded = load(tmp_path)
    assert loaded.window_s == 1.0
    assert loaded.loss(*batch).item() == pytest.approx(last, abs=1e-4)
