"""The engine gives each family's published answers, whatever is batched with what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from naturelm.engine import Engine, EngineQuery
from naturelm.errors import NaturelmError
from naturelm.models import LTU, SALMONN, NatureLM
from tests.paths import LTU_PARITY, SALMONN_PARITY, SMALL_MODEL, SMALL_PARITY


@pytest.fixture(scope="module")
def ltu() -> LTU:
    return LTU.from_pretrained(LTU_PARITY / "release", device="cpu")


@pytest.fixture(scope="module")
def salmonn() -> SALMONN:
    return SALMONN.from_pretrained(SALMONN_PARITY, device="cpu")


def golden(folder: Path, name: str) -> dict[str, Any]:
    numbers = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return {**np.load(folder / f"{name}.npz"), **numbers}


@pytest.mark.parametrize("length", ["10s", "5s"])
def test_salmonn_answers_mixed_prompts_with_four_beams_as_published(salmonn: SALMONN, length: str) -> None:
    published = golden(SALMONN_PARITY, "golden_lengths")
    queries = [EngineQuery(prompt, max_new_tokens=16) for prompt in published["prompts"]]
    rows = Engine(salmonn, queries, num_beams=4).answer(published[f"wav_{length}"])
    for i, answer in enumerate(published["generated_beams4"][length]):
        assert list(rows[i][i].token_ids) == answer["ids"]


@pytest.mark.parametrize(("key", "penalty"), [("greedy_topk1", 1.0), ("greedy_topk1_reppen1.1", 1.1)])
def test_ltu_answers_with_and_without_sound_as_published(ltu: LTU, key: str, penalty: float) -> None:
    published = golden(LTU_PARITY, "golden")
    cases = published["cases"]
    queries = [EngineQuery(case["instruction"], max_new_tokens=12) for case in cases]
    engine = Engine(ltu, queries, repetition_penalty=penalty)
    for i, case in enumerate(cases):
        sound = np.zeros((1, 0), np.float32) if case["wav"] is None else published[f"wav_{i}"][None]
        assert list(engine.answer(sound)[0][i].token_ids) == case[key]["ids"]


def test_draws_depend_on_neither_batch_nor_other_queries(ltu: LTU) -> None:
    settings: dict[str, Any] = {
        "do_sample": True,
        "temperature": 0.9,
        "top_p": 0.95,
        "top_k": 50,
        "repetition_penalty": 1.1,
    }
    queries = [EngineQuery(text, max_new_tokens=10) for text in ("What is heard?", "Which bird sings here?")]
    sounds = np.random.default_rng(0).normal(0, 0.1, (5, 48_000)).astype(np.float32)
    together = Engine(ltu, queries, **settings).answer(sounds)
    alone = Engine(ltu, queries[1:], batch_size=1, **settings).answer(sounds)
    assert [row[1].token_ids for row in together] == [row[0].token_ids for row in alone]
    greedy = Engine(ltu, queries, do_sample=True, top_k=1).answer(sounds)
    likeliest = Engine(ltu, queries).answer(sounds)
    assert [[a.token_ids for a in row] for row in greedy] == [[a.token_ids for a in row] for row in likeliest]
    assert [row[1].token_ids for row in together] != [row[1].token_ids for row in likeliest]


@pytest.mark.parametrize("beams", [2, 4])
def test_repetition_penalty_with_beams_gives_what_generate_gives(salmonn: SALMONN, beams: int) -> None:
    published = golden(SALMONN_PARITY, "golden_lengths")
    prompts, sound = published["prompts"], published["wav_5s"]
    queries = [EngineQuery(prompt, max_new_tokens=12) for prompt in prompts]
    rows = Engine(salmonn, queries, num_beams=beams, repetition_penalty=1.3).answer(sound)
    for i, prompt in enumerate(prompts):
        plain = salmonn.generate(torch.from_numpy(sound), [prompt] * 2, 12, beams, repetition_penalty=1.3)
        assert [row[i].token_ids for row in rows] == [answer.token_ids for answer in plain]
        for row, answer in zip(rows, plain, strict=True):
            assert row[i].token_scores == pytest.approx(answer.token_scores, abs=1e-4)
    free = Engine(salmonn, queries, num_beams=beams).answer(sound)
    assert [a.token_ids for row in free for a in row] != [a.token_ids for row in rows for a in row]


def test_salmonn_takes_sound_of_several_lengths_and_mixed_prompts_in_one_call(salmonn: SALMONN) -> None:
    published = golden(SALMONN_PARITY, "golden_lengths")
    queries = [EngineQuery(prompt, max_new_tokens=16) for prompt in published["prompts"]]
    sounds = [
        published["wav_10s"][0],
        published["wav_5s"][1],
        published["wav_5s"][0],
        published["wav_10s"][1],
    ]
    rows = Engine(salmonn, queries, num_beams=4, batch_size=3).answer(sounds)
    for place, (length, i) in enumerate((("10s", 0), ("5s", 1), ("5s", 0), ("10s", 1))):
        assert list(rows[place][i].token_ids) == published["generated_beams4"][length][i]["ids"]


def test_ltu_takes_windows_with_and_without_sound_in_one_call(ltu: LTU) -> None:
    published = golden(LTU_PARITY, "golden")
    cases = published["cases"]
    queries = [EngineQuery(case["instruction"], max_new_tokens=12) for case in cases]
    sounds = [
        np.zeros(0, np.float32) if case["wav"] is None else published[f"wav_{i}"]
        for i, case in enumerate(cases)
    ]
    rows = Engine(ltu, queries).answer(sounds)
    for i, case in enumerate(cases):
        assert list(rows[i][i].token_ids) == case["greedy_topk1"]["ids"]


def test_naturelm_takes_sound_of_several_lengths_in_one_call() -> None:
    model = NatureLM.from_pretrained(SMALL_MODEL, device="cpu")
    published = golden(SMALL_PARITY, "golden_lengths")
    lengths = {"5s": 14, "20s": 58, "3s": 8}
    assert [model.audio_token_count(published[f"wav_{n}"].shape[1], False) for n in lengths] == [14, 58, 8]
    sounds = [sound for name in lengths for sound in published[f"wav_{name}"]]
    query = EngineQuery(published["prompt"], max_new_tokens=24)
    for beams in (1, 2):
        engine = Engine(model, [query], num_beams=beams, pad_to_window=False)
        rows = engine.answer(sounds)
        alone = [engine.answer(sound[None])[0] for sound in sounds]
        assert [row[0].token_ids for row in rows] == [row[0].token_ids for row in alone]
    answers, vectors = engine.answer_and_embed(sounds, "mean")
    assert [row[0].token_ids for row in answers] == [row[0].token_ids for row in rows]
    for sound, vector in zip(sounds, vectors, strict=True):
        own = model.encode_features(torch.from_numpy(sound[None]), pad_to_window=False).mean(dim=1)[0]
        np.testing.assert_allclose(vector, own.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("length", ["3s", "5s", "20s"])
def test_naturelm_takes_sound_at_its_own_length(length: str) -> None:
    model = NatureLM.from_pretrained(SMALL_MODEL, device="cpu")
    published = golden(SMALL_PARITY, "golden_lengths")
    sound, prompt = published[f"wav_{length}"], published["prompt"]
    engine = Engine(model, [EngineQuery(prompt, max_new_tokens=24)], pad_to_window=False)
    plain = model.generate(
        torch.from_numpy(sound), [prompt] * len(sound), 24, num_beams=1, pad_to_window=False
    )
    assert [row[0].token_ids for row in engine.answer(sound)] == [answer.token_ids for answer in plain]


def test_closed_lists_of_sentence_pieces_give_text_and_exact_shares(salmonn: SALMONN) -> None:
    query = EngineQuery("Which animal?", labels=("owl hoot", "wren", "a frog"))
    ((answer,),) = Engine(salmonn, [query]).answer(np.zeros((1, 48_000), np.float32))
    assert {label for label, _ in answer.candidates} == {"owl hoot", "wren", "a frog", "None"}
    assert sum(share for _, share in answer.candidates) == pytest.approx(1.0)
    assert answer.text == answer.candidates[0][0]
    assert answer.token_ends[-1] == len(answer.text)


def test_sound_beyond_the_window_is_refused_where_it_would_be_cut(ltu: LTU) -> None:
    engine = Engine(ltu, [EngineQuery("What is heard?")], pad_to_window=False)
    with pytest.raises(NaturelmError, match="use windows of at most 10"):
        engine.answer(np.zeros((1, 200_000), np.float32))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0"),
    ],
)
def test_settings_out_of_range_are_refused(ltu: LTU, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(NaturelmError, match=named):
        Engine(ltu, [EngineQuery("What is heard?")], **settings)
