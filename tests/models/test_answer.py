from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from naturelm.models.answer import AnswerDecoder
from naturelm.models.parts.llama import load_tokenizer
from naturelm.models.tokens import TextTokenizer
from tests.paths import SMALL_PARITY

TOKENIZER = load_tokenizer(SMALL_PARITY / "llm")
DECODER = AnswerDecoder(TOKENIZER)


def encode(text: str) -> tuple[int, ...]:
    return TextTokenizer(TOKENIZER).text_tokens(text)


@given(st.lists(st.integers(min_value=0, max_value=383), max_size=40))
def test_text_is_what_the_tokenizer_decodes_whatever_the_tokens(token_ids):
    text, ends = DECODER.text_and_ends(token_ids)
    assert text == TOKENIZER.decode(token_ids, skip_special_tokens=True).strip()
    assert len(ends) == len(token_ids)
    assert list(ends) == sorted(ends)
    assert all(0 <= end <= len(text) for end in ends)


@given(st.text(max_size=30))
@example("<|begin_of_text|>")
@example("Robin<|eot_id|>")
def test_last_token_ends_where_the_text_does(text):
    decoded, ends = DECODER.text_and_ends(encode(text))
    assert decoded == text.strip()
    assert not ends or ends[-1] == len(decoded)


def test_outer_white_space_moves_no_token_out_of_the_text():
    text, ends = DECODER.text_and_ends([*encode("\n"), *encode("Robin"), *encode("\n")])
    assert text == "Robin"
    assert ends[-2:] == (5, 5)
    assert ends[0] == 0


def test_token_that_splits_a_character_ends_with_it():
    ids = encode("a蛙b")
    text, ends = DECODER.text_and_ends(ids)
    assert text == "a蛙b"
    assert len(ids) == 5
    assert ends == (1, 2, 2, 2, 3)


def test_token_ids_beyond_the_vocabulary_say_nothing():
    assert DECODER.text_and_ends([*encode("Robin"), 384, 5000])[0] == "Robin"


def test_score_is_the_geometric_mean_of_token_probabilities():
    ids = encode("ab")
    answer = DECODER.answer(ids, [math.log(0.5), math.log(0.125)], end_log_prob=math.log(0.9))
    assert answer.token_scores == pytest.approx((0.5, 0.125))
    assert answer.score == pytest.approx(0.25)


def test_answer_without_tokens_has_the_end_tokens_probability():
    answer = DECODER.answer([], [], end_log_prob=math.log(0.7))
    assert (answer.text, answer.token_ids, answer.token_ends) == ("", (), ())
    assert answer.score == pytest.approx(0.7)
