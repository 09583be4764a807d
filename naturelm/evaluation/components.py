"""The components of BEANS-Zero, and by which metrics a component is scored.

Names, tasks and windows are those of the benchmark's published configuration (Robinson et al., NatureLM-audio, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from naturelm.training.tasks import is_detection, words

Scoring = Literal["classification", "detection", "captioning"]
"""One label for each sound, any number of labels or None, or a sentence."""

SCORINGS: tuple[str, ...] = get_args(Scoring)

MODEL_WINDOW_S = 10.0

DETECTION_PROMPT = "What are the common names for the species in the audio, if any?"
"""The published script's prompt for detection components of more than eight labels."""

MAX_VALUES = {"cider": 10.0}
"""The largest possible value of a metric, where it is not 1."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a benchmark that is scored separately.

    Attributes
    ----------
    name : str
        Its name.
    scoring : Scoring
        Which metrics it has.
    window_s : float
        Seconds to which the published script cuts or pads its sounds.
    prompt : str, optional
        The published script's prompt, where it replaces the instruction in the data.
    """

    name: str
    scoring: Scoring
    window_s: float = MODEL_WINDOW_S
    prompt: str | None = None


BEANS_ZERO = {
    component.name: component
    for component in (
        Component("esc50", "classification", window_s=5.0),
        Component("watkins", "classification", window_s=3.0),
        Component("cbi", "classification"),
        Component("humbugdb", "classification", window_s=3.0),
        Component("enabirds", "detection", prompt=DETECTION_PROMPT),
        Component("hiceas", "detection"),
        Component("rfcx", "detection", prompt=DETECTION_PROMPT),
        Component("gibbons", "detection"),
        Component("dcase", "detection", prompt=DETECTION_PROMPT),
        Component("lifestage", "classification"),
        Component("call-type", "classification"),
        Component("unseen-species-cmn", "classification"),
        Component("unseen-species-sci", "classification"),
        Component("unseen-species-tax", "classification"),
        Component("unseen-genus-cmn", "classification"),
        Component("unseen-genus-sci", "classification"),
        Component("unseen-genus-tax", "classification"),
        Component("unseen-family-cmn", "classification"),
        Component("unseen-family-sci", "classification"),
        Component("unseen-family-tax", "classification"),
        Component("captioning", "captioning"),
        Component("zf-indiv", "classification"),
    )
}


def scoring_of(task: str) -> Scoring:
    """How answers to a task are scored, by the words of its name: `common-multiple-detection` as detection.

    A task whose name has neither "detection" nor "caption" in it is scored as classification: one right answer each.
    """
    if is_detection(task):
        return "detection"
    return "captioning" if {"caption", "captions", "captioning"} & set(words(task)) else "classification"
