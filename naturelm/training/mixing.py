"""Mixup: the sound of several examples in one, and the names of all of them in its answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from naturelm.labels import normal_form, parse_labels
from naturelm.training import tasks
from naturelm.training.augment import LabelledSound, Question

LoadPartner = Callable[[np.random.Generator, tasks.Naming], LabelledSound | None]

LEAST_SHARE, LARGEST_SHARE = 0.1, 0.8
"""Bounds of the original example's share of a mixed sound."""

# What follows the last question mark or colon: "Which of these, if any, are present in the audio recording? Owl, Frog"
_OPTIONS = re.compile(r"(?P<question>.*[?:])\s*(?P<options>[^?:]*[^?:\s])\s*", re.DOTALL)


def mixed(
    sound: LabelledSound,
    rng: np.random.Generator,
    probability: float,
    partners: int,
    load_partner: LoadPartner,
) -> LabelledSound:
    """With `probability`, add the sound of one to `partners` others, and their labels.

    Only detection questions are mixed, only with examples of open-ended detection that name species the same way, and
    only where a question's options can be read from its prompt.

    Parameters
    ----------
    sound
        The example; all its questions name species one way.
    rng
        Draws all that is random.
    probability, partners
        How often, and how many at most.
    load_partner
        Gives another example of open-ended detection with the same naming, as long as `sound`; or None where there
        is none.
    """
    questions = sound.questions
    if not all(map(_can_mix, questions)) or rng.random() >= probability:
        return sound
    how_named = tasks.naming(questions[0].task)
    for _ in range(int(rng.integers(1, partners + 1))):
        partner = load_partner(rng, how_named)
        if partner is None:
            return sound
        share = np.float32(np.clip(rng.beta(1, 1), LEAST_SHARE, LARGEST_SHARE))
        added = open_labels(partner.questions)
        sound = LabelledSound(
            share * sound.waveform + (1 - share) * partner.waveform,
            tuple(_with_labels(question, added, rng) for question in sound.questions),
            tuple(united([*sound.labels, *added])),
        )
    return sound


def open_labels(questions: Sequence[Question]) -> list[str]:
    """The labels in the answers of open-ended detection questions."""
    answers = [question.text for question in questions if tasks.is_open_detection(question.task)]
    return united([label.name for text in answers for label in parse_labels(text)])


def united(labels: Sequence[str]) -> list[str]:
    """Labels in alphabetical order, each once."""
    once = {normal_form(label): label for label in reversed(labels)}
    return [once[form] for form in sorted(once)]


def split_options(prompt: str) -> tuple[str, list[str]] | None:
    """A prompt's question and the options after it, or None where there are none."""
    match = _OPTIONS.fullmatch(prompt)
    if match is None:
        return None
    return match["question"], [option.strip() for option in match["options"].split(",") if option.strip()]


def _can_mix(question: Question) -> bool:
    if tasks.treatment(question.task) != "mix":
        return False
    return tasks.is_open_detection(question.task) or split_options(question.prompt) is not None


def _with_labels(question: Question, added: Sequence[str], rng: np.random.Generator) -> Question:
    labels = united([*(label.name for label in parse_labels(question.text)), *added])
    text = ", ".join(labels) or "None"
    if tasks.is_open_detection(question.task):
        return replace(question, text=text)
    split = split_options(question.prompt)
    assert split is not None  # as _can_mix has seen
    wording, options = split
    stop = "." if options[-1].endswith(".") else ""
    options[-1] = options[-1].removesuffix(".")
    # "None." is offered last, as the released model was trained.
    last = [options.pop()] if stop and normal_form(options[-1]) == "none" else []
    offered = {normal_form(option) for option in options}
    options += [label for label in added if normal_form(label) not in offered]
    listed = ", ".join([*map(str, rng.permutation(options)), *last])
    return replace(question, prompt=f"{wording} {listed}{stop}", text=text)
