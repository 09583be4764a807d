"""The training stream: which example is at each place of each step, and its sound, decoded and augmented.

Everything is a function of the seed and the place, so any number of workers, and a resumed run, get the same examples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from naturelm.audio.streaming import DecodeError, Samples
from naturelm.errors import NaturelmError
from naturelm.labels import parse_labels
from naturelm.recordings.discovery import is_audio_name
from naturelm.storage import list_files, location
from naturelm.training import augment, mixing, tasks
from naturelm.training.augment import LabelledSound, Question
from naturelm.training.data_settings import DataSettings
from naturelm.training.manifest import Example, Span, read_manifest
from naturelm.training.pieces import piece
from naturelm.training.prompt_lists import drawn_prompt, read_prompt_lists
from naturelm.training.shards import PackedRow, ShardRows
from naturelm.windows import SAMPLE_RATE_HZ

# Between recordings that follow each other in one example.
_SILENCE_S = 0.1
_LOG = logging.getLogger(__name__)

# Marks the seeds of draws from shards: no run has so many epochs.
_PACKED = 1 << 31
# Shares are exact to this part, so that the number of draws before a place is whole arithmetic.
_SHARE_PARTS = 10_000
# So many broken files in a row are no accident.
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Spec:
    """Which example to load, and the seed of all that is random about it; `packed` counts the draws from shards."""

    example: int
    seed: tuple[int, int, int]
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """An example, ready for training.

    Attributes
    ----------
    id : str
        Of its first question's row.
    task : str
        Of its first question.
    waveform : float32 [samples]
        One window within [-1, 1].
    questions : tuple of (prompt, text)
    labels : tuple of str
        All labels known to be in the sound.
    """

    id: str
    task: str
    waveform: Samples
    questions: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]


def read_examples(manifests: Iterable[str], settings: DataSettings | None = None) -> list[Example]:
    """Read manifests one after the other; `settings` may name lists of prompts, and prompts with a prefix.

    Raises
    ------
    NaturelmError
        One is invalid; the message lists all of its problems.
    """
    settings = settings or DataSettings(manifests=tuple(manifests))
    lists = read_prompt_lists(location(settings.prompt_lists)) if settings.prompt_lists else None
    examples = []
    for path in manifests:
        prefix = settings.prefix if path in settings.prefix_manifests else ""
        for example in read_manifest(location(path), lists):
            examples.append(replace(example, prefix=prefix) if prefix else example)
    return examples


class Stream:
    """Examples in an endless shuffled order, one permutation of all of them in each epoch.

    Rows about one recording that may be augmented alike are one example, of which `questions_per_example` are used at
    once; where that is 1, every row is an example.

    Parameters
    ----------
    examples
        Rows of the manifests.
    settings
        Window and augmentation.
    seed
        Of the order and of augmentation.
    shards
        Rows with their sound, mixed with the examples by `settings.shards_share`.

    Raises
    ------
    NaturelmError
        A noise folder contains no sound.
    """

    def __init__(
        self, examples: Sequence[Example], settings: DataSettings, seed: int, shards: ShardRows | None = None
    ) -> None:
        self._shards = shards
        self._rows, self._settings, self._seed = list(examples), settings, seed
        self._samples = round(settings.window_s * SAMPLE_RATE_HZ)
        self._noises = find_noises(settings.noise_folders)
        self._prompts = read_prompt_lists(location(settings.prompt_lists)) if settings.prompt_lists else {}
        self._labels = _labels_by_sound(self._rows)
        one_each = settings.questions_per_example == 1
        self._groups = [[row] for row in range(len(self._rows))] if one_each else _group(self._rows)
        self._partners: dict[tasks.Naming, list[int]] = {"common": [], "sci": []}
        for number, group in enumerate(self._groups):
            if any(tasks.is_open_detection(self._rows[row].task) for row in group):
                self._partners[tasks.naming(self._rows[group[0]].task)].append(number)
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Examples of an epoch; with shards, those of one epoch of each."""
        return len(self._groups) + (len(self._shards) if self._shards else 0)

    def specs(self, step: int, batch: int) -> list[Spec]:
        """The examples of a step's batch; places are numbered through all steps and epochs."""
        first, last = step * batch, (step + 1) * batch
        packed = range(self._packed_before(first), self._packed_before(last))
        drawn = [Spec(draw, (self._seed, _PACKED, draw), packed=True) for draw in packed]
        places = range(first - packed.start, last - packed.stop)
        for epoch, place in (divmod(place, len(self._groups)) for place in places):
            number = int(self._permutation(epoch)[place])
            drawn.append(Spec(number, (self._seed, epoch, number)))
        return drawn

    def _packed_before(self, place: int) -> int:
        """Draws from shards before a place."""
        if not self._shards:
            return 0
        share = round(self._settings.shards_share * _SHARE_PARTS) if self._groups else _SHARE_PARTS
        return place * share // _SHARE_PARTS

    def task_names(self, examples: int) -> set[str]:
        """The tasks of so many examples, as step 0 takes them."""
        return {
            self._rows[self._groups[spec.example][0]].task
            for spec in self.specs(0, examples)
            if not spec.packed
        }

    def load(self, spec: Spec) -> Loaded:
        """Decode and augment an example.

        A recording that cannot be decoded is logged, and another example, drawn by the same seed, replaces it.

        Raises
        ------
        NaturelmError
            Eight recordings in a row cannot be decoded.
        """
        rng = np.random.default_rng(np.random.SeedSequence(spec.seed))
        if spec.packed:
            return self._load_packed(spec.example, rng)
        number = spec.example
        for _ in range(_TRIES):
            try:
                return self._load(number, rng)
            except DecodeError as error:
                _LOG.warning("left out: %s", error)
                last = error
                number = int(rng.integers(len(self._groups)))
        raise NaturelmError(
            f"{_TRIES} recordings in a row cannot be decoded, the last is {last}; check the manifests"
        )

    def _load(self, number: int, rng: np.random.Generator) -> Loaded:
        rows = self._draw_rows(number, rng)
        return self._augmented(rows[0].id, self._load_sound(rows, rng), rng, self._load_partner)

    def _load_packed(self, draw: int, rng: np.random.Generator) -> Loaded:
        """A row of the shards; one that cannot be used is replaced by another of its block."""
        assert self._shards is not None
        row, others = self._shards.row(draw), self._shards.neighbours(draw)
        if not others:
            raise NaturelmError("a whole block of rows in data.shards cannot be used; check the shards")
        if row is None:
            row = others[rng.integers(len(others))]

        def load_partner(rng: np.random.Generator, naming: tasks.Naming) -> LabelledSound | None:
            able = [
                other
                for other in others
                if tasks.is_open_detection(other.task) and tasks.naming(other.task) == naming
            ]
            return self._packed_sound(able[rng.integers(len(able))], rng) if able else None

        return self._augmented(row.id, self._packed_sound(row, rng), rng, load_partner)

    def _augmented(
        self, name: str, sound: LabelledSound, rng: np.random.Generator, load_partner: mixing.LoadPartner
    ) -> Loaded:
        settings, task = self._settings, sound.questions[0].task
        sound, is_noise = augment.mask_by_noise(sound, rng, settings.noise_only_probability, self._load_noise)
        if not is_noise:
            sound = augment.noisy(
                sound, rng, settings.noise_probability, settings.noise_snr_db, self._load_noise
            )
            sound = mixing.mixed(
                sound, rng, settings.mixup_probability, settings.mixup_partners, load_partner
            )
        waveform = augment.amplified(sound.waveform, rng, settings.gain_db)
        return Loaded(
            id=name,
            task=task,
            waveform=waveform.clip(-1.0, 1.0),
            questions=tuple((question.prompt, question.text) for question in sound.questions),
            labels=sound.labels,
        )

    def _draw_rows(self, number: int, rng: np.random.Generator) -> list[Example]:
        group = self._groups[number]
        count = min(self._settings.questions_per_example, len(group))
        return [self._rows[group[place]] for place in rng.permutation(len(group))[:count]]

    def _load_sound(self, rows: Sequence[Example], rng: np.random.Generator) -> LabelledSound:
        settings, path = self._settings, rows[0].path
        factor = self._draw_factor([row.task for row in rows], rng)
        place = rng.random() if settings.crop == "random" else 0.0
        sound = piece(path, settings.window_s / factor, place, rows[0].span)
        if rows[0].following:
            silence = np.zeros(round(_SILENCE_S * SAMPLE_RATE_HZ), np.float32)
            after = [piece(name, settings.window_s, 0.0) for name in rows[0].following]
            sound = np.concatenate([sound, *(part for own in after for part in (silence, own))])
        waveform = self._fit(sound, factor)
        questions = tuple(Question(self._prompt(row, rng), row.text, row.task) for row in rows)
        return LabelledSound(waveform, questions, self._labels.get((path, rows[0].span), ()))

    def _prompt(self, row: Example, rng: np.random.Generator) -> str:
        """A row's prompt; only one that is drawn takes random numbers."""
        prompt = row.prompt or drawn_prompt(self._prompts[row.task], row.own_text, rng)
        if row.prefix and rng.random() < self._settings.prefix_probability:
            return row.prefix + prompt
        return prompt

    def _packed_sound(self, row: PackedRow, rng: np.random.Generator) -> LabelledSound:
        factor = self._draw_factor([row.task], rng)
        needed = math.ceil(self._samples / factor)
        question = Question(row.prompt, row.text, row.task)
        return LabelledSound(self._fit(row.waveform[:needed], factor), (question,), _labels([question]))

    def _draw_factor(self, kinds: Sequence[str], rng: np.random.Generator) -> float:
        factor = augment.time_factor(rng, self._settings.time_scale_probability, self._settings.time_scale)
        return factor if all(map(tasks.may_scale_time, kinds)) else 1.0

    def _fit(self, waveform: Samples, factor: float) -> Samples:
        waveform = augment.scale_time(waveform, factor)
        if not self._settings.pad_to_window:
            return waveform[: self._samples]
        return np.pad(waveform[: self._samples], (0, max(0, self._samples - len(waveform))))

    def _load_noise(self, rng: np.random.Generator) -> Samples:
        return piece(self._noises[rng.integers(len(self._noises))], self._settings.window_s, rng.random())

    def _load_partner(self, rng: np.random.Generator, naming: tasks.Naming) -> LabelledSound | None:
        partners = self._partners[naming]
        if not partners:
            return None
        group = self._groups[partners[rng.integers(len(partners))]]
        return self._load_sound(
            [self._rows[row] for row in group if tasks.is_open_detection(self._rows[row].task)], rng
        )

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng(np.random.SeedSequence((self._seed, epoch)))
            self._order = epoch, rng.permutation(len(self._groups))
        return self._order[1]


