"""The two stages of the job as plain callables: decode reads, answer segments. No Ray here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from naturelm.audio.cutting import cut_windows
from naturelm.audio.gate import gated
from naturelm.audio.isolated import DecodedSpan, DecodeRequest, IsolatedDecoder, pcm_samples
from naturelm.audio.marks import Marks
from naturelm.audio.streaming import decode
from naturelm.config.archive import ArchiveConfig, ExampleSound
from naturelm.errors import NaturelmError
from naturelm.recordings import Recording
from naturelm.results.rows import AnsweredSegment
from naturelm.results.statuses import UNREACHABLE
from naturelm.segments import Read, Segment
from naturelm.storage import StorePath, location
from naturelm.windows import SAMPLE_RATE_HZ, Window

if TYPE_CHECKING:
    import torch

    from naturelm.engine.queries import EngineQuery, QueryExample
    from naturelm.models.answer import Answer


@dataclass(frozen=True, slots=True)
class DecodedSegment:
    """A segment's sound.

    Attributes
    ----------
    segment : Segment
        The unit of work.
    pcm : bytes
        float16 samples at 16 kHz, mono, from the segment's start.
    windows : tuple of Window
        The windows that the decoded sound holds.
    decoded_s : float
        Seconds decoded of the segment's own span.
    status, error
        As in `AnsweredSegment`.
    gated : tuple of bool
        As in `AnsweredSegment`; where it holds for all windows, `pcm` is empty.
    marks : Marks, optional
        As in `AnsweredSegment`.
    """

    segment: Segment
    pcm: bytes
    windows: tuple[Window, ...]
    decoded_s: float
    status: str
    error: str | None
    gated: tuple[bool, ...] = ()
    marks: Marks | None = None

    @property
    def heard(self) -> list[bool]:
        """Per window: the model hears it."""
        return [not is_gated for is_gated in self.gated] or [True] * len(self.windows)


class Decode:
    """Decode reads in order, one segment at a time; a broken recording is a status, never an exception."""

    def __init__(self, config: ArchiveConfig) -> None:
        self._config = config
        self._decoder = IsolatedDecoder(timeout_s=config.audio.decode_timeout_s)

    def __call__(self, read: Read) -> Iterator[DecodedSegment]:
        settings = self._config.windows
        request = DecodeRequest(
            path=read.recording.absolute_path,
            channel=self._config.audio.channel,
            spans=tuple((segment.start_s, segment.end_s) for segment in read.segments),
            with_levels=self._config.gate.threshold_db is not None,
        )
        for segment, span in zip(read.segments, self._decoder.decode(request), strict=True):
            if span.status not in ("ok", UNREACHABLE) and not _is_as_scanned(read.recording):
                sentence = "is not there any more as it was scanned; is its disk still mounted?"
                yield DecodedSegment(segment, b"", (), 0.0, UNREACHABLE, sentence)
                continue
            decoded_end_s = segment.start_s + span.decoded_s
            missing_s = segment.end_s - decoded_end_s
            # Within a sample of the end is the end; only the last segment's windows depend on where it lies.
            sound_end_s = (
                decoded_end_s if missing_s > 1 / SAMPLE_RATE_HZ else segment.recording.duration_s or 0.0
            )
            windows = () if span.status == UNREACHABLE else tuple(segment.windows(sound_end_s, settings))
            gates = self._gated(span, windows)
            # The whole of a file that was cut decodes without complaint.
            outcome = segment.recording if span.status == "ok" else span
            yield DecodedSegment(
                segment=segment,
                pcm=b"" if gates and all(gates) else span.pcm,
                windows=windows,
                decoded_s=min(span.decoded_s, segment.own_end_s - segment.start_s),
                status=outcome.status,
                error=outcome.error,
                gated=gates,
                marks=None if span.marks is None else span.marks.between(segment.start_s, segment.own_end_s),
            )

    def close(self) -> None:
        self._decoder.close()

    def _gated(self, span: DecodedSpan, windows: Sequence[Window]) -> tuple[bool, ...]:
        threshold_db = self._config.gate.threshold_db
        if threshold_db is None or span.levels is None:
            return ()
        return gated(span.levels, windows, threshold_db)


def _is_as_scanned(recording: Recording) -> bool:
    """Whether a file on a disk is still there: what a lost mount leaves unread is no broken recording."""
    place = location(recording.absolute_path)
    if isinstance(place, StorePath):
        # Decoding itself tells when a store fails.
        return True
    try:
        return place.stat().st_size == recording.size_bytes
    except OSError:
        return False


class Ask:
    """Put the queries to the windows of decoded segments; loads the model once.

    Raises
    ------
    NaturelmError
        The model cannot be loaded, or hears less at once than a window.
    """

    def __init__(self, config: ArchiveConfig, threads: int | None = None) -> None:
        from naturelm.engine.engine import Engine
        from naturelm.models import load_model

        settings = config.model
        dtype = _prepare(config, threads)
        model = load_model(
            settings.name,
            llm=settings.llm,
            dtype=dtype,
            merging_alpha=settings.merging_alpha,
            weights=settings.weights,
            **settings.part_files,
        )
        check_window_fits(config, model.window_s)
        self._window_samples = round(config.windows.length_s * SAMPLE_RATE_HZ)
        self._config = config
        self._examples = {
            query.id: tuple(_example(one, config.windows.length_s) for one in query.examples)
            for query in config.queries
        }
        self._engine = Engine(
            model,
            self._queries_at(""),
            **config.generation.search(),
            batch_size=config.job.batch_size,
            take_weights=True,
        )

    def __call__(self, decoded: Sequence[DecodedSegment], shrink: int = 1) -> list[AnsweredSegment]:
        """Answer the windows of all segments together, so that short recordings fill a batch too.

        Segments of stations with other label lists are a batch of their own.

        Parameters
        ----------
        decoded : sequence of DecodedSegment
        shrink : int
            Have the model hear so many times fewer windows at once.
        """
        answered: dict[str, AnsweredSegment] = {}
        by_list: dict[tuple[EngineQuery, ...], list[DecodedSegment]] = {}
        for part in decoded:
            by_list.setdefault(self._queries_at(part.segment.recording.station), []).append(part)
        for queries, parts in by_list.items():
            if queries != self._engine.queries:
                self._engine.ask(queries)
            usual = self._engine.batch_size
            self._engine.batch_size = max(1, usual // shrink)
            try:
                answered |= {result.segment.id: result for result in self._answer(parts)}
            finally:
                # What the engine found too much for the memory stays so.
                self._engine.batch_size = min(usual, self._engine.batch_size * shrink)
        return [answered[part.segment.id] for part in decoded]

    def _queries_at(self, station: str) -> tuple[EngineQuery, ...]:
        from naturelm.engine.queries import EngineQuery

        return tuple(
            EngineQuery(
                prompt=query.prompt,
                max_new_tokens=query.max_new_tokens or self._config.generation.max_new_tokens,
                labels=query.labels_at(station),
                top_k=query.top_k,
                examples=self._examples[query.id],
            )
            for query in self._config.queries
        )

    def _answer(self, decoded: Sequence[DecodedSegment]) -> list[AnsweredSegment]:
        waveforms = _waveforms(decoded, self._window_samples)
        pooling = self._config.embeddings.pooling
        found: list[list[Answer]] = []
        vectors = None
        if len(waveforms) and pooling is None:
            found = self._engine.answer(waveforms, SAMPLE_RATE_HZ)
        elif len(waveforms) and pooling is not None:
            found, vectors = self._engine.answer_and_embed(waveforms, pooling, SAMPLE_RATE_HZ)
        answers = iter(found)
        return [
            _answered(part, [tuple(next(answers)) if heard else () for heard in part.heard], own)
            for part, own in zip(decoded, _by_segment(decoded, vectors), strict=True)
        ]


def _example(sound: ExampleSound, window_s: float) -> QueryExample:
    """An example of a query, decoded.

    Raises
    ------
    NaturelmError
        It cannot be decoded, or has no sound there.
    """
    from naturelm.engine.queries import QueryExample

    end_s = sound.start_s + window_s if sound.end_s is None else sound.end_s
    waveform = np.concatenate(
        [np.empty(0, np.float32), *decode(sound.path, start_s=sound.start_s, end_s=end_s)]
    )
    if not len(waveform):
        raise NaturelmError(
            f"{sound.path}: the recording ends before {sound.start_s:g} s; give another start_s"
        )
    return QueryExample(waveform, sound.answer)


class Embed:
    """Turn the windows of decoded segments into vectors; loads the model's encoder once, and no language model.

    Raises
    ------
    NaturelmError
        The encoder cannot be loaded, or takes less at once than a window.
    """

    def __init__(self, config: ArchiveConfig, threads: int | None = None) -> None:
        from naturelm.engine.pooling import Encoder
        from naturelm.models import load_encoder

        model = load_encoder(config.model.name, dtype=_prepare(config, threads), **config.model.part_files)
        check_window_fits(config, model.window_s)
        self._window_samples = round(config.windows.length_s * SAMPLE_RATE_HZ)
        self._encoder = Encoder(model, config.embeddings.pooling or "mean", config.job.batch_size)

    def __call__(self, decoded: Sequence[DecodedSegment], shrink: int = 1) -> list[AnsweredSegment]:
        """Embed the windows of all segments together; parameters as of `Ask`."""
        waveforms = _waveforms(decoded, self._window_samples)
        usual = self._encoder.batch_size
        self._encoder.batch_size = max(1, usual // shrink)
        try:
            vectors = self._encoder.embed(waveforms) if len(waveforms) else None
        finally:
            self._encoder.batch_size = usual
        return [
            _answered(part, [() for _ in part.windows], own)
            for part, own in zip(decoded, _by_segment(decoded, vectors), strict=True)
        ]


def _prepare(config: ArchiveConfig, threads: int | None) -> torch.dtype | None:
    """Set PyTorch's threads; the type that the settings give a model, None for the device's usual one."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return None if config.model.dtype == "auto" else getattr(torch, config.model.dtype)


