"""SALMONN gives the published implementation's numbers, and accounts for every published tensor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from naturelm.errors import NaturelmError
from naturelm.models import LTU, SALMONN, NatureLM, load_model
from naturelm.models.checkpoint import NameTable
from naturelm.models.parts.llama import load_llama_config, load_tokenizer, new_llama
from naturelm.models.salmonn.config import SalmonnConfig
from naturelm.models.salmonn.names import NAMES
from tests.paths import LTU_PARITY, SALMONN_PARITY, SMALL_MODEL

VICUNA_13B = LlamaConfig(
    vocab_size=32000,
    hidden_size=5120,
    intermediate_size=13824,
    num_hidden_layers=40,
    num_attention_heads=40,
    num_key_value_heads=40,
)
VICUNA_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
)


@pytest.fixture(scope="module")
def salmonn() -> SALMONN:
    return SALMONN.from_pretrained(SALMONN_PARITY, device="cpu")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    arrays = np.load(SALMONN_PARITY / "golden_lengths.npz")
    return {**arrays, **json.loads((SALMONN_PARITY / "golden_lengths.json").read_text(encoding="utf-8"))}


def relative_error(ours: torch.Tensor, golden: np.ndarray) -> float:
    return float(np.abs(ours.numpy() - golden).max() / np.abs(golden).max())


# -- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["10s", "5s"])
@torch.inference_mode()
def test_both_encoders_equal_the_published_ones(
    salmonn: SALMONN, golden: dict[str, Any], length: str
) -> None:
    waveforms = torch.from_numpy(golden[f"wav_{length}"])
    frames = golden["lengths"][length]
    speech, sounds = salmonn.whisper(waveforms), salmonn.beats(waveforms)
    assert (speech.shape[1], sounds.shape[1]) == (frames["whisper_frames"], frames["beats_frames"])
    assert relative_error(speech[:, ::10], golden[f"whisper_{length}"]) < 1e-4
    assert relative_error(sounds[:, ::10], golden[f"beats_{length}"]) < 1e-4


@pytest.mark.parametrize("length", ["10s", "5s"])
@torch.inference_mode()
def test_audio_tokens_and_logits_equal_the_published_ones(
    salmonn: SALMONN, golden: dict[str, Any], length: str
) -> None:
    tokens = salmonn.encode_audio(torch.from_numpy(golden[f"wav_{length}"]))
    assert tokens.shape == (2, 88, 64)
    assert salmonn.audio_tokens == 88
    assert relative_error(tokens, golden[f"audio_embeds_{length}"]) < 1e-4
    for i, prompt in enumerate(golden["prompts"]):
        embeds, mask = salmonn.embed_prompts(tokens[i : i + 1], [prompt])
        logits = salmonn.llama(inputs_embeds=embeds, attention_mask=mask).logits[0, -1]
        np.testing.assert_allclose(logits.numpy(), golden[f"logits_last_{length}_{i}"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("length", ["10s", "5s"])
def test_generated_tokens_equal_the_published_ones(
    salmonn: SALMONN, golden: dict[str, Any], length: str
) -> None:
    """Together and alone, with prompts of different lengths; four beams are the family's default."""
    waveforms = torch.from_numpy(golden[f"wav_{length}"])
    published = [answer["ids"] for answer in golden["generated_beams4"][length]]
    together = salmonn.generate(waveforms, golden["prompts"], max_new_tokens=16)
    alone = [
        salmonn.generate(waveforms[i : i + 1], [prompt], max_new_tokens=16)[0]
        for i, prompt in enumerate(golden["prompts"])
    ]
    assert [list(answer.token_ids) for answer in together] == published
    assert [list(answer.token_ids) for answer in alone] == published


def test_prompts_are_written_as_published(salmonn: SALMONN, golden: dict[str, Any]) -> None:
    assert [salmonn.layout.text(prompt) for prompt in golden["prompts"]] == golden["prompt_texts"]


@torch.inference_mode()
def test_sound_under_a_second_is_filled_up_to_one_as_published(salmonn: SALMONN) -> None:
    sound = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 16_000)).astype(np.float32))
    sound[:, 9_000:] = 0
    torch.testing.assert_close(salmonn.encode_audio(sound[:, :9_000]), salmonn.encode_audio(sound))


@torch.inference_mode()
def test_merging_alpha_goes_from_the_base_model_to_the_trained_one(
    salmonn: SALMONN, golden: dict[str, Any]
) -> None:
    embeds, mask = salmonn.embed_prompts(
        salmonn.encode_audio(torch.from_numpy(golden["wav_5s"][:1])), golden["prompts"][:1]
    )
    try:
        salmonn.merging_alpha = 0.0
        base = salmonn.llama(inputs_embeds=embeds, attention_mask=mask).logits
        merged = salmonn.merged_language_model()(inputs_embeds=embeds, attention_mask=mask).logits
        torch.testing.assert_close(merged, base, atol=1e-4, rtol=0)
    finally:
        salmonn.merging_alpha = 1.0
    trained = salmonn.llama(inputs_embeds=embeds, attention_mask=mask).logits
    assert (trained - base).abs().max() > 0.01
    np.testing.assert_allclose(trained[0, -1].numpy(), golden["logits_last_5s_0"], atol=1e-3, rtol=0)


