"""What the model does with sound and prompts, whatever the weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from naturelm.errors import NaturelmError
from naturelm.models import NatureLM
from tests.paths import SMALL_PARITY


@torch.inference_mode()
def test_short_sound_is_padded_with_silence_and_long_sound_cut(model: NatureLM) -> None:
    sound = torch.randn(1, 200_000) * 0.1
    padded = torch.nn.functional.pad(sound[:, :50_000], (0, 110_000))
    assert torch.equal(model.encode_audio(sound[:, :50_000]), model.encode_audio(padded))
    assert torch.equal(model.encode_audio(sound), model.encode_audio(sound[:, :160_000]))


@torch.inference_mode()
def test_sound_beyond_full_scale_is_clamped(model: NatureLM) -> None:
    sound = torch.randn(1, 160_000) * 3
    assert torch.equal(model.encode_audio(sound), model.encode_audio(sound.clamp(-1, 1)))


@pytest.mark.parametrize("shape", [(160_000,), (1, 2, 160_000)])
def test_sound_of_another_shape_is_refused(model: NatureLM, shape: tuple[int, ...]) -> None:
    with pytest.raises(NaturelmError, match="shape"):
        model.encode_audio(torch.zeros(shape))


def test_number_of_prompts_must_be_that_of_windows(model: NatureLM) -> None:
    with pytest.raises(NaturelmError, match="2 prompts for 1 windows"):
        model.generate(torch.zeros(1, 160_000), ["a", "b"])


@pytest.mark.parametrize("setting", [{"max_new_tokens": 0}, {"num_beams": 0}])
def test_generation_settings_below_one_are_refused(model: NatureLM, setting: dict[str, int]) -> None:
    with pytest.raises(NaturelmError, match=next(iter(setting))):
        model.generate(torch.zeros(1, 160_000), ["a"], **setting)


def test_token_scores_are_the_probabilities_of_the_greedy_choice(model: NatureLM) -> None:
    waveforms = torch.randn(1, 160_000, generator=torch.Generator().manual_seed(0)) * 0.1
    (answer,) = model.generate(waveforms, ["What is it?"], max_new_tokens=6, num_beams=1)
    with torch.inference_mode():
        embeds, _ = model.embed_prompts(model.encode_audio(waveforms), ["What is it?"])
        for token, score in zip(answer.token_ids, answer.token_scores, strict=True):
            best, choice = model.llama(inputs_embeds=embeds).logits[0, -1].softmax(-1).max(-1)
            assert choice.item() == token
            assert best.item() == pytest.approx(score, rel=1e-4)
            embeds = torch.cat([embeds, model.embed_tokens([token])[None]], dim=1)


def test_answer_stops_before_its_end_token_and_has_its_probability_if_empty(model: NatureLM) -> None:
    (end, *_) = model.end_token_ids
    ids = model.tokenizer("Robin").input_ids
    assert model.make_answer([*ids, end], [-1.0] * len(ids) + [-5.0]).token_ids == tuple(ids)
    assert model.make_answer([end], [-0.5]).score == pytest.approx(0.60653, abs=1e-5)


@torch.inference_mode()
def test_beats_hears_the_same_window_the_same_in_any_batch(model: NatureLM) -> None:
    waveforms = torch.randn(3, 160_000, generator=torch.Generator().manual_seed(1)) * 0.1
    together = model.encode_audio(waveforms)
    for i in range(3):
        torch.testing.assert_close(
            model.encode_audio(waveforms[i : i + 1])[0], together[i], atol=1e-4, rtol=0
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_gpu_gives_the_cpus_audio_tokens(model: NatureLM, small_release) -> None:
    on_gpu = NatureLM.from_pretrained(small_release, device="cuda", dtype=torch.float32)
    waveforms = torch.randn(2, 160_000) * 0.1
    with torch.inference_mode():
        expected = model.encode_audio(waveforms)
        error = (on_gpu.encode_audio(waveforms).cpu() - expected).abs().max() / expected.abs().max()
    assert error < 1e-3


# -- sound at its own length ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_lengths() -> dict[str, Any]:
    arrays = np.load(SMALL_PARITY / "golden_lengths.npz")
    return {**arrays, **json.loads((SMALL_PARITY / "golden_lengths.json").read_text(encoding="utf-8"))}


@pytest.mark.parametrize(("length", "tokens"), [("3s", 8), ("5s", 14), ("20s", 58)])
@torch.inference_mode()
def test_sound_without_padding_gives_the_published_tokens(
    model: NatureLM, golden_lengths: dict[str, Any], length: str, tokens: int
) -> None:
    waveforms = torch.from_numpy(golden_lengths[f"wav_{length}"])
    ours = model.encode_audio(waveforms, pad_to_window=False)
    published = golden_lengths[f"audio_embeds_{length}"]
    assert model.audio_token_count(waveforms.shape[1], pad_to_window=False) == ours.shape[1] == tokens
    assert np.abs(ours.numpy() - published).max() < 1e-4 * np.abs(published).max()


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("length", ["3s", "5s", "20s"])
def test_answers_about_sound_without_padding_are_the_published_ones(
    model: NatureLM, golden_lengths: dict[str, Any], length: str, beams: int
) -> None:
    waveforms = torch.from_numpy(golden_lengths[f"wav_{length}"])
    answers = model.generate(
        waveforms,
        [golden_lengths["prompt"]] * len(waveforms),
        max_new_tokens=24,
        num_beams=beams,
        pad_to_window=False,
    )
    published = golden_lengths["generated"][length][f"beams{beams}_ids"]
    assert [list(answer.token_ids) for answer in answers] == published


def test_sound_too_short_to_become_a_token_is_refused(model: NatureLM) -> None:
    with pytest.raises(NaturelmError, match=r"0\.3 s gives no audio tokens; give at least 0\.5 s"):
        model.encode_audio(torch.zeros(1, 4_800), pad_to_window=False)
    assert model.encode_audio(torch.zeros(1, 8_000), pad_to_window=False).shape[1] == 1
