"""Closed label lists: exact, whatever is read of the trie."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naturelm.engine import trie as engine_labels
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery
from naturelm.engine.trie import LabelTrie
from naturelm.errors import NaturelmError
from naturelm.models import NatureLM
from tests.paths import SMALL_MODEL, SMALL_PARITY

PROMPT = "What is the common name for the focal species in the audio? Answer:"
FEW = ("Owl", "Owl hoot", "Green Treefrog", "Green Tree", "Gibbon")
LIKE_SPECIAL_TOKENS = ("<|eot_id|>", "<|begin_of_text|>", "</s>", "<Audio><AudioHere></Audio>")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def model() -> NatureLM:
    return NatureLM.from_pretrained(SMALL_MODEL)


@cache
def windows() -> np.ndarray:
    return np.load(SMALL_PARITY / "golden.npz")["wav"]


def species(count: int) -> tuple[str, ...]:
    """Made-up names that share words, as real lists do."""
    colours = ("Green", "Grey", "Great", "Red", "Black", "Brown")
    parts = ("throated", "headed", "backed", "tailed", "eared")
    animals = ("Treefrog", "Owl", "Bat", "Bunting", "Gibbon", "Whale", "Warbler", "Wren")
    names = [f"{c}-{p} {a}" for a in animals for c in colours for p in parts]
    return tuple(names[:count])


@cache
def one_by_one(window: int, labels: tuple[str, ...]) -> dict[str, float]:
    """Log-probability of each label and the answer's end after it: one pass over prompt and label for each."""
    asked = model()
    tokens = asked.prompt_tokens(PROMPT)
    scores = {}
    with torch.inference_mode():
        audio = asked.encode_audio(torch.from_numpy(windows()[window : window + 1]))[0]
        for label in labels:
            ids = asked.text_tokens(label)
            row = torch.cat(
                [asked.embed_tokens(tokens.head), audio, asked.embed_tokens([*tokens.tail, *ids])]
            )
            log_probs = (
                asked.llama(inputs_embeds=row[None]).logits[0, -len(ids) - 1 :].double().log_softmax(-1)
            )
            of_tokens = sum(log_probs[i, token].item() for i, token in enumerate(ids))
            scores[label] = of_tokens + log_probs[-1, list(asked.end_token_ids)].logsumexp(-1).item()
    return scores


def expected_candidates(window: int, labels: tuple[str, ...], top_k: int) -> list[tuple[str, float]]:
    scores = one_by_one(window, labels)
    total = np.logaddexp.reduce(list(scores.values()))
    best = sorted(scores, key=lambda label: -scores[label])[:top_k]
    return [(label, float(np.exp(scores[label] - total))) for label in best]


def assert_exact(labels: tuple[str, ...], top_k: int = 5, batch_size: int | None = None) -> None:
    engine = Engine(model(), [EngineQuery(PROMPT, labels=labels, top_k=top_k)], batch_size=batch_size)
    listed = labels if "None" in labels else (*labels, "None")
    for window, (answer,) in enumerate(engine.answer(windows())):
        expected = expected_candidates(window, listed, top_k)
        assert [label for label, _ in answer.candidates] == [label for label, _ in expected]
        for (_, ours), (_, theirs) in zip(answer.candidates, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
        assert answer.text == expected[0][0]


# -- exact ---------------------------------------------------------------------------------------------------------


def test_a_short_list_scores_as_each_label_by_itself() -> None:
    assert_exact(FEW, top_k=6)


def test_labels_that_read_like_special_tokens_are_scored_as_text() -> None:
    assert_exact((*LIKE_SPECIAL_TOKENS, "Owl"), top_k=6)
    special = set(model().tokenizer.all_special_ids)
    assert not any(special & set(model().text_tokens(label)) for label in LIKE_SPECIAL_TOKENS)


def test_a_long_list_scores_as_each_label_by_itself() -> None:
    assert_exact(species(200))


def test_only_what_could_matter_of_a_long_list_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    read_nodes = engine_labels._TrieSearch.read_nodes

    def counting(self: Any, wave_WM: np.ndarray) -> None:
        read.append((wave_WM >= 0).sum())
        read_nodes(self, wave_WM)

    monkeypatch.setattr(engine_labels._TrieSearch, "read_nodes", counting)
    assert_exact(species(200), top_k=1)
    trie = LabelTrie(species(200), model().tokenizer.encode)
    assert sum(read) < 0.5 * trie.size * len(windows())


@settings(max_examples=settings.default.max_examples // 3)
@given(
    labels=st.lists(
        st.sampled_from([*species(240), *FEW, *LIKE_SPECIAL_TOKENS, "None"]),
        min_size=1,
        max_size=60,
        unique=True,
    ),
    top_k=st.integers(1, 8),
    whole=st.sampled_from([0, 96]),
    wave=st.sampled_from([1, 5, 16]),
    batch_size=st.integers(1, 3),
)
def test_any_list_read_in_any_waves_scores_as_each_label_by_itself(
    labels: list[str], top_k: int, whole: int, wave: int, batch_size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_labels, "_WHOLE_NODES", whole)
        patch.setattr(engine_labels, "_WAVE_NODES", wave)
        patch.setattr(engine_labels, "LOGITS_AT_ONCE", 384 * 7)
        assert_exact(tuple(labels), top_k, batch_size)


def test_probabilities_of_a_whole_list_add_up_to_one() -> None:
    engine = Engine(model(), [EngineQuery(PROMPT, labels=FEW, top_k=10)])
    for (answer,) in engine.answer(windows()):
        assert sum(probability for _, probability in answer.candidates) == pytest.approx(1.0, abs=1e-9)
        assert len(answer.candidates) == len(FEW) + 1


# -- answers -------------------------------------------------------------------------------------------------------


def test_the_score_of_a_label_is_the_mean_probability_of_its_tokens() -> None:
    engine = Engine(model(), [EngineQuery(PROMPT, labels=("Owl hoot",), top_k=2)])
    answer = engine.answer(windows()[:1])[0][0]
    logs = np.log(answer.token_scores)
    assert answer.score == pytest.approx(np.exp(logs.mean()))
    assert answer.token_ids == tuple(model().tokenizer(answer.text, add_special_tokens=False).input_ids)


def test_a_closed_list_beside_free_queries_changes_neither() -> None:
    closed = EngineQuery(PROMPT, labels=FEW)
    free = [EngineQuery("Anything?", 9), EngineQuery("Caption the audio.", 5)]
    together = Engine(model(), [free[0], closed, free[1]]).answer(windows())
    alone = Engine(model(), [closed]).answer(windows())
    others = Engine(model(), free).answer(windows())
    for all_three, (label,), two in zip(together, alone, others, strict=True):
        assert all_three[1].text == label.text
        assert [p for _, p in all_three[1].candidates] == pytest.approx(
            [p for _, p in label.candidates], abs=1e-6
        )
        assert [all_three[0].token_ids, all_three[2].token_ids] == [answer.token_ids for answer in two]


# -- the list ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(("Owl",), ("Owl", "None")), (("none", "Owl"), ("none", "Owl")), (("None",), ("None",))],
)
def test_none_is_always_one_of_the_labels(labels: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert LabelTrie(labels, lambda text: [ord(c) for c in text]).labels == expected


@pytest.mark.parametrize(("labels", "words"), [(("Owl", "Owl "), "same text"), ((" ",), "no tokens")])
def test_labels_that_cannot_be_told_apart_are_refused(labels: tuple[str, ...], words: str) -> None:
    with pytest.raises(NaturelmError, match=words):
        LabelTrie(labels, lambda text: [ord(c) for c in text])
