"""Token ids of text, for every kind of tokenizer: a user's text is only text, whatever special token it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


class TextTokenizer:
    """Reads text with a tokenizer.

    Parameters
    ----------
    tokenizer
        Of a Llama (transformers, written in Rust): byte-level as Llama 3's, or SentencePiece-style as Llama 2's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._added: dict[int, Any] = tokenizer.added_tokens_decoder
        # Longest first, so that no token hides one that begins with it.
        by_length = sorted(self._added.values(), key=lambda token: -len(token.content))
        self._markers = re.compile(
            "|".join(
                (r"\s*" if token.lstrip else "")
                + f"({re.escape(token.content)})"
                + (r"\s*" if token.rstrip else "")
                for token in by_length
            )
            or r"(?!)"
        )

    def text_tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of a user's text. No added token is recognised in it: ``</s>`` is four characters."""
        # The tokenizer's own call recognises added tokens: with `split_special_tokens` those that are not special, and
        # those that merges lead to. So its stages are called one by one, by their public names.
        if self._backend.normalizer is not None:
            text = self._backend.normalizer.normalize_str(text)
        pieces = [text]
        if self._backend.pre_tokenizer is not None:
            pieces = [piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(text)]
        return tuple(token_id for piece in pieces for token_id in self._piece_tokens(piece))

    def template_parts(self, template: str) -> Iterator[int | str]:
        """A prompt template in order: the ids of the special tokens that it names, and the text between them."""
        end = 0
        for match in self._markers.finditer(template):
            if match.start() > end:
                yield template[end : match.start()]
            (content,) = filter(None, match.groups())
            yield self._tokenizer.convert_tokens_to_ids(content)
            end = match.end()
        if end < len(template):
            yield template[end:]

    def _piece_tokens(self, piece: str) -> Iterator[int]:
        source = piece.encode()
        for token in self._backend.model.tokenize(piece):
            text = source[slice(*token.offsets)].decode(errors="replace")
            if token.id in self._added and text == self._added[token.id].content and len(text) > 1:
                # The vocabulary holds the token's name, and merges may lead to it: the name is read in two parts.
                yield from self._piece_tokens(text[0])
                yield from self._piece_tokens(text[1:])
            else:
                yield token.id