# -- names ---------------------------------------------------------------------------------------------------------


def test_all_180_published_tensors_of_the_small_model_are_accounted_for(salmonn: SALMONN) -> None:
    published = json.loads((SALMONN_PARITY / "golden.json").read_text(encoding="utf-8"))["keys"]
    used = {name: NAMES.ours(name) for name in published}
    assert len(published) == 180
    assert {name for name, ours in used.items() if ours is None} == {
        "beats.predictor.weight",
        "beats.predictor.bias",
        "speech_Qformer.bert.embeddings.position_ids",
    }
    shapes = {name: list(tensor.shape) for name, tensor in salmonn.state_dict().items()}
    assert {ours: published[name] for name, ours in used.items() if ours} == shapes


@pytest.mark.parametrize(("llm", "layers"), [(VICUNA_13B, 40), (VICUNA_7B, 32)], ids=["13b", "7b"])
def test_every_tensor_at_full_size_has_a_published_name(llm: LlamaConfig, layers: int) -> None:
    tokenizer = load_tokenizer(SALMONN_PARITY / "llm")
    model = SALMONN.from_config(SalmonnConfig(), llm, tokenizer, "meta", torch.bfloat16)
    shapes = {NAMES.published(name): list(tensor.shape) for name, tensor in model.state_dict().items()}
    width = llm.hidden_size
    trained = {name: shape for name, shape in shapes.items() if not NAMES.is_base_llm(name)}
    assert sum("lora_" in name for name in trained) == 4 * layers
    assert sum(name.startswith("speech_encoder.layers.") for name in trained) == 32 * 15
    assert trained["speech_encoder.embed_positions.weight"] == [1500, 1280]
    assert trained["ln_speech.weight"] == [1280]
    assert trained["ln_audio.weight"] == [768]
    assert trained["speech_query_tokens"] == [1, 1, 768]
    assert trained["speech_Qformer.bert.encoder.layer.1.crossattention.self.key.weight"] == [768, 2048]
    assert trained["speech_llama_proj.weight"] == [width, 768]
    lora = "llama_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert trained[lora] == [8, width]
    assert {NAMES.ours(name) for name in shapes} == set(model.state_dict())