def find_noises(folders: Iterable[str]) -> list[str]:
    """All sound files in and below some directories, in order.

    Raises
    ------
    NaturelmError
        One contains none, or does not exist.
    """
    noises: list[str] = []
    for folder in folders:
        found = [
            file for file in list_files(location(folder), recursive=True) if is_audio_name(file.location.name)
        ]
        if not found:
            raise NaturelmError(
                f"{folder}: contains no sound; give data.noise_folders directories of recordings"
            )
        noises += [str(file.location) for file in found]
    return noises


def _group(rows: Sequence[Example]) -> list[list[int]]:
    groups: dict[
        tuple[str, tuple[str, ...], Span | None, tasks.Treatment, tasks.Naming | None, bool], list[int]
    ] = {}
    for number, row in enumerate(rows):
        how = tasks.treatment(row.task)
        named = tasks.naming(row.task) if how == "mix" else None
        sound = (row.path, row.following, row.span)
        groups.setdefault((*sound, how, named, tasks.may_scale_time(row.task)), []).append(number)
    return list(groups.values())


def _labels_by_sound(rows: Sequence[Example]) -> dict[tuple[str, Span | None], tuple[str, ...]]:
    """Labels of each recording or part of one."""
    questions: dict[tuple[str, Span | None], list[Question]] = {}
    for row in rows:
        if tasks.is_open_detection(row.task) or tasks.is_naming(row.task):
            question = Question(row.prompt, row.text, row.task)
            questions.setdefault((row.path, row.span), []).append(question)
    return {sound: _labels(own) for sound, own in questions.items()}


def _labels(questions: Iterable[Question]) -> tuple[str, ...]:
    """Labels in the answers of open-ended detection and naming."""
    texts = [q.text for q in questions if tasks.is_open_detection(q.task) or tasks.is_naming(q.task)]
    return tuple(mixing.united([label.name for text in texts for label in parse_labels(text)]))
