"""Mixup: sounds add up by their shares, labels are united, options grow."""

from __future__ import annotations

import numpy as np
import pytest

from naturelm.training.augment import LabelledSound, Question
from naturelm.training.mixing import mixed, open_labels, split_options, united

OPEN = "What are the common names for the species in the audio, if any?"
CLOSED = "Which of these, if any, are present in the audio recording? "
SAMPLES = 100


def example(
    *questions: tuple[str, str, str], level: float = 1.0, labels: tuple[str, ...] = ()
) -> LabelledSound:
    return LabelledSound(
        np.full(SAMPLES, level, np.float32), tuple(Question(*question) for question in questions), labels
    )


def openly(text: str, level: float = 1.0) -> LabelledSound:
    labels = () if text == "None" else tuple(text.split(", "))
    return example((OPEN, text, "common-multiple-detection"), level=level, labels=labels)


def closed(options: str, text: str) -> LabelledSound:
    return example((CLOSED + options, text, "common-detection-random"), labels=(text,))


def mix(
    base: LabelledSound, *partners: LabelledSound, seed: int = 0, most: int = 1, probability: float = 1.0
) -> LabelledSound:
    waiting = iter(partners * 10)
    return mixed(base, np.random.default_rng(seed), probability, most, lambda rng, naming: next(waiting))


@pytest.mark.parametrize(
    ("base", "partner", "text"),
    [
        ("Owl", "Frog", "Frog, Owl"),
        ("Owl", "owl", "Owl"),
        ("None", "Frog", "Frog"),
        ("Owl", "None", "Owl"),
        ("None", "None", "None"),
        ("Rain, Owl", "Frog, Rain", "Frog, Owl, Rain"),
    ],
)
def test_labels_are_united_in_alphabetical_order(base, partner, text):
    result = mix(openly(base), openly(partner))
    assert [question.text for question in result.questions] == [text]
    assert (", ".join(result.labels) or "None") == text
    assert result.questions[0].prompt == OPEN


def test_options_get_the_new_labels_and_are_shuffled():
    orders = set()
    for seed in range(200):
        (question,) = mix(closed("Owl, Wolf, Bat", "Owl"), openly("Frog, Wolf"), seed=seed).questions
        wording, options = split_options(question.prompt)
        assert wording == CLOSED.strip()
        assert sorted(options) == ["Bat", "Frog", "Owl", "Wolf"]
        assert question.text == "Frog, Owl, Wolf"
        orders.add(tuple(options))
    assert len(orders) == 24


def test_none_stays_the_last_option_and_the_full_stop_at_the_end():
    for seed in range(20):
        (question,) = mix(closed("Owl, Bat, None.", "Owl"), openly("Frog"), seed=seed).questions
        _, options = split_options(question.prompt)
        assert sorted(options[:-1]) == ["Bat", "Frog", "Owl"]
        assert options[-1] == "None."
        (question,) = mix(closed("Owl, Bat.", "Owl"), openly("Frog"), seed=seed).questions
        assert question.prompt.endswith(".")
        assert question.prompt.count(".") == 1


def test_what_is_present_but_not_offered_stays_out_of_a_closed_answer():
    base = LabelledSound(
        np.ones(SAMPLES, np.float32),
        (Question(CLOSED + "Wolf, Bat", "None", "common-detection-random"),),
        ("Owl",),
    )
    result = mix(base, openly("Frog"))
    assert result.questions[0].text == "Frog"
    assert result.labels == ("Frog", "Owl")


def test_all_questions_about_one_sound_learn_of_the_partner():
    base = example(
        (OPEN, "Owl", "common-multiple-detection"), (CLOSED + "Owl, Bat", "Owl", "common-detection-random")
    )
    assert [question.text for question in mix(base, openly("Frog")).questions] == ["Frog, Owl", "Frog, Owl"]


def test_shares_are_beta_clipped_and_add_up_to_one():
    shares = [
        float(mix(openly("Owl", 1.0), openly("Frog", 0.0), seed=seed).waveform[0]) for seed in range(4000)
    ]
    assert min(shares) == pytest.approx(0.1)
    assert max(shares) == pytest.approx(0.8)
    assert np.mean(np.isclose(shares, 0.1)) == pytest.approx(0.1, abs=0.02)
    assert np.mean(np.isclose(shares, 0.8)) == pytest.approx(0.2, abs=0.03)
    assert np.median(shares) == pytest.approx(0.5, abs=0.03)
    both = mix(openly("Owl", 0.5), openly("Frog", 0.5))
    assert both.waveform == pytest.approx(np.full(SAMPLES, 0.5))


def test_one_or_two_partners_in_as_many_examples_as_configured():
    counts = [
        len(mix(openly("Owl"), openly("Frog"), openly("Wolf"), seed=seed, most=2, probability=0.45).labels)
        for seed in range(3000)
    ]
    assert np.mean(np.array(counts) > 1) == pytest.approx(0.45, abs=0.03)
    assert np.mean(np.array(counts)[np.array(counts) > 1] == 3) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "task", ["caption", "common-naming", "common-naming-random", "count", "species-qa", "lifestage"]
)
def test_other_tasks_are_never_mixed(task):
    base = example((OPEN, "Owl", task), labels=("Owl",))
    assert mix(base, openly("Frog")) is base


def test_a_closed_question_whose_options_cannot_be_read_is_not_mixed():
    base = example(("Say which of Owl or Bat is there.", "Owl", "common-detection-random"))
    assert mix(base, openly("Frog")) is base


def test_without_partners_an_example_stays_as_it_is():
    base = openly("Owl")
    assert mixed(base, np.random.default_rng(0), 1.0, 2, lambda rng, naming: None) is base


@pytest.mark.parametrize(
    ("task", "naming"), [("sci-simple-detection", "sci"), ("common-detection-random", "common")]
)
def test_partners_name_species_the_same_way(task, naming):
    requested = []

    def load(rng, how):
        requested.append(how)
        return openly("Frog")

    mixed(example((CLOSED + "Owl, Bat", "Owl", task)), np.random.default_rng(0), 1.0, 1, load)
    assert requested == [naming]


def test_open_labels_come_from_open_questions_alone():
    questions = example(
        (CLOSED + "Owl", "Owl", "common-detection-random"), (OPEN, "Frog", "common-multiple-detection")
    ).questions
    assert open_labels(questions) == ["Frog"]
    assert united(["b", "A", "a", "B"]) == ["A", "b"]


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (CLOSED + "Owl, Great Tit", ["Owl", "Great Tit"]),
        ("Pick from these: Owl,Bat ", ["Owl", "Bat"]),
        (OPEN, None),
        ("Caption the audio.", None),
    ],
)
def test_options_stand_after_the_question(prompt, options):
    split = split_options(prompt)
    assert (split[1] if split else None) == options
