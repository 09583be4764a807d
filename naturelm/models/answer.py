"""What a model answers to one query about one window."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer and how sure the model was of it.

    Attributes
    ----------
    text
        The answer without special tokens and outer white space. Untrusted, as every model's output is.
    token_ids
        Generated token ids without the end token.
    score
        Mean token probability: exp of the mean log-probability of ``token_ids``; without any, that of the
        end token.
    token_scores
        Probability of each of ``token_ids`` given those before it.
    token_ends
        For each of ``token_ids`` the offset in ``text``, in characters, at which it ends.
    candidates
        For closed label lists the exact best ``(label, probability)``, best first; else empty.
    """

    text: str
    token_ids: tuple[int, ...]
    score: float
    token_scores: tuple[float, ...]
    token_ends: tuple[int, ...]
    candidates: tuple[tuple[str, float], ...] = ()

    @property
    def is_finite(self) -> bool:
        """Whether the model's output was numbers; otherwise text and scores mean nothing."""
        scores = (self.score, *self.token_scores, *(score for _, score in self.candidates))
        return all(map(math.isfinite, scores))


class AnswerDecoder:
    """Turns generated token ids of one tokenizer into answers; quick, as it keeps each token's bytes.

    Parameters
    ----------
    tokenizer
        A byte-level BPE tokenizer (transformers), as Llama 3's is, or one that writes spaces as ``▁`` and single
        bytes as ``<0x0A>``, as SentencePiece and Llama 2 do.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        self._special.update(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
        self._added = set(tokenizer.added_tokens_decoder)
        vocabulary = tokenizer.get_vocab()
        # A byte-level vocabulary writes every byte as one of 256 characters, and so has no others.
        self._is_byte_level = all(
            _BYTE_OF_CHARACTER.keys() >= set(token)
            for token, token_id in vocabulary.items()
            if token_id not in self._added
        )
        self._bytes: dict[int, bytes] = {}

    def answer(
        self, token_ids: Sequence[int], log_probs: Sequence[float], end_log_prob: float = 0.0
    ) -> Answer:
        """Make an answer of what was generated.

        Parameters
        ----------
        token_ids
            Generated ids, without the end token.
        log_probs
            Natural log-probability of each.
        end_log_prob
            Log-probability of the end token, which scores an answer without any other.
        """
        text, ends = self.text_and_ends(token_ids)
        mean = sum(log_probs) / len(log_probs) if log_probs else end_log_prob
        return Answer(
            text=text,
            token_ids=tuple(int(i) for i in token_ids),
            score=math.exp(mean),
            token_scores=tuple(math.exp(x) for x in log_probs),
            token_ends=ends,
        )

    def text_and_ends(self, token_ids: Iterable[int]) -> tuple[str, tuple[int, ...]]:
        """Text without special tokens and outer white space, and where in it each token ends, in characters.

        A token that ends within a character of several bytes ends where that character does.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces: list[str] = []
        raw_ends: list[int] = []
        length = 0
        for token_id in token_ids:
            piece = decoder.decode(self._token_bytes(token_id))
            pieces.append(piece)
            length += len(piece)
            unfinished = bool(decoder.getstate()[0])
            raw_ends.append(length + unfinished)
        pieces.append(decoder.decode(b"", final=True))
        raw = "".join(pieces)
        text = raw.strip()
        lead = len(raw) - len(raw.lstrip())
        return text, tuple(min(max(end - lead, 0), len(text)) for end in raw_ends)

    def _token_bytes(self, token_id: int) -> bytes:
        if token_id not in self._bytes:
            self._bytes[token_id] = self._read_token(token_id)
        return self._bytes[token_id]

    def _read_token(self, token_id: int) -> bytes:
        if token_id in self._special:
            return b""
        token = self._tokenizer.convert_ids_to_tokens(int(token_id))
        # The embedding may have more rows than the tokenizer has tokens.
        if token is None:
            return b""
        if token_id in self._added:
            return token.encode()
        if self._is_byte_level:
            return bytes(_BYTE_OF_CHARACTER[character] for character in token)
        single_byte = _SINGLE_BYTE.fullmatch(token)
        return bytes.fromhex(single_byte[1]) if single_byte else token.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes each byte as a printable character: itself, or else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + rank): byte for rank, byte in enumerate(others)})
    return alphabet


_BYTE_OF_CHARACTER = _byte_alphabet()
_SINGLE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