# -- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> dict[str, Path]:
    """The small model as it is published: what was trained in a ``.pth`` file, each other part in another place."""
    tensors = load_file(SALMONN_PARITY / "model.safetensors")
    places = {name: tmp_path / name for name in ("checkpoint", "whisper", "llm")}
    for name in ("whisper", "llm"):
        shutil.copytree(SALMONN_PARITY / name, places[name])
    places["checkpoint"].mkdir()
    encoder = {
        f"model.encoder.{name.removeprefix('speech_encoder.')}": tensor
        for name, tensor in tensors.items()
        if name.startswith("speech_encoder.")
    }
    decoder = {"model.decoder.layer_norm.weight": torch.zeros(3)}
    save_file({**encoder, **decoder}, places["whisper"] / "model.safetensors", metadata={"format": "pt"})
    beats = {
        name.removeprefix("beats."): tensor for name, tensor in tensors.items() if name.startswith("beats.")
    }
    places["beats"] = tmp_path / "beats.pt"
    torch.save({"cfg": {"encoder_layers": 2}, "model": beats}, places["beats"])
    prefix = "llama_model.base_model.model."
    base = {
        name.removeprefix(prefix).replace(".base_layer.", "."): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and "lora_" not in name
    }
    config = load_llama_config(places["llm"])
    config.vocab_size = len(base["lm_head.weight"])
    llama = new_llama(config, torch.float32)
    llama.load_state_dict(base)
    llama.save_pretrained(places["llm"])
    trained = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(("speech_encoder.", "beats.")) and ("lora_" in name or prefix not in name)
    }
    places["file"] = places["checkpoint"] / "salmonn_small.pth"
    torch.save({"model": trained, "config": {"lora_rank": 4}, "epoch": 3}, places["file"])
    values = json.loads((SALMONN_PARITY / "config.json").read_text(encoding="utf-8"))
    values.update(llama_path="../llm", whisper_path="../whisper", beats_path="../beats.pt")
    (places["checkpoint"] / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return places


def test_published_files_load_as_the_whole_model(published: dict[str, Path], salmonn: SALMONN) -> None:
    """Named in config.json or given; through the class or `load_model`; the file or its directory."""
    for loaded in (
        load_model(published["checkpoint"], device="cpu"),
        load_model(published["file"], device="cpu"),
        SALMONN.from_pretrained(
            published["file"],
            llm=published["llm"],
            whisper=published["whisper"],
            beats=published["beats"],
            device="cpu",
        ),
    ):
        assert isinstance(loaded, SALMONN)
        ours, theirs = loaded.state_dict(), salmonn.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_saved_model_loads_as_the_same_model(salmonn: SALMONN, tmp_path: Path) -> None:
    salmonn.save_pretrained(tmp_path / "saved", with_llm=True)
    loaded = load_model(tmp_path / "saved", device="cpu")
    ours, theirs = loaded.state_dict(), salmonn.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert loaded.config.whisper == salmonn.config.whisper


def one_sentence(error: pytest.ExceptionInfo[NaturelmError]) -> str:
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def test_checkpoint_of_another_family_is_named(published: dict[str, Path]) -> None:
    for model_class, path, family in (
        (SALMONN, SMALL_MODEL, "naturelm"),
        (NatureLM, SALMONN_PARITY, "salmonn"),
        (LTU, published["file"], "salmonn"),
        (SALMONN, LTU_PARITY / "release/ltu_small.bin", "ltu"),
    ):
        with pytest.raises(NaturelmError, match=f"holds a model of the family {family}") as error:
            model_class.from_pretrained(path, device="cpu")
        assert model_class.__name__ in one_sentence(error)


def test_tensors_say_the_family_where_config_json_says_another(tmp_path: Path) -> None:
    shutil.copytree(SALMONN_PARITY, tmp_path / "mixed")
    shutil.copyfile(SMALL_MODEL / "config.json", tmp_path / "mixed/config.json")
    with pytest.raises(NaturelmError, match=r"family salmonn, not NatureLM") as error:
        load_model(tmp_path / "mixed", device="cpu")
    one_sentence(error)


def test_whisper_of_another_size_is_refused(published: dict[str, Path]) -> None:
    config = json.loads((published["whisper"] / "config.json").read_text(encoding="utf-8"))
    config["d_model"] = 80
    (published["whisper"] / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (published["whisper"] / "model.safetensors").unlink()  # refused before weights are read
    with pytest.raises(
        NaturelmError, match=r"is 80 wide, and the checkpoint .* 64 wide; give .* --part whisper=DIR"
    ) as error:
        load_model(published["checkpoint"], device="cpu")
    one_sentence(error)


def test_base_llm_of_another_width_is_refused(published: dict[str, Path]) -> None:
    config = json.loads((published["llm"] / "config.json").read_text(encoding="utf-8"))
    config["hidden_size"] = 128
    (published["llm"] / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (published["llm"] / "model.safetensors").unlink()  # refused before weights are read
    with pytest.raises(
        NaturelmError, match=r"width 128, and the checkpoint .* width 64; give .* --llm"
    ) as error:
        load_model(published["checkpoint"], device="cpu")
    one_sentence(error)


@pytest.mark.parametrize(
    ("part", "remedy"), [("beats", "--part beats=FILE"), ("whisper", "--part whisper=DIR"), ("llm", "--llm")]
)
def test_missing_part_is_named_with_the_option_that_gives_it(
    published: dict[str, Path], part: str, remedy: str
) -> None:
    file = published["checkpoint"] / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values[{"beats": "beats_path", "whisper": "whisper_path", "llm": "llama_path"}[part]] = "../absent"
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(NaturelmError, match=remedy) as error:
        load_model(published["checkpoint"], device="cpu")
    assert "../absent" in one_sentence(error)


def test_part_that_the_family_does_not_have_is_refused() -> None:
    with pytest.raises(NaturelmError, match="NatureLM has no part whisper") as error:
        load_model(SMALL_MODEL, device="cpu", whisper="openai/whisper-large-v2")
    one_sentence(error)


def test_checkpoint_with_half_a_base_llm_is_not_filled_with_random_numbers(tmp_path: Path) -> None:
    shutil.copytree(SALMONN_PARITY, tmp_path / "half")
    tensors = load_file(SALMONN_PARITY / "model.safetensors")
    del tensors["llama_model.base_model.model.model.norm.weight"]
    save_file(tensors, tmp_path / "half/model.safetensors")
    with pytest.raises(NaturelmError, match=r"1 missing \(llama_model.base_model.model.model.norm.weight\)"):
        load_model(tmp_path / "half", device="cpu")


def test_prompt_with_two_places_for_sound_is_refused(salmonn: SALMONN) -> None:
    with pytest.raises(NaturelmError, match="<SpeechHere> 2 times") as error:
        salmonn.prompt_tokens("<Speech><SpeechHere></Speech> and <SpeechHere>")
    one_sentence(error)


def test_prompt_without_sound_is_refused(salmonn: SALMONN) -> None:
    with pytest.raises(NaturelmError, match="SALMONN answers prompts about sound only"):
        salmonn.generate(None, ["Caption the audio."])


def test_settings_out_of_range_are_refused_by_name() -> None:
    for values in ({"window_s": 40.0}, {"second_stride": 0.0}, {"whisper": {"d_model": "wide"}}):
        with pytest.raises(NaturelmError, match=next(iter(values))):
            SalmonnConfig.from_dict(values)


def test_names_are_one_table_in_both_directions() -> None:
    assert isinstance(NAMES, NameTable)
    name = "speech_encoder.layers.31.fc1.weight"
    assert NAMES.published(str(NAMES.ours(name))) == name
