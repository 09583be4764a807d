"""From a model's answers to the labels of a component, as BEANS-Zero's official tool matches them.

An answer that is not a label becomes the one with the least Levenshtein distance. Where several are equally near, the
official tool takes the one that its set of labels yields first, which differs from run to run unless PYTHONHASHSEED is
set. Here it is the one that the set yields with PYTHONHASHSEED=0, so that the official tool can reproduce the figures;
ties are reported, with the figures of other choices (decision 7).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

END_OF_TEXT = "<|end_of_text|>"
FARTHEST_DETECTION = 5
"""A piece of a detection answer that is farther from every label counts as None."""

NONE = "None"
_AT_ONCE = 2000
_ORDER = "import json, sys; json.dump(list(set(json.load(sys.stdin))), sys.stdout)"


@dataclass(frozen=True, slots=True)
class Match:
    """The label that an answer, or a piece of it, was matched to.

    Attributes
    ----------
    text : str
        The answer.
    label : str
        The nearest label.
    distance : int
        Levenshtein distance between them.
    others : tuple of str
        Other labels that are equally near, in the order in which they would be taken.
    """

    text: str
    label: str
    distance: int = 0
    others: tuple[str, ...] = ()


def cut(text: str) -> str:
    """A text up to the first end token, where there is one."""
    return text.split(END_OF_TEXT)[0]


def pieces(text: str) -> list[str]:
    """A list of labels, split at commas, without surrounding spaces."""
    return [piece.strip() for piece in text.split(",")]


def named(label: str) -> list[str]:
    """The labels that a label text of a detection component lists; none for "None"."""
    return [piece for piece in pieces(label) if piece and piece.lower() != NONE.lower()]


def match(texts: Collection[str], labels: Sequence[str], farthest: int | None = None) -> dict[str, Match]:
    """The nearest label of each text.

    Parameters
    ----------
    texts
        Answers; each is matched once.
    labels
        Those to choose from, in the order of the file: ties depend on it.
    farthest
        A text beyond this distance is matched to None; no limit by default.
    """
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    choices = sorted(set(labels))
    known = set(choices)
    found = {text: Match(text, text) for text in texts if text in known}
    rest = sorted({text for text in texts if text not in known})
    rank: dict[str, int] = {}
    for start in range(0, len(rest), _AT_ONCE):
        some = rest[start : start + _AT_ONCE]
        distances = cdist(some, choices, scorer=Levenshtein.distance, dtype=np.int32, score_cutoff=farthest)
        nearest = distances.min(axis=1)
        for text, row, least in zip(some, distances, nearest.tolist(), strict=True):
            if farthest is not None and least > farthest:
                found[text] = Match(text, NONE, least)
                continue
            equal = [choices[index] for index in np.flatnonzero(row == least).tolist()]
            if len(equal) > 1:
                rank = rank or _set_order(labels)
                equal.sort(key=rank.__getitem__)
            found[text] = Match(text, equal[0], least, tuple(equal[1:]))
    return found


def _set_order(labels: Sequence[str]) -> dict[str, int]:
    """The position of each label in a Python set of them, with PYTHONHASHSEED=0."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _ORDER],
        input=json.dumps(list(labels)),
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {label: number for number, label in enumerate(json.loads(done.stdout))}


def choose(matches: Mapping[str, Match], picks: Mapping[str, str]) -> dict[str, str]:
    """The label of every text; that of `picks` where one is picked among equally near ones."""
    return {text: picks.get(text, match.label) for text, match in matches.items()}


def tied(matches: Mapping[str, Match]) -> Sequence[Match]:
    """Texts to which several labels are equally near."""
    return [match for match in matches.values() if match.others]