def check_window_fits(config: ArchiveConfig, longest_s: float) -> None:
    """Refuse windows that the model does not take at once."""
    if config.windows.length_s > longest_s:
        raise NaturelmError(
            f"window is {config.windows.length_s:g} s, and {config.model.name} takes {longest_s:g} s at once; "
            f"give a --window of at most {longest_s:g}"
        )


def _waveforms(decoded: Sequence[DecodedSegment], window_samples: int) -> NDArray[np.float32]:
    """The windows of all segments that the gate let pass, [windows, samples]."""
    cuts = [
        cut.samples
        for part in decoded
        for cut in cut_windows(
            [pcm_samples(part.pcm)],
            compress(part.windows, part.heard),
            window_samples,
            start_s=part.segment.start_s,
        )
    ]
    return np.stack(cuts) if cuts else np.empty((0, window_samples), np.float32)


def _by_segment(
    decoded: Sequence[DecodedSegment], vectors: NDArray[np.float32] | None
) -> list[NDArray[np.float16] | None]:
    """Each segment's vectors as they are stored."""
    if vectors is None:
        return [None] * len(decoded)
    ends = np.cumsum([sum(part.heard) for part in decoded])
    return [*np.split(vectors.astype(np.float16), ends[:-1])]


def _answered(
    part: DecodedSegment, answers: Sequence[tuple[Answer, ...]], vectors: NDArray[np.float16] | None
) -> AnsweredSegment:
    """A segment with what became of it; with nothing where some of it comes from output that is not finite."""
    finite = [all(answer.is_finite for answer in of_window) for of_window in answers]
    if vectors is not None:
        numbers = np.flatnonzero(part.heard)
        for number in numbers[~np.isfinite(vectors).all(axis=1)]:
            finite[number] = False
    if not all(finite):
        start_s = part.windows[finite.index(False)].start_s
        reason = f"the model's output for the window at {start_s:g} s is NaN or infinite"
        return AnsweredSegment(part.segment, (), (), part.decoded_s, "crashed", reason, marks=part.marks)
    return AnsweredSegment(
        segment=part.segment,
        windows=part.windows,
        answers=tuple(answers),
        decoded_s=part.decoded_s,
        status=part.status,
        error=part.error,
        gated=part.gated,
        marks=part.marks,
        vectors=vectors,
    )
