"""The published implementation's numbers, for a small checkpoint in the published layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from naturelm.models import NatureLM
from naturelm.models.parts.fbank import BEATS_MEAN, BEATS_STD, beats_features
from tests.models.test_parity_8b import filled


def relative_error(ours: torch.Tensor, golden: np.ndarray) -> float:
    return float(np.abs(ours.detach().numpy() - golden).max() / np.abs(golden).max())


def last_logits(model: NatureLM, waveforms: torch.Tensor, prompts: list[str]) -> np.ndarray:
    embeds, mask = model.embed_prompts(model.encode_audio(waveforms), prompts)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return (
        model.llama(inputs_embeds=embeds, attention_mask=mask, position_ids=positions).logits[:, -1].numpy()
    )


def test_filterbank_equals_the_published_one(waveforms: torch.Tensor, golden: dict[str, Any]) -> None:
    """To 1e-4, but for bins far below a frame's loudest: float32 transforms round differently there on each processor.

    The published one does too: torchaudio, on this processor, says by how much.
    """
    ours = beats_features(waveforms).numpy()
    here = [
        kaldi.fbank(waveform[None] * 2**15, num_mel_bins=128, sample_frequency=16000.0)
        for waveform in waveforms
    ]
    published = ((torch.stack(here) - BEATS_MEAN) / (2 * BEATS_STD)).numpy()
    np.testing.assert_allclose(ours, published, atol=1e-4, rtol=0)
    rounding = np.abs(published - golden["fbank"])
    assert np.mean(rounding > 1e-5) < 1e-2
    assert rounding.max() < 1e-2
    assert (np.abs(ours - golden["fbank"]) <= 1e-4 + rounding).all()


@torch.inference_mode()
def test_beats_equals_the_published_one(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any]
) -> None:
    assert relative_error(model.beats(waveforms), golden["beats"]) < 1e-4


@torch.inference_mode()
def test_audio_tokens_equal_the_published_ones(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any]
) -> None:
    tokens = model.encode_audio(waveforms)
    assert tokens.shape == (3, 29, 64)
    assert relative_error(tokens, golden["audio_embeds"]) < 1e-4


@torch.inference_mode()
def test_prompt_is_assembled_as_published(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any]
) -> None:
    audio = model.encode_audio(waveforms)
    lengths = golden["attention_mask"].sum(axis=1)
    for i, prompt in enumerate(golden["prompts"]):
        embeds, mask = model.embed_prompts(audio[i : i + 1], [prompt])
        assert mask.all()
        assert embeds.shape[1] == lengths[i]
        # The published code pads on the right: its rows hold the prompt first.
        np.testing.assert_allclose(embeds[0].numpy(), golden["inputs_embeds"][i, : lengths[i]], atol=1e-4)


@pytest.mark.parametrize(("alpha", "key"), [(1.0, "logits_last"), (0.5, "logits_last_alpha0.5")])
@torch.inference_mode()
def test_logits_equal_the_published_ones(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any], alpha: float, key: str
) -> None:
    model.merging_alpha = alpha
    logits = last_logits(model, waveforms, golden["prompts"])
    # The published code adds a [PAD] row to the vocabulary, which releases do not carry.
    np.testing.assert_allclose(logits, golden[key][:, : logits.shape[1]], atol=1e-3, rtol=0)


@torch.inference_mode()
def test_merging_alpha_can_be_set_and_set_back(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any]
) -> None:
    before = last_logits(model, waveforms, golden["prompts"])
    model.merging_alpha = 0.3
    model.merging_alpha = 0.5
    halved = last_logits(model, waveforms, golden["prompts"])
    assert np.abs(halved - before).max() > 0.01
    np.testing.assert_allclose(halved, golden["logits_last_alpha0.5"][:, :384], atol=1e-3, rtol=0)
    model.merging_alpha = 1.0
    np.testing.assert_array_equal(last_logits(model, waveforms, golden["prompts"]), before)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@torch.inference_mode()
def test_merged_language_model_gives_the_same_logits(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any], alpha: float
) -> None:
    model.merging_alpha = alpha
    embeds, mask = model.embed_prompts(model.encode_audio(waveforms[:1]), golden["prompts"][:1])
    merged = model.merged_language_model()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    ours = merged(inputs_embeds=embeds, attention_mask=mask).logits
    theirs = model.llama(inputs_embeds=embeds, attention_mask=mask).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("beams", [1, 2])
def test_generated_tokens_equal_the_published_ones(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any], beams: int
) -> None:
    for i, prompt in enumerate(golden["prompts"]):
        (answer,) = model.generate(waveforms[i : i + 1], [prompt], max_new_tokens=24, num_beams=beams)
        assert list(answer.token_ids) == golden["generated"][f"beams{beams}_ids"][i]
        assert answer.text == golden["generated"][f"beams{beams}"][i].strip()


@pytest.mark.parametrize("beams", [1, 2])
def test_batch_of_prompts_of_different_lengths_answers_as_single_runs(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any], beams: int
) -> None:
    batch = model.generate(waveforms, golden["prompts"], max_new_tokens=24, num_beams=beams)
    assert [list(answer.token_ids) for answer in batch] == golden["generated"][f"beams{beams}_ids"]
    for i, together in enumerate(batch):
        (alone,) = model.generate(
            waveforms[i : i + 1], golden["prompts"][i : i + 1], max_new_tokens=24, num_beams=beams
        )
        assert together.score == pytest.approx(alone.score, rel=1e-4)


@pytest.fixture
def with_padding_row(model: NatureLM) -> Iterator[NatureLM]:
    """The model with the row that the published code adds to the vocabulary, for [PAD], before it trains.

    Releases do not carry it, but the reference's weights were drawn by name (`filled`), so it can be drawn again.
    """
    name = "llama_model.base_model.model.lm_head.weight"
    plain = model.language_model.lm_head
    rows = filled(name, [plain.out_features + 1, plain.in_features], last_bias="")
    torch.testing.assert_close(rows[:-1], plain.weight)
    model.language_model.lm_head = torch.nn.Linear(plain.in_features, len(rows), bias=False)
    model.language_model.lm_head.weight = torch.nn.Parameter(rows)
    yield model
    model.language_model.lm_head = plain


@torch.inference_mode()
def test_training_loss_equals_the_published_one(
    with_padding_row: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any]
) -> None:
    model, arguments = with_padding_row, (waveforms, golden["prompts"], golden["answers"])
    np.testing.assert_allclose(
        last_logits(model, waveforms, golden["prompts"]), golden["logits_last"], atol=1e-3
    )
    np.testing.assert_allclose(
        model.per_example_loss(*arguments).numpy(), golden["per_example_loss"], atol=1e-4, rtol=0
    )
    assert model.loss(*arguments).item() == pytest.approx(float(golden["loss"]), abs=1e-4)


@torch.inference_mode()
def test_training_loss_is_the_mean_over_answer_and_end_tokens(
    model: NatureLM, waveforms: torch.Tensor, golden: dict[str, Any]
) -> None:
    tokens = [[*model.tokenizer(text).input_ids, 383] for text in golden["answers"]]
    total, count = 0.0, 0
    for i, ids in enumerate(tokens):
        embeds, _ = model.embed_prompts(
            model.encode_audio(waveforms[i : i + 1]), golden["prompts"][i : i + 1], [ids]
        )
        logits = model.llama(inputs_embeds=embeds).logits[0, -len(ids) - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="none")
        total, count = total + losses.sum().item(), count + len(ids)
    loss = model.loss(waveforms, golden["prompts"], golden["answers"])
    assert loss.item() == pytest.approx(total / count, abs=1e-5)
