"""Changes to an example's sound and, where they change it, its answers.

Each is a pure function of an example and a random generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import soxr
import torch
from torchaudio.functional import add_noise

from naturelm.audio.streaming import Samples
from naturelm.training import tasks

LoadNoise = Callable[[np.random.Generator], Samples]

# Sound quieter than this has no level to set a signal-to-noise ratio by.
_SILENCE = 1e-8


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a sound.

    Attributes
    ----------
    prompt, text : str
        Question and answer.
    task : str
        Its kind.
    """

    prompt: str
    text: str
    task: str


@dataclass(frozen=True, slots=True)
class LabelledSound:
    """A sound, its labels and the questions about it.

    Attributes
    ----------
    waveform : float32 [samples]
        At the model's sample rate.
    questions : tuple of Question
        All of the same treatment.
    labels : tuple of str
        All labels known to be in the sound, whatever the questions.
    """

    waveform: Samples
    questions: tuple[Question, ...]
    labels: tuple[str, ...]


def time_factor(rng: np.random.Generator, probability: float, largest: float) -> float:
    """How much longer a sound is to become: 1, or with `probability` ``largest ** U(-1, 1)``."""
    return float(largest ** rng.uniform(-1, 1)) if rng.random() < probability else 1.0


def scale_time(waveform: Samples, factor: float) -> Samples:
    """The same sound played slower (`factor` above 1) or faster: its pitch falls or rises with it."""
    if factor == 1.0:
        return waveform
    return soxr.resample(waveform, 1.0, factor, quality="QQ").astype(np.float32, copy=False)


def mask_by_noise(
    sound: LabelledSound, rng: np.random.Generator, probability: float, load_noise: LoadNoise
) -> tuple[LabelledSound, bool]:
    """With `probability`, noise in place of the sound of detection questions; they are answered by None.

    Returns
    -------
    tuple
        The example, and whether it is noise now.
    """
    if (
        not all(tasks.is_detection(question.task) for question in sound.questions)
        or rng.random() >= probability
    ):
        return sound, False
    noise = fitted(load_noise(rng), len(sound.waveform), rng)
    questions = tuple(replace(question, text="None") for question in sound.questions)
    return LabelledSound(noise, questions, ()), True


def noisy(
    sound: LabelledSound,
    rng: np.random.Generator,
    probability: float,
    snr_db: tuple[float, float],
    load_noise: LoadNoise,
) -> LabelledSound:
    """With `probability`, noise added at a signal-to-noise ratio drawn evenly from `snr_db`.

    Not to questions about the whole recording; silence stays silent.
    """
    allowed = all(tasks.treatment(question.task) != "none" for question in sound.questions)
    if not allowed or rng.random() >= probability:
        return sound
    ratio_db = rng.uniform(*snr_db)
    noise = fitted(load_noise(rng), len(sound.waveform), rng)
    if np.square(sound.waveform).mean() < _SILENCE**2 or np.square(noise).mean() < _SILENCE**2:
        return sound
    mixed = add_noise(
        torch.from_numpy(sound.waveform), torch.from_numpy(noise), torch.tensor(ratio_db, dtype=torch.float32)
    )
    return replace(sound, waveform=mixed.numpy())


def amplified(waveform: Samples, rng: np.random.Generator, gain_db: tuple[float, float]) -> Samples:
    """Another level: a gain drawn evenly from `gain_db`."""
    if gain_db == (0.0, 0.0):
        return waveform
    return waveform * np.float32(10 ** (rng.uniform(*gain_db) / 20))


def fitted(waveform: Samples, samples: int, rng: np.random.Generator) -> Samples:
    """A random piece of so many samples; a shorter sound is repeated."""
    if not len(waveform):
        return np.zeros(samples, np.float32)
    if len(waveform) < samples:
        waveform = np.tile(waveform, -(-samples // len(waveform)))
    start = int(rng.integers(len(waveform) - samples + 1))
    return waveform[start : start + samples]
