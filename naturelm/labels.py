"""From a model's answer in words to labels, captions and scores.

The raw text is always kept beside what is read from it here.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

SCORE_DECIMALS = 4
"""Scores are stored rounded, so that a row does not show what its window was batched with."""

# Ways of saying that nothing is there; compared after `normal_form`.
_NOTHING = frozenset(
    {
        "none",
        "nothing",
        "no species",
        "no animal",
        "no animals",
        "no sound",
        "no sounds",
        "no bird",
        "no birds",
        "no label",
        "no labels",
        "n/a",
        "",
    }
)

_SEPARATOR = re.compile(r"[,;\n]")
# The published model may answer in the form "#0.00s - 10.00s#: Green Treefrog".
_TIME_MARK = re.compile(r"#\s*\d+(?:\.\d+)?s\s*-\s*\d+(?:\.\d+)?s\s*#:?")


@dataclass(frozen=True, slots=True)
class Label:
    """A label named in an answer.

    Attributes
    ----------
    name : str
        The label as the answer spells it, spaces folded.
    start, end : int
        Where it stands in the answer's text, in characters.
    """

    name: str
    start: int
    end: int


def normal_form(label: str) -> str:
    """The form in which two spellings of one label are equal: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split()).rstrip(".")


def parse_labels(text: str) -> list[Label]:
    """Read the labels that an answer lists, in order, each once.

    Labels are separated by commas, semicolons or line ends. "None" and its like are no label.
    """
    blanked = _TIME_MARK.sub(lambda mark: " " * len(mark.group()), text)
    labels: list[Label] = []
    seen: set[str] = set()
    start = 0
    for end in [*(match.start() for match in _SEPARATOR.finditer(blanked)), len(blanked)]:
        part = blanked[start:end]
        name = part.strip().rstrip(".").rstrip()
        form = normal_form(name)
        if form not in _NOTHING and form not in seen:
            seen.add(form)
            first = start + len(part) - len(part.lstrip())
            labels.append(Label(" ".join(name.split()), first, first + len(name)))
        start = end + 1
    return labels


def span_score(
    token_scores: Sequence[float], token_ends: Sequence[int], start: int, end: int
) -> float | None:
    """Score a part of an answer: the exponential of the mean log-probability of its tokens.

    Parameters
    ----------
    token_scores : sequence of float
        Probability of each token of the answer.
    token_ends : sequence of int
        For each token, the offset in the text, in characters, at which it ends.
    start, end : int
        The part, in characters.

    Returns
    -------
    float or None
        None where no token overlaps the part.
    """
    logs = []
    token_start = 0
    for score, token_end in zip(token_scores, token_ends, strict=True):
        if token_start < end and token_end > start:
            logs.append(math.log(max(score, 1e-30)))
        token_start = token_end
    return math.exp(sum(logs) / len(logs)) if logs else None


def rounded(score: float) -> float:
    """Round a score as the tables store it."""
    return round(float(score), SCORE_DECIMALS)
