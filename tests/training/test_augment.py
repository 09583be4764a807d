"""Augmentation: how often, how much, and never where it would make an answer wrong."""

from __future__ import annotations

import numpy as np
import pytest

from naturelm.training import augment, tasks
from naturelm.training.augment import LabelledSound, Question

DETECTION = Question(
    "What are the common names for the species in the audio, if any?", "Owl", "common-multiple-detection"
)
OPTIONS = Question(
    "Which of these, if any, are present in the audio recording? Owl, Frog", "Owl", "common-detection-random"
)
NAMING = Question(
    "What is the common name for the focal species in the audio? Answer:", "Owl", "common-naming"
)
CAPTION = Question("Caption the audio.", "An owl hoots.", "caption")
PROTECTED = [
    CAPTION,
    Question("How many birds call?", "3", "bird-count"),
    Question("Is it an owl?", "Yes", "species-qa"),
    Question("Do as told.", "Done", "animal-instructions"),
]


def tone(hertz: float = 1000.0, samples: int = 16_000) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * hertz * np.arange(samples) / 16_000)).astype(np.float32)


def tone_with(*questions: Question) -> LabelledSound:
    return LabelledSound(tone(), questions, ("Owl",))


def white(rng: np.random.Generator) -> np.ndarray:
    return (0.1 * rng.standard_normal(24_000)).astype(np.float32)


@pytest.mark.parametrize(
    ("task", "treatment", "scales"),
    [
        ("common-multiple-detection", "mix", True),
        ("sci-simple-detection", "mix", True),
        ("species-common-detection-random", "mix", True),
        ("species-sci", "noise", True),
        ("lifestage", "noise", True),
        ("pitch-naming", "noise", False),
        ("captioning", "none", False),
        ("audio-qa", "none", False),
        ("count", "none", False),
        ("animal-instructions", "none", False),
        ("detection-icl", "none", False),
    ],
)
def test_the_name_of_a_task_says_what_is_allowed(task, treatment, scales):
    assert tasks.treatment(task) == treatment
    assert tasks.may_scale_time(task) is scales


def test_only_detection_without_options_is_open():
    assert tasks.is_open_detection("common-simple-detection")
    assert not tasks.is_open_detection("common-detection-random")
    assert not tasks.is_open_detection("common-naming")


def test_time_factors_are_even_in_the_logarithm_and_as_frequent_as_configured():
    rng = np.random.default_rng(0)
    factors = np.array([augment.time_factor(rng, 0.3, 2.0) for _ in range(20_000)])
    scaled = factors[factors != 1.0]
    assert len(scaled) / len(factors) == pytest.approx(0.3, abs=0.015)
    assert scaled.min() >= 0.5
    assert scaled.max() <= 2.0
    assert np.quantile(np.log2(scaled), [0.1, 0.5, 0.9]) == pytest.approx([-0.8, 0.0, 0.8], abs=0.05)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_slower_is_longer_and_lower(factor):
    slow = augment.scale_time(tone(1000.0), factor)
    assert slow.dtype == np.float32
    assert len(slow) == pytest.approx(16_000 * factor, abs=2)
    peak_hz = np.argmax(np.abs(np.fft.rfft(slow))) * 16_000 / len(slow)
    assert peak_hz == pytest.approx(1000.0 / factor, abs=3)


def test_noise_has_the_drawn_level_and_frequency():
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(2000):
        example = augment.noisy(tone_with(NAMING), rng, 0.4, (-10.0, 25.0), white)
        if example.waveform is not None and not np.array_equal(example.waveform, tone()):
            added = example.waveform - tone()
            ratios.append(10 * np.log10(np.mean(tone() ** 2) / np.mean(added**2)))
        assert example.questions == (NAMING,)
        assert example.labels == ("Owl",)
    assert len(ratios) / 2000 == pytest.approx(0.4, abs=0.04)
    assert min(ratios) == pytest.approx(-10.0, abs=0.5)
    assert max(ratios) == pytest.approx(25.0, abs=0.5)
    assert np.quantile(ratios, [0.25, 0.5, 0.75]) == pytest.approx([-1.25, 7.5, 16.25], abs=2.0)


@pytest.mark.parametrize("question", PROTECTED, ids=lambda q: q.task)
def test_no_noise_where_the_task_forbids_it(question):
    for seed in range(5):
        example = augment.noisy(tone_with(question), np.random.default_rng(seed), 1.0, (0.0, 0.0), white)
        assert np.array_equal(example.waveform, tone())
        masked, is_noise = augment.mask_by_noise(tone_with(question), np.random.default_rng(seed), 1.0, white)
        assert not is_noise
        assert masked.questions == (question,)


def test_one_protected_question_protects_the_sound_of_all():
    example = augment.noisy(tone_with(NAMING, CAPTION), np.random.default_rng(0), 1.0, (0.0, 0.0), white)
    assert np.array_equal(example.waveform, tone())


def test_silence_and_silent_noise_are_left_alone():
    silent = LabelledSound(np.zeros(16_000, np.float32), (NAMING,), ())
    noise_on_silence = augment.noisy(silent, np.random.default_rng(0), 1.0, (0.0, 0.0), white)
    assert not noise_on_silence.waveform.any()
    silence_on_tone = augment.noisy(
        tone_with(NAMING), np.random.default_rng(0), 1.0, (0.0, 0.0), lambda rng: np.zeros(100, np.float32)
    )
    assert np.array_equal(silence_on_tone.waveform, tone())


def test_noise_in_place_of_a_detection_example_is_answered_by_none():
    rng = np.random.default_rng(2)
    masked = 0
    for _ in range(3000):
        example, is_noise = augment.mask_by_noise(tone_with(DETECTION, OPTIONS), rng, 0.1, white)
        masked += is_noise
        if is_noise:
            assert [question.text for question in example.questions] == ["None", "None"]
            assert [question.prompt for question in example.questions] == [DETECTION.prompt, OPTIONS.prompt]
            assert example.labels == ()
            assert len(example.waveform) == 16_000
            assert np.std(example.waveform) == pytest.approx(0.1, rel=0.05)
        else:
            assert example.questions == (DETECTION, OPTIONS)
    assert masked / 3000 == pytest.approx(0.1, abs=0.02)


def test_naming_is_never_replaced_by_noise():
    example, is_noise = augment.mask_by_noise(tone_with(NAMING), np.random.default_rng(0), 1.0, white)
    assert not is_noise
    assert np.array_equal(example.waveform, tone())


def test_gain_is_even_in_decibels():
    rng = np.random.default_rng(3)
    gains_db = [
        20 * np.log10(np.abs(augment.amplified(tone(), rng, (-40.0, -10.0))).max() / 0.2) for _ in range(2000)
    ]
    assert np.quantile(gains_db, [0, 0.5, 1]) == pytest.approx([-40, -25, -10], abs=1.0)


def test_the_same_generator_state_gives_the_same_example():
    first, again = (
        augment.noisy(tone_with(NAMING), np.random.default_rng(5), 1.0, (-10.0, 25.0), white) for _ in "ab"
    )
    assert np.array_equal(first.waveform, again.waveform)


def test_short_noise_is_repeated_and_long_noise_cut():
    rng = np.random.default_rng(0)
    assert len(augment.fitted(tone(samples=700), 16_000, rng)) == 16_000
    starts = {float(augment.fitted(np.arange(10, dtype=np.float32), 4, rng)[0]) for _ in range(200)}
    assert starts == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0}
    assert not augment.fitted(np.empty(0, np.float32), 5, rng).any()
