"""What the engine is asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from naturelm.errors import NaturelmError


@dataclass(frozen=True, eq=False)
class QueryExample:
    """A sound and the right answer about it, put before the question; the same only as itself.

    Attributes
    ----------
    waveform : ndarray
        float32 ``[samples]`` in [-1, 1] at the model's rate, at most its window.
    answer : str
        What the model is to answer about such a sound.
    """

    waveform: np.ndarray
    answer: str


@dataclass(frozen=True)
class EngineQuery:
    """A question put to every window.

    Attributes
    ----------
    prompt : str
        The question, in words.
    max_new_tokens : int
        Longest answer in tokens.
    labels : tuple of str
        Closed list: the answer is the best of these labels, or "None", and its candidates the best `top_k`.
        Free answers where empty.
    top_k : int
        How many labels of a closed list to return.
    examples : tuple of QueryExample
        The query about other sounds, and their answers. The model reads them once for all windows.
    """

    prompt: str
    max_new_tokens: int = 64
    labels: tuple[str, ...] = ()
    top_k: int = 5
    examples: tuple[QueryExample, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.top_k < 1:
            raise NaturelmError(
                f"query {self.prompt!r} has max_new_tokens {self.max_new_tokens} and top_k {self.top_k}; "
                "both must be at least 1"
            )
