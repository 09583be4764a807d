"""Queries about a few recordings, without a job: the published Python interface."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import soxr

from naturelm.audio.cutting import CutWindow, cut_windows
from naturelm.audio.streaming import DecodeError, Samples, decode
from naturelm.errors import NaturelmError
from naturelm.models.answer import Answer
from naturelm.storage import StorePath
from naturelm.windows import SAMPLE_RATE_HZ, Window, check_window, plan_windows

if TYPE_CHECKING:
    from naturelm.engine.engine import Engine
    from naturelm.models.base import Classifier, LanguageModel

Audio = str | Path | StorePath | npt.NDArray[np.floating]
"""A file, or mono sound in [-1, 1]."""


@dataclass(frozen=True)
class WindowAnswer:
    """What the model answered about one window.

    Attributes
    ----------
    window : Window
        Its place in the recording.
    answer : Answer
    """

    window: Window
    answer: Answer

    def __str__(self) -> str:
        return f"#{self.window.start_s:.2f}s - {self.window.end_s:.2f}s#: {self.answer.text}"


class Pipeline:
    """Puts a query to a model about every window of recordings.

    Parameters
    ----------
    model : LanguageModel, str or Path, optional
        A loaded model, or the name of one, as `naturelm.load_model` takes it; by default the bundled pocket model.
    max_new_tokens, num_beams : int, optional
        Longest answer in tokens; beams of the search, 1 is greedy. By default as the model's family publishes them.
    batch_size : int, optional
        Windows in one batch; chosen by the engine where not given. It changes no answer.
    **search
        Other settings of the search, as `naturelm.engine.Engine` takes them, such as `do_sample`; where neither these
        nor `num_beams` are given, those that the model's family publishes.

    Examples
    --------
    >>> from naturelm.infer import Pipeline
    >>> from naturelm.models import load_model
    >>> model = load_model("EarthSpeciesProject/NatureLM-audio")  # doctest: +SKIP
    >>> Pipeline(model=model)(["a.mp3"], "What is the common name for the focal species?")  # doctest: +SKIP
    ['#0.00s - 10.00s#: Green Treefrog\\n']
    """

    def __init__(
        self,
        model: LanguageModel | Classifier | str | Path | None = None,
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        batch_size: int | None = None,
        **search: Any,
    ) -> None:
        if model is None or isinstance(model, str | Path):
            from naturelm.models import load_model

            model = load_model(model or "pocket")
        self.model = model
        from naturelm.models.base import require_language_model

        published = dataclasses.asdict(require_language_model(model).published_generation)
        longest = published.pop("max_new_tokens")
        self.max_new_tokens = longest if max_new_tokens is None else max_new_tokens
        given = search if num_beams is None else {"num_beams": num_beams, **search}
        self.search: dict[str, Any] = given or published
        self.batch_size = batch_size

    def __call__(
        self,
        audios: Sequence[Audio],
        queries: str | Sequence[str],
        window_length_seconds: float = 10.0,
        hop_length_seconds: float = 10.0,
        input_sample_rate: int = SAMPLE_RATE_HZ,
    ) -> list[str]:
        """Put queries to the model about every window of every recording.

        Parameters
        ----------
        audios
            Files, or mono float arrays in [-1, 1].
        queries
            One query for all, or one for each of `audios`.
        window_length_seconds, hop_length_seconds
            Window length, and seconds between window starts.
        input_sample_rate
            Sample rate of arrays; files state theirs.

        Returns
        -------
        list of str
            For each recording its answers, a line for each window: ``#0.00s - 10.00s#: Green Treefrog``.

        Raises
        ------
        NaturelmError
            An input mistake, a file that cannot be decoded to its end, or output of the model that is not finite.
        """
        if isinstance(audios, str | Path | StorePath | np.ndarray):
            raise NaturelmError("audios is a single recording; give a list of them")
        per_recording = [queries] * len(audios) if isinstance(queries, str) else list(queries)
        if len(per_recording) != len(audios):
            raise NaturelmError(
                f"{len(per_recording)} queries for {len(audios)} recordings; give one, or one for each"
            )
        texts = [""] * len(audios)
        for query in dict.fromkeys(per_recording):
            indices = [i for i, own in enumerate(per_recording) if own == query]
            sounds = [audios[i] for i in indices]
            for number, answered in self._answers(
                sounds, query, window_length_seconds, hop_length_seconds, input_sample_rate
            ):
                texts[indices[number]] += f"{answered}\n"
        return texts

    def answers(
        self,
        audio: Audio,
        query: str,
        window_length_seconds: float = 10.0,
        hop_length_seconds: float = 10.0,
        input_sample_rate: int = SAMPLE_RATE_HZ,
    ) -> Iterator[WindowAnswer]:
        """Put a query about every window of one recording, as it is decoded; the parameters are those of a call.

        Raises
        ------
        NaturelmError
            As a call does; for a file that is damaged in the middle, after the answers before the damage.
        """
        answered = self._answers([audio], query, window_length_seconds, hop_length_seconds, input_sample_rate)
        return (answer for _, answer in answered)

    def _answers(
        self, audios: Sequence[Audio], query: str, window_s: float, hop_s: float, sample_rate_hz: int
    ) -> Iterator[tuple[int, WindowAnswer]]:
        check_window(window_s, hop_s)
        if window_s > self.model.window_s:
            raise NaturelmError(
                f"window is {window_s:g} s, but the model takes at most {self.model.window_s:g} s; "
                "give a shorter window"
            )
        engine = self._engine(query)
        cuts = (
            (number, cut)
            for number, audio in enumerate(audios)
            for cut in stream_windows(_blocks(audio, sample_rate_hz), window_s, hop_s)
        )
        for batch in _batches(cuts, engine.batch_size):
            waveforms = np.stack([cut.samples for _, cut in batch])
            rows = engine.answer(waveforms, SAMPLE_RATE_HZ)
            for (number, cut), (answer,) in zip(batch, rows, strict=True):
                if not answer.is_finite:
                    raise NaturelmError(
                        f"the model's output for the window at {cut.window.start_s:g} s is NaN or infinite; "
                        "check its weights and its precision"
                    )
                yield number, WindowAnswer(cut.window, answer)

    def _engine(self, query: str) -> Engine:
        from naturelm.engine.engine import Engine
        from naturelm.engine.queries import EngineQuery

        # A new one each time: the model's weights and merging_alpha are its user's to change.
        engine_query = EngineQuery(query, max_new_tokens=self.max_new_tokens)
        return Engine(self.model, [engine_query], batch_size=self.batch_size, **self.search)


def stream_windows(blocks: Iterator[Samples], window_s: float, hop_s: float) -> Iterator[CutWindow]:
    """Cut sound of unknown length into windows, by the rule of :func:`naturelm.windows.plan_windows`.

    Parameters
    ----------
    blocks : iterator of float32 [samples]
        16 kHz mono, as :func:`naturelm.audio.streaming.decode` yields it.
    window_s, hop_s : float
        Window length and seconds between window starts.

    Raises
    ------
    DecodeError
        As `blocks` does, after the windows of the sound before it.
    """
    samples = 0
    failure: DecodeError | None = None

    def counted() -> Iterator[Samples]:
        nonlocal samples, failure
        try:
            for block in blocks:
                samples += len(block)
                yield block
        except DecodeError as error:
            failure = error

    endless = (Window(i, i * hop_s, i * hop_s + window_s) for i in itertools.count())
    window_samples = round(window_s * SAMPLE_RATE_HZ)
    for cut in cut_windows(counted(), endless, window_samples):
        if round(cut.decoded_s * SAMPLE_RATE_HZ) < window_samples:
            # The sound ends in this window: now its length is known, and whether the window counts.
            planned = plan_windows(samples / SAMPLE_RATE_HZ, window_s, hop_s)
            if cut.window.index < len(planned):
                yield CutWindow(planned[cut.window.index], cut.samples, cut.decoded_s)
            break
        yield cut
    if failure is not None:
        raise failure


def _blocks(audio: Audio, sample_rate_hz: int) -> Iterator[Samples]:
    if isinstance(audio, str | Path | StorePath):
        yield from decode(audio)
        return
    sound = np.asarray(audio)
    if sound.ndim != 1 or not np.issubdtype(sound.dtype, np.floating):
        raise NaturelmError(
            f"a recording is an array of {sound.dtype} and shape {list(sound.shape)}; "
            "give mono floating-point samples in [-1, 1]"
        )
    if sample_rate_hz < 1:
        raise NaturelmError(
            f"input_sample_rate is {sample_rate_hz}; give a positive number of samples per second"
        )
    sound = np.nan_to_num(sound.astype(np.float32))
    if sample_rate_hz != SAMPLE_RATE_HZ:
        sound = soxr.resample(sound, sample_rate_hz, SAMPLE_RATE_HZ)
    yield np.clip(sound, -1.0, 1.0)


def _batches(cuts: Iterator[tuple[int, CutWindow]], size: int) -> Iterator[list[tuple[int, CutWindow]]]:
    """Windows in batches; what came before a failure is yielded before it."""
    batch: list[tuple[int, CutWindow]] = []
    failure: DecodeError | None = None
    try:
        for cut in cuts:
            batch.append(cut)
            if len(batch) == size:
                yield batch
                batch = []
    except DecodeError as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure
