"""What the name of a task determines, by the published names: the augmentations that an example may take.

Published names end in `caption`, `lifestage`, `detection` (open-ended) or `detection-random` (with options), and
contain `common` or `sci` for the kind of species name.
"""

from __future__ import annotations

import re
from typing import Literal

Naming = Literal["common", "sci"]
Treatment = Literal["none", "noise", "mix"]

QUESTIONS = (
    "naming",
    "naming-options",
    "detection",
    "detection-options",
    "caption",
    "lifestage",
    "call-type",
)
"""Kinds of questions that `naturelm manifest` writes; each is written where a recording's columns answer it."""

_WORDS = re.compile(r"[a-z]+")
# Answers describe the whole recording, or more than the species present: other sound would make them wrong.
_WHOLE_RECORDING = frozenset(
    {"caption", "captioning", "qa", "icl", "count", "counting", "counts", "instructions"}
)
_OF_TIME = frozenset({"pitch", "duration", "time"})


def is_detection(task: str) -> bool:
    """Whether answers list the species present, or are None."""
    return "detection" in words(task)


def is_open_detection(task: str) -> bool:
    """Whether answers list every species present, not only the options in the prompt."""
    return is_detection(task) and words(task)[-1] == "detection"


def is_naming(task: str) -> bool:
    """Whether an answer is the name of the one species present, without options."""
    return words(task)[-1:] == ["naming"]


def naming(task: str) -> Naming:
    """How a task names species; `common` by default."""
    return "sci" if {"sci", "scientific"} & set(words(task)) else "common"


def treatment(task: str) -> Treatment:
    """Which sound may be added: none; noise; or noise and the sound of other examples, whose labels join its own."""
    if not _WHOLE_RECORDING.isdisjoint(words(task)):
        return "none"
    return "mix" if is_detection(task) else "noise"


def may_scale_time(task: str) -> bool:
    """Whether the answer stays true when the sound is played faster or slower."""
    return treatment(task) != "none" and _OF_TIME.isdisjoint(words(task))


def words(task: str) -> list[str]:
    """The words of a task's name."""
    return _WORDS.findall(task.lower())
