"""Questions of all clients share the model's batches."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from naturelm.errors import NaturelmError
from naturelm.models.answer import Answer

if TYPE_CHECKING:
    from naturelm.engine.engine import Engine

# Clients that ask at the same time are not in step: what comes within this time goes together.
_GATHER_S = 0.01


@dataclass(frozen=True, slots=True)
class QueuedQuestion:
    """What determines which questions can share a batch.

    Attributes
    ----------
    prompt : str
    max_new_tokens : int
    temperature : float
        0 is a search by beams; tokens are drawn by chance above it.
    """

    prompt: str
    max_new_tokens: int
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and the length of its prompt in tokens, sound included."""

    answer: Answer
    prompt_tokens: int


@dataclass(slots=True)
class _Waiting:
    question: QueuedQuestion
    samples: npt.NDArray[np.float32]
    future: Future[Answered]


class Batcher:
    """Runs the engine in a separate thread; equal queries share its batches, whoever sent them.

    Parameters
    ----------
    engine : Engine
        Used by this object alone from now on.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._num_beams = engine.num_beams
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="naturelm-batches", daemon=True)
        self._thread.start()

    def submit(self, question: QueuedQuestion, samples: npt.NDArray[np.float32]) -> Future[Answered]:
        """Queue a question about a sound: float32 ``[samples]`` at the model's rate, no longer than its window.

        The future raises NaturelmError where the model cannot answer.
        """
        future: Future[Answered] = Future()
        self._waiting.put(_Waiting(question, samples, future))
        return future

    def close(self) -> None:
        """Answer what is queued and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            ends_s = time.monotonic() + _GATHER_S
            ended = False
            while not ended:
                try:
                    more = self._waiting.get(timeout=max(0.0, ends_s - time.monotonic()))
                except queue.Empty:
                    break
                if more is None:
                    ended = True
                else:
                    batch.append(more)
            for question in dict.fromkeys(part.question for part in batch):
                self._answer(question, [part for part in batch if part.question == question])
            if ended:
                return

    def _answer(self, question: QueuedQuestion, parts: Sequence[_Waiting]) -> None:
        from naturelm.engine.queries import EngineQuery

        try:
            query = EngineQuery(question.prompt, question.max_new_tokens)
            sampled = question.temperature > 0
            self._engine.do_sample = sampled
            self._engine.temperature = question.temperature if sampled else 1.0
            self._engine.num_beams = 1 if sampled else self._num_beams
            self._engine.ask([query])
            prompt_tokens = self._engine.prompt_tokens(query)
            # The engine pads to the longest of a batch, and every sound to the model's window.
            longest = max(len(part.samples) for part in parts)
            waveforms = np.stack([np.pad(part.samples, (0, longest - len(part.samples))) for part in parts])
            answers = self._engine.answer(waveforms, self._engine.model.sample_rate_hz)
        except Exception as error:
            # One batch that fails must not end the thread that answers all others.
            reason = error if isinstance(error, NaturelmError) else _failure(error)
            for part in parts:
                part.future.set_exception(reason)
            return
        for part, (answer,) in zip(parts, answers, strict=True):
            part.future.set_result(Answered(answer, prompt_tokens))


def _failure(error: Exception) -> NaturelmError:
    return NaturelmError(f"the model failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
