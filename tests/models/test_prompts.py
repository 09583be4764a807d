from __future__ import annotations

import json

import pytest

from naturelm.errors import NaturelmError
from naturelm.models.prompts import AUDIO_PLACEHOLDER, tokenize, wrap
from tests.paths import SMALL_PARITY


@pytest.fixture(scope="module")
def tokenizer():
    from naturelm.models.parts.llama import load_tokenizer

    return load_tokenizer(SMALL_PARITY / "llm")


def test_prompt_text_is_the_published_one():
    golden = json.loads((SMALL_PARITY / "golden.json").read_text())
    assert [wrap(prompt) for prompt in golden["prompts"]] == golden["prompt_texts"]


def test_query_may_say_where_the_sound_goes():
    placed = "Listen: <Audio><AudioHere></Audio> What is it?"
    assert placed in wrap(placed)
    assert wrap(placed).count(AUDIO_PLACEHOLDER) == 1


def test_braces_in_a_query_stay_as_they_are():
    assert "Answer as {json} {}" in wrap("Answer as {json} {}")


@pytest.mark.parametrize("query", ["", "  \n", "<AudioHere> and <AudioHere>"])
def test_query_without_text_or_with_two_sounds_is_refused(query):
    with pytest.raises(NaturelmError, match="the query"):
        wrap(query)


def test_prompt_begins_with_begin_of_text_and_all_queries_share_their_head(tokenizer):
    first, second = tokenize("What is it?", tokenizer), tokenize("Caption the audio.", tokenizer)
    assert first.head == second.head
    assert first.head[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in first.head[1:] + first.tail


def test_tokens_of_both_sides_spell_the_prompt(tokenizer):
    prompt = tokenize("Is there a Çàğlà?", tokenizer)
    before, after = wrap("Is there a Çàğlà?").split(AUDIO_PLACEHOLDER)
    assert tokenizer.decode(prompt.head[1:]) == before
    assert tokenizer.decode(prompt.tail) == after
