"""What the name of a task says about it, by the published names: which augmentations an example may take.

Published names end in `caption`, `lifestage`, `detection` (open-ended) or `detection-random` (with options), and say
`common` or `sci` where species are named one way or the other.
"""

from __future__ import annotations

import re
from typing import Literal

Naming = Literal["common", "sci"]
Treatment = Literal["as_it_is", "noise", "mix"]

QUESTIONS = (
    "naming",
    "naming-options",
    "detection",
    "detection-options",
    "caption",
    "lifestage",
    "call-type",
)
"""Kinds of questions that `naturelm manifest` writes; each is asked where a recording's columns answer it."""

_WORDS = re.compile(r"[a-z]+")
# Answers tell of the whole recording, or of more than who is heard: other sound would make them wrong.
_WHOLE_RECORDING = frozenset(
    {"caption", "captioning", "qa", "icl", "count", "counting", "counts", "instructions"}
)
_OF_TIME = frozenset({"pitch", "duration", "time"})


def is_detection(task: str) -> bool:
    """Whether answers list who is heard, or say None."""
    return "detection" in words(task)


def is_open_detection(task: str) -> bool:
    """Whether answers list all that is heard, not only what the prompt offers."""
    return is_detection(task) and words(task)[-1] == "detection"


def is_naming(task: str) -> bool:
    """Whether an answer is the name of the one who is heard, without options."""
    return words(task)[-1:] == ["naming"]


def naming(task: str) -> Naming:
    """How a task names species; `common` where it does not say."""
    return "sci" if {"sci", "scientific"} & set(words(task)) else "common"


def treatment(task: str) -> Treatment:
    """Which sound may be added: none; noise; or noise and the sound of other examples, whose labels join its own."""
    if not _WHOLE_RECORDING.isdisjoint(words(task)):
        return "as_it_is"
    return "mix" if is_detection(task) else "noise"


def may_scale_time(task: str) -> bool:
    """Whether the answer stays true when the sound is played faster or slower."""
    return treatment(task) != "as_it_is" and _OF_TIME.isdisjoint(words(task))


def words(task: str) -> list[str]:
    """The words of a task's name."""
    return _WORDS.findall(task.lower())
