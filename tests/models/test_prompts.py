from __future__ import annotations

import json

import pytest

from naturelm.errors import NaturelmError
from naturelm.models.naturelm.config import LLAMA3_TEMPLATE
from naturelm.models.parts.llama import load_tokenizer
from naturelm.models.prompts import PromptLayout
from naturelm.models.tokens import TextTokenizer
from tests.paths import SMALL_PARITY

LAYOUT = PromptLayout(LLAMA3_TEMPLATE)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(load_tokenizer(SMALL_PARITY / "llm"))


def test_prompt_text_is_the_published_one():
    golden = json.loads((SMALL_PARITY / "golden.json").read_text())
    assert [LAYOUT.text(prompt) for prompt in golden["prompts"]] == golden["prompt_texts"]


def test_query_may_name_the_place_of_the_sound():
    placed = "Listen: <Audio><AudioHere></Audio> What is it?"
    assert placed in LAYOUT.text(placed)
    assert LAYOUT.text(placed).count(LAYOUT.placeholder) == 1


def test_braces_in_a_query_stay_as_they_are():
    assert "Answer as {json} {}" in LAYOUT.text("Answer as {json} {}")


@pytest.mark.parametrize("query", ["", "  \n", "<AudioHere> and <AudioHere>"])
def test_query_without_text_or_with_two_sounds_is_refused(query):
    with pytest.raises(NaturelmError, match="the query"):
        LAYOUT.text(query)


def test_all_queries_share_what_is_before_the_sound(tokenizer):
    first, second = (LAYOUT.tokens(query, tokenizer, begin=(7,)) for query in ("What is it?", "Caption it."))
    assert first.head == second.head
    assert first.head[0] == 7
    assert 7 not in first.head[1:] + first.tail
