"""What the engine is asked."""

from __future__ import annotations

from dataclasses import dataclass

from naturelm.errors import NaturelmError


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
    """

    prompt: str
    max_new_tokens: int = 64
    labels: tuple[str, ...] = ()
    top_k: int = 5

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.top_k < 1:
            raise NaturelmError(
                f"query {self.prompt!r} has max_new_tokens {self.max_new_tokens} and top_k {self.top_k}; "
                "both must be at least 1"
            )
