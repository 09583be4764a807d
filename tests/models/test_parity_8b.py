"""The released full-size model: every tensor's name and shape, and the audio branch's numbers."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from naturelm.models import NatureLM
from naturelm.models.naturelm.config import NatureLMConfig
from naturelm.models.naturelm.names import NAMES
from naturelm.models.parts.llama import new_llama
from tests.paths import FULL_PARITY

LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


@pytest.fixture(scope="module")
def published() -> dict[str, list[int]]:
    """Published name -> shape, of the whole training state."""
    return {name: shape for name, (shape, _) in json.loads((FULL_PARITY / "keys.json").read_text()).items()}


@pytest.fixture(scope="module")
def audio_branch(small_tokenizer: Any) -> NatureLM:
    """The audio branch at full size; the language model only in shape."""
    llama = new_llama(LLAMA_8B, torch.bfloat16, "meta")
    return NatureLM(NatureLMConfig(), llama, small_tokenizer)


@pytest.fixture(scope="module")
def small_tokenizer(small_release: Path) -> Any:
    from naturelm.models.parts.llama import load_tokenizer

    return load_tokenizer(small_release.parent / "llm")


def filled(name: str, shape: list[int], last_bias: str) -> torch.Tensor:
    """Weights by name, the same on every machine; all names of the shared bias get the last one's values."""
    source = last_bias if "relative_attention_bias" in name else name
    rng = np.random.default_rng(zlib.crc32(source.encode()))
    values = rng.standard_normal(tuple(shape), dtype=np.float32)
    if any(part in name for part in ("embed_tokens", "relative_attention_bias", "query_tokens")):
        # The generator goes on from where the first draw left it.
        values = rng.standard_normal(tuple(shape), dtype=np.float32) * np.float32(0.5)
    elif len(shape) >= 2:
        values *= 1.0 / np.sqrt(int(np.prod(shape[1:])))
    elif name.endswith(("weight", "weight_g")):
        values = 1.0 + 0.1 * values
    else:
        values *= 0.02
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def test_all_860_published_tensors_are_accounted_for(
    published: dict[str, list[int]], small_tokenizer: Any
) -> None:
    model = NatureLM.from_config(NatureLMConfig(), LLAMA_8B, small_tokenizer, "meta", torch.bfloat16)
    ours = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    used = {name: NAMES.ours(name) for name in published}
    assert len(published) == 860
    assert {name for name, target in used.items() if target is None} == {
        "beats.predictor.weight",
        "beats.predictor.bias",
        "audio_Qformer.bert.embeddings.position_ids",
    }
    assert {name: published[name] for name, target in used.items() if target} == {
        name: ours[target] for name, target in used.items() if target
    }
    assert set(ours) == {target for target in used.values() if target}


def test_released_model_hears_ten_seconds_as_29_tokens(audio_branch: NatureLM) -> None:
    assert audio_branch.audio_tokens == 29
    assert audio_branch.natural_window_samples == 160_000


@torch.inference_mode()
@pytest.mark.slow
def test_full_size_audio_branch_equals_the_published_one(
    audio_branch: NatureLM, published: dict[str, list[int]]
) -> None:
    audio_names = [name for name in published if not name.startswith("llama")]
    last_bias = "beats.encoder.layers.11.self_attn.relative_attention_bias.weight"
    targets = audio_branch.state_dict()
    for name in audio_names:
        ours = NAMES.ours(name)
        if ours is not None:
            targets[ours].copy_(filled(name, published[name], last_bias))
    golden = np.load(FULL_PARITY / "audio.npz")

    waveforms = torch.from_numpy(golden["wav"])
    beats = audio_branch.beats(waveforms)
    tokens = audio_branch.encode_audio(waveforms)

    assert beats.shape == (2, 496, 768)
    assert tokens.shape == (2, 29, 4096)
    for ours_array, theirs in ((beats[:, ::8], golden["beats"]), (tokens[..., ::8], golden["audio_embeds"])):
        error = np.abs(ours_array.numpy() - theirs).max() / np.abs(theirs).max()
        assert error < 1e-4
