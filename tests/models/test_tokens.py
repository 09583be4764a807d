from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naturelm.errors import NaturelmError
from naturelm.models.answer import AnswerDecoder
from naturelm.models.prompts import PromptLayout
from naturelm.models.tokens import TextTokenizer
from tests.models.tokenizers_by_code import KINDS, LLAMA_2_SPECIAL, LLAMA_3_SPECIAL

NAMES = (
    *LLAMA_3_SPECIAL,
    *LLAMA_2_SPECIAL,
    "<Audio>",
    "</Audio>",
    "<Audio><AudioHere></Audio>",
    "<Speech>",
    "<0x0A>",
    "[INST]",
)
# Text that a user might write, with many names of special tokens in it, whole and in parts.
USER_TEXT = st.lists(
    st.one_of(st.sampled_from([*NAMES, " ", "\n", "<", "|>", "s>"]), st.text(max_size=5)), max_size=8
).map("".join)

every_kind = pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)


@every_kind
@pytest.mark.parametrize("name", NAMES)
def test_a_special_tokens_name_in_a_users_text_is_text(tokenizer: Any, name: str) -> None:
    text = f"What does {name} mean?"
    ids = TextTokenizer(tokenizer).text_tokens(text)
    assert not _named(tokenizer, ids) & {name}
    assert AnswerDecoder(tokenizer).text_and_ends(ids)[0] == text


@every_kind
@given(text=USER_TEXT)
def test_any_text_comes_back_as_it_was_without_outer_white_space(tokenizer: Any, text: str) -> None:
    ids = TextTokenizer(tokenizer).text_tokens(text)
    decoded, ends = AnswerDecoder(tokenizer).text_and_ends(ids)
    assert decoded == text.strip()
    assert list(ends) == sorted(ends)
    assert not ends or ends[-1] == len(decoded)


@every_kind
@given(text=USER_TEXT)
def test_text_without_special_names_is_read_as_the_tokenizer_itself_reads_it(
    tokenizer: Any, text: str
) -> None:
    for name in NAMES:
        text = text.replace(name, "")
    if any(name in text for name in NAMES):
        return  # what is left may spell a name again
    assert TextTokenizer(tokenizer).text_tokens(text) == tuple(
        tokenizer(text, add_special_tokens=False).input_ids
    )


@every_kind
@given(text=USER_TEXT)
def test_no_text_holds_a_special_token(tokenizer: Any, text: str) -> None:
    assert not _named(tokenizer, TextTokenizer(tokenizer).text_tokens(text)) - {tokenizer.unk_token}


@every_kind
def test_a_template_names_special_tokens_and_the_query_between_does_not(tokenizer: Any) -> None:
    end = tokenizer.eos_token
    layout = PromptLayout(f"A question: {{}}{end}Answer:")
    prompt = layout.tokens(f"Is it {end} or a bat?", TextTokenizer(tokenizer))
    end_id = tokenizer.eos_token_id
    assert (*prompt.head, *prompt.tail).count(end_id) == 1
    before_end = prompt.tail[: prompt.tail.index(end_id)]
    assert AnswerDecoder(tokenizer).text_and_ends(before_end)[0] == f"</Audio> Is it {end} or a bat?"


@every_kind
@pytest.mark.parametrize(
    "template", ["{}", "USER: {}\nASSISTANT:", "### Instruction:\n{}\n\n### Response:\n"]
)
def test_each_side_of_the_sound_is_read_as_the_tokenizer_reads_it(tokenizer: Any, template: str) -> None:
    layout = PromptLayout(template, sound="<Speech><SpeechHere></Speech> ", placeholder="<SpeechHere>")
    before, after = layout.text("Is there a bat?").split("<SpeechHere>")
    prompt = layout.tokens("Is there a bat?", TextTokenizer(tokenizer), begin=(tokenizer.bos_token_id,))
    assert prompt.head == (tokenizer.bos_token_id, *tokenizer(before, add_special_tokens=False).input_ids)
    assert prompt.tail == tuple(tokenizer(after, add_special_tokens=False).input_ids)


def test_a_query_that_names_two_places_for_the_sound_is_refused() -> None:
    with pytest.raises(NaturelmError, match="holds <AudioHere> 2 times"):
        PromptLayout("{}").text("<AudioHere> and <AudioHere>")


def _named(tokenizer: Any, ids: tuple[int, ...]) -> set[str]:
    added = tokenizer.added_tokens_decoder
    return {added[i].content for i in ids if i in added}
