"""LTU gives the published implementation's numbers, with and without sound, and accounts for every published tensor."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from naturelm.errors import NaturelmError
from naturelm.models import LTU, load_model
from naturelm.models.ltu.config import LtuConfig
from naturelm.models.ltu.names import NAMES
from naturelm.models.parts.llama import load_tokenizer
from tests.paths import LTU_PARITY

RELEASE = LTU_PARITY / "release"
VICUNA_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
)


@pytest.fixture(scope="module")
def ltu() -> LTU:
    return LTU.from_pretrained(RELEASE, device="cpu")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    arrays = np.load(LTU_PARITY / "golden.npz")
    return {**arrays, **json.loads((LTU_PARITY / "golden.json").read_text(encoding="utf-8"))}


def sound_of(golden: dict[str, Any], case: int) -> torch.Tensor | None:
    return None if golden["cases"][case]["wav"] is None else torch.from_numpy(golden[f"wav_{case}"])[None]


def relative_error(ours: torch.Tensor, golden: np.ndarray) -> float:
    return float(np.abs(ours.numpy() - golden).max() / np.abs(golden).max())


# -- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [0, 1])
def test_filterbank_equals_the_published_one(ltu: LTU, golden: dict[str, Any], case: int) -> None:
    """To 1e-4, but for bins far below a frame's loudest: float32 transforms round differently there."""
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi", reason="torchaudio is not installed")
    sound = sound_of(golden, case)
    assert sound is not None
    here = kaldi.fbank(
        sound - sound.mean(),
        htk_compat=True,
        sample_frequency=16000,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    frames = here.shape[0]
    ours, published = ltu.features(sound)[0], golden["fbank"][case]
    np.testing.assert_allclose(ours[:frames].numpy(), ((here + 5.081) / 4.4849).numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(ours[frames:].numpy(), published[frames:], atol=1e-6, rtol=0)
    rounding = np.abs(((here + 5.081) / 4.4849).numpy() - published[:frames])
    assert rounding.max() < 1e-2
    assert (np.abs(ours[:frames].numpy() - published[:frames]) <= 1e-4 + rounding).all()


@pytest.mark.parametrize("case", [0, 1])
@torch.inference_mode()
def test_encoder_and_audio_tokens_equal_the_published_ones(
    ltu: LTU, golden: dict[str, Any], case: int
) -> None:
    sound = sound_of(golden, case)
    assert relative_error(ltu.encode_features(sound)[0], golden[f"audio_encoder_{case}"]) < 1e-4
    tokens = ltu.encode_audio(sound)
    assert tokens.shape == (1, 32, 64)
    assert relative_error(tokens[0], golden[f"audio_tokens_{case}"]) < 1e-5


@pytest.mark.parametrize("case", [0, 1, 2])
@torch.inference_mode()
def test_prompt_and_logits_equal_the_published_ones(ltu: LTU, golden: dict[str, Any], case: int) -> None:
    published = golden["cases"][case]
    tokens = ltu.prompt_tokens(published["instruction"])
    assert tokens.head == ()
    assert list(tokens.tail) == published["input_ids"]
    assert ltu.layout.text(published["instruction"]) == published["prompt"]
    sound = sound_of(golden, case)
    audio = ltu.encode_audio(torch.zeros(1, 0) if sound is None else sound)
    assert audio.shape[1] == (0 if sound is None else 32)
    embeds, mask = ltu.embed_prompts(audio, [published["instruction"]])
    logits = ltu.llama(inputs_embeds=embeds, attention_mask=mask).logits[0, -1]
    np.testing.assert_allclose(logits.numpy(), golden[f"logits_last_{case}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize(("key", "penalty"), [("greedy_topk1", 1.0), ("greedy_topk1_reppen1.1", 1.1)])
def test_generated_tokens_equal_the_published_ones(
    ltu: LTU, golden: dict[str, Any], case: int, key: str, penalty: float
) -> None:
    published = golden["cases"][case]
    (answer,) = ltu.generate(
        sound_of(golden, case),
        [published["instruction"]],
        max_new_tokens=12,
        num_beams=1,
        repetition_penalty=penalty,
    )
    assert list(answer.token_ids) == published[key]["ids"]


def test_answers_have_their_tokens_ends_in_the_text(ltu: LTU, golden: dict[str, Any]) -> None:
    """SentencePiece's tokens hold the space before a word, and single bytes."""
    (answer,) = ltu.generate(None, [golden["cases"][2]["instruction"]], max_new_tokens=12, num_beams=1)
    assert len(answer.token_ends) == 12
    assert list(answer.token_ends) == sorted(answer.token_ends)
    assert answer.token_ends[-1] == len(answer.text)
    assert "\u2581" not in answer.text


@torch.inference_mode()
def test_sound_longer_than_the_encoder_takes_is_cut(ltu: LTU) -> None:
    sound = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 176_000)).astype(np.float32))
    sound -= sound.mean()
    features = ltu.features(sound)
    assert features.shape == (1, 1024, 128)
    assert not torch.allclose(features[0, -1], torch.full((128,), 5.081 / 4.4849))


# -- names ---------------------------------------------------------------------------------------------------------


def test_all_376_published_tensors_are_accounted_for(golden: dict[str, Any]) -> None:
    published = golden["full_size_release"]
    assert len(published["keys"]) == published["n_keys"] == 376
    assert (
        sum(math.prod(shape) for shape in published["keys"].values()) == published["n_params"] == 93_065_216
    )
    tokenizer = load_tokenizer(LTU_PARITY / "llm")
    model = LTU.from_config(LtuConfig(), VICUNA_7B, tokenizer, "meta", torch.bfloat16)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    used = {name: NAMES.ours(name) for name in published["keys"]}
    unused = {name for name, ours in used.items() if ours is None}
    # Norms of video frames, and of sound in the layers whose other norms are used.
    assert {name.split(".")[-2] for name in unused if "blocks_a" in name} == {
        *("norm1_a", "norm1_v", "norm2_a", "norm2_v")
    }
    assert {name.split(".")[-2] for name in unused if "blocks_u" in name} == {
        *("norm1", "norm1_v", "norm2", "norm2_v")
    }
    assert all("blocks_" in name for name in unused)
    assert {ours: published["keys"][name] for name, ours in used.items() if ours} == {
        name: shape for name, shape in shapes.items() if not NAMES.is_base_llm(NAMES.published(name))
    }


# -- checkpoints ---------------------------------------------------------------------------------------------------


def test_published_file_loads_without_config_json_where_sizes_are_the_defaults(tmp_path: Path) -> None:
    """A small one does not have these sizes; the error says so, of the file that was given."""
    torch.save(torch.load(RELEASE / "ltu_small.bin", weights_only=True), tmp_path / "ltu.bin")
    with pytest.raises(NaturelmError, match=r"ltu.bin does not fit .*instead of \[768\]") as error:
        LTU.from_pretrained(tmp_path / "ltu.bin", llm=LTU_PARITY / "llm", device="cpu")
    assert "\n" not in str(error.value)


def test_saved_model_loads_as_the_same_model(ltu: LTU, tmp_path: Path) -> None:
    ltu.save_pretrained(tmp_path / "saved", with_llm=True)
    loaded = load_model(tmp_path / "saved", device="cpu")
    assert isinstance(loaded, LTU)
    ours, theirs = loaded.state_dict(), ltu.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert loaded.config.lora_dropout == ltu.config.lora_dropout


def test_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    class Boom:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"base_model.model.model.audio_proj.1.weight": Boom()}, tmp_path / "ltu.bin")
    with pytest.raises(NaturelmError, match="holds no readable weights") as error:
        load_model(tmp_path / "ltu.bin", device="cpu")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_empty_query_is_refused(ltu: LTU) -> None:
    with pytest.raises(NaturelmError, match="no text"):
        ltu.prompt_tokens("  ")


def test_encoder_sizes_that_cannot_be_met_are_refused_by_name() -> None:
    for values in (
        {"modality_specific_depth": 12},
        {"num_heads": 7},
        {"audio_length": 1000},
    ):
        with pytest.raises(NaturelmError, match=next(iter(values))):
            LtuConfig.from_dict({"audio_encoder": values})
