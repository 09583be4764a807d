"""What the *Ask* tab does: a question about a few sounds, answered window by window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from naturelm.audio.cutting import CutWindow, cut_windows
from naturelm.audio.streaming import decode
from naturelm.errors import NaturelmError
from naturelm.models.presets import resolve
from naturelm.recordings.discovery import FoundFile
from naturelm.recordings.probe import probe
from naturelm.text import duration
from naturelm.windows import SAMPLE_RATE_HZ, Window, plan_windows

if TYPE_CHECKING:
    from naturelm.engine.engine import Engine
    from naturelm.engine.queries import EngineQuery
    from naturelm.models.base import LanguageModel

MAX_FILES = 20
MAX_FILE_BYTES = 200 * 1024 * 1024
MAX_SOUND_S = 3600.0
"""Sound in one question; `naturelm process` is for more."""

MAX_QUESTION_CHARACTERS = 2000
MAX_NEW_TOKENS = 128

# Few enough that the first answers come soon and a click on Cancel is heeded.
_BATCH_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class UploadedSound:
    """A file to answer a query about, and the windows of it that the model receives."""

    path: Path
    name: str
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class SoundAnswer:
    """The answer about one window.

    Attributes
    ----------
    sound : UploadedSound
    window : Window
    samples : array, float32 [samples]
        What the model received, at `SAMPLE_RATE_HZ`, without padding.
    text : str
        Untrusted.
    score : float
        Mean token probability.
    """

    sound: UploadedSound
    window: Window
    samples: NDArray[np.float32]
    text: str
    score: float


class Asker:
    """A model that answers questions about sounds; loaded with the first question.

    Parameters
    ----------
    model : str
        Preset name, checkpoint directory or hub id.
    llm : str, optional
        Base LLM, directory or hub id.
    weights : str
        As of `naturelm.load_model`.

    Raises
    ------
    NaturelmError
        There is no such model.
    """

    def __init__(self, model: str, llm: str | None = None, weights: str = "auto") -> None:
        resolve(model)
        self.model_name = model
        self._llm, self._weights = llm, weights
        self._lock = threading.Lock()
        self._model: LanguageModel | None = None
        self._engine: Engine | None = None

    def answer(
        self, sounds: Sequence[UploadedSound], question: str, merging_alpha: float
    ) -> Iterator[list[SoundAnswer]]:
        """Answer a question about every window, in order, a few at a time.

        Stopping the iteration stops the work.

        Raises
        ------
        NaturelmError
            The model cannot be loaded, the question is empty or too long, or a sound cannot be decoded.
        """
        question = check_question(question)
        for sound in sounds:
            window_samples = round(max(w.end_s - w.start_s for w in sound.windows) * SAMPLE_RATE_HZ)
            batch: list[CutWindow] = []
            for cut in cut_windows(decode(sound.path), sound.windows, window_samples):
                if cut.decoded_s <= 0:  # the header promised more than there is
                    break
                batch.append(cut)
                if len(batch) == _BATCH_WINDOWS:
                    yield self._answer_batch(sound, batch, question, merging_alpha)
                    batch = []
            if batch:
                yield self._answer_batch(sound, batch, question, merging_alpha)

    def _answer_batch(
        self, sound: UploadedSound, batch: list[CutWindow], question: str, merging_alpha: float
    ) -> list[SoundAnswer]:
        from naturelm.engine.queries import EngineQuery

        waveforms = np.stack([cut.samples for cut in batch])
        with self._lock:  # one model for all visitors
            engine = self._engine_at(merging_alpha, EngineQuery(question, MAX_NEW_TOKENS))
            answers = engine.answer(waveforms, SAMPLE_RATE_HZ)
        return [
            SoundAnswer(
                sound,
                cut.window,
                cut.samples[: round(cut.decoded_s * SAMPLE_RATE_HZ)],
                answer.text,
                answer.score,
            )
            for cut, [answer] in zip(batch, answers, strict=True)
        ]

    def _engine_at(self, merging_alpha: float, query: EngineQuery) -> Engine:
        from naturelm.engine.engine import Engine
        from naturelm.models import load_model
        from naturelm.models.base import require_language_model

        if self._model is None:
            self._model = require_language_model(
                load_model(self.model_name, llm=self._llm, weights=self._weights)
            )
        if self._engine is None or self._model.merging_alpha != merging_alpha:
            self._engine = None  # its merged copy of the weights goes before the next one is made
            self._model.merging_alpha = merging_alpha
            self._engine = Engine(self._model, [query])
        elif self._engine.queries != (query,):
            self._engine.ask([query])
        return self._engine


def check_question(question: str) -> str:
    """A question without outer white space.

    Raises
    ------
    NaturelmError
        It is empty or too long.
    """
    question = question.strip()
    if not question:
        raise NaturelmError("there is no question; choose one or type your own")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise NaturelmError(
            f"the question has {len(question)} characters; ask in at most {MAX_QUESTION_CHARACTERS}"
        )
    return question


def open_sounds(
    paths: Sequence[Path],
    window_s: float,
    hop_s: float,
    name_of: Callable[[Path], str] = lambda path: path.name,
) -> list[UploadedSound]:
    """Check files and cut them into windows.

    Parameters
    ----------
    paths : sequence of Path
        Sound files.
    window_s, hop_s : float
        Window length and seconds between window starts.
    name_of : callable
        How a file is called in messages.

    Raises
    ------
    NaturelmError
        There are no files or too many, one is too large or cannot be read, or all together are too long.
    """
    if not paths:
        raise NaturelmError("there is no sound; upload a file, record something or take an example")
    if len(paths) > MAX_FILES:
        raise NaturelmError(f"there are {len(paths)} files; ask about at most {MAX_FILES} at once")
    sounds = []
    total_s = 0.0
    for path in paths:
        name = name_of(path)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise NaturelmError(
                f"{name}: is larger than {MAX_FILE_BYTES >> 20} MiB; use naturelm process for it"
            )
        recording = probe(FoundFile(path.parent, path.name, path))
        if not recording.has_sound or recording.duration_s is None:
            raise NaturelmError(f"{name}: {recording.error or recording.status}; give another file")
        total_s += recording.duration_s
        sounds.append(UploadedSound(path, name, tuple(plan_windows(recording.duration_s, window_s, hop_s))))
    if total_s > MAX_SOUND_S:
        raise NaturelmError(
            f"the sounds are {duration(total_s)} long; ask about at most {duration(MAX_SOUND_S)} here, "
            "and use naturelm process for more"
        )
    return sounds
