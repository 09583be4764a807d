"""The text around a query, and its tokens: what the model reads before and after the sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from naturelm.errors import NaturelmError

AUDIO_PLACEHOLDER = "<AudioHere>"
AUDIO_PREFIX = "<Audio><AudioHere></Audio> "
LLAMA3_TEMPLATE = (
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)


@dataclass(frozen=True)
class PromptTokens:
    """Token ids on both sides of the sound.

    Attributes
    ----------
    head
        Begin-of-text, the user's header and ``<Audio>``: the same for every query.
    tail
        ``</Audio>``, the query and the assistant's header.
    """

    head: tuple[int, ...]
    tail: tuple[int, ...]


def wrap(query: str, template: str = LLAMA3_TEMPLATE) -> str:
    """The whole prompt text of a query, with a placeholder where the sound goes.

    A query may say itself where the sound goes (``<Audio><AudioHere></Audio>``); otherwise it comes first.

    Raises
    ------
    NaturelmError
        If the query is empty or names more than one place for the sound.
    """
    if not query.strip():
        raise NaturelmError("the query has no text; ask something, for example 'What is the common name?'")
    places = query.count(AUDIO_PLACEHOLDER)
    if places > 1:
        raise NaturelmError(
            f"the query holds {AUDIO_PLACEHOLDER} {places} times; a window has one sound, so name it once"
        )
    # Not str.format: a query may hold braces of its own.
    return template.replace("{}", query if places else AUDIO_PREFIX + query, 1)


def tokenize(query: str, tokenizer: Any, template: str = LLAMA3_TEMPLATE) -> PromptTokens:
    """Token ids before and after the sound; each side is tokenised by itself, as in training.

    Parameters
    ----------
    query
        What is asked, as the user wrote it.
    tokenizer
        The language model's tokenizer (transformers); its begin-of-text token opens the prompt.
    template
        Text around the query.
    """
    before, after = wrap(query, template).split(AUDIO_PLACEHOLDER)
    head = tokenizer(before, add_special_tokens=False).input_ids
    tail = tokenizer(after, add_special_tokens=False).input_ids
    return PromptTokens((tokenizer.bos_token_id, *head), tuple(tail))
