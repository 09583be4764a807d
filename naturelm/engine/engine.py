"""The engine: answers of a model to several queries about many windows, with scores, as fast as the device allows.

What it does that the plain path (`NatureLM.generate`, one window and query at a time) does not: LoRA is merged once;
sound is encoded once for all queries; what stands before the sound is read once per engine, the sound once per
window; queries of any length share batches, without padding between prompt and answer; rows that have finished leave;
scores come from the pass that generates. The answers are the same (docs/explanation/engine.md).
"""

from __future__ import annotations

import itertools
import logging
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.engine.buffer import DecodeBuffer
from naturelm.engine.decoder import Decoder
from naturelm.engine.memory import (
    PREFILL_TOKENS,
    BatchNeeds,
    free_bytes,
    plan_batch,
    too_little,
    wait_for_memory,
)
from naturelm.engine.pooling import POOLINGS
from naturelm.engine.queries import EngineQuery, QueryExample
from naturelm.engine.search import Choice, Prompts, search_beams, search_one
from naturelm.engine.trie import LabelScores, LabelTrie, score_labels
from naturelm.errors import NaturelmError, first_line, is_out_of_memory
from naturelm.models.answer import Answer
from naturelm.models.base import Classifier, LanguageModel, require_language_model
from naturelm.models.parts.linear import quicken
from naturelm.models.prompts import PromptTokens

_LOG = logging.getLogger(__name__)

# Windows heard at once on a CPU: beyond, nothing is gained (docs/benchmarks), and caches are lost.
CPU_BATCH_SIZE = 32
# Windows encoded at once on a CPU, times the encoder's width: activations of more leave the cache and fill the memory.
_CPU_ENCODE_AT_ONCE = 16 * 192
# Most windows heard at once on a GPU. Decoding is bound by arithmetic from some 190 rows on.
GPU_BATCH_SIZE = 256
# What making the decoder takes beside the model's weights: merged matrices, and what joins them.
_DECODER_SHARE = 0.25
# Windows encoded at once on a GPU, always so many: one compilation serves all, and a row does not depend on others.
_GPU_ENCODE_AT_ONCE = 32


Waveforms = np.ndarray | Tensor | Sequence[np.ndarray | Tensor]
"""Windows of one length, or of several."""
# Windows of one length, or a list of those that become equally many tokens.
_Sound = Tensor | list[Tensor]


@dataclass(eq=False)
class _Asked:
    """A query as the engine works with it."""

    index: int
    query: EngineQuery
    rest: Tensor  # int64 [tokens]: what follows the part of the prompt that its head's queries share
    trie: LabelTrie | None
    text: Tensor  # int64 [tokens]: all of the prompt but the sound
    example_tokens: int  # of the sounds of its examples

    def prompt_tokens(self, audio_tokens: int) -> int:
        """Tokens of the whole prompt, with so many of sound."""
        return self.text.numel() + self.example_tokens + audio_tokens


class _Encoded(NamedTuple):
    """What becomes of a batch's sound."""

    tokens_BAD: Tensor
    vectors_BE: Tensor | None  # where the engine pools the encoder's output

    @staticmethod
    def joined(parts: Sequence[_Encoded]) -> _Encoded:
        vectors = [part.vectors_BE for part in parts if part.vectors_BE is not None]
        return _Encoded(
            torch.cat([part.tokens_BAD for part in parts]), torch.cat(vectors) if vectors else None
        )

    def first(self, windows: int) -> _Encoded:
        return _Encoded(
            self.tokens_BAD[:windows], None if self.vectors_BE is None else self.vectors_BE[:windows]
        )


@dataclass
class _Head:
    """Queries whose prompts begin alike: they share what is read before the sound, and the sound."""

    kv: Tensor  # [layers, 2, 1, kv_heads, tokens, head_dim]
    shared: Tensor  # int64 [tokens]: what all its queries have after the sound
    asked: list[_Asked] = field(default_factory=list)


class Engine:
    """Answers queries about windows of sound.

    Parameters
    ----------
    model : LanguageModel
        Its adapters are merged at the `merging_alpha` it has now; set another, and make another engine.
    queries : sequence of EngineQuery
        Asked about every window.
    num_beams : int
        Beams of the search; 1 is greedy. Closed lists need none: they are searched exactly.
    batch_size : int, optional
        Windows heard at once. By default what fits a GPU's free memory, and `CPU_BATCH_SIZE` on a CPU. On a GPU it is
        lowered when memory runs out. It changes no answer.
    do_sample : bool
        Draw tokens by chance. What is drawn for a window depends on `seed`, the window's sound and the query only,
        never on what it was batched with.
    temperature : float
        Divides the logits before a draw.
    seed : int
        Of the draws.
    top_k, top_p : int, float
        A draw is from the `top_k` likeliest tokens, of these from the likeliest that hold `top_p` of the probability;
        0 and 1 leave none out.
    repetition_penalty : float
        Makes tokens of the prompt's text and of the answer so far less likely; 1 is none.
    pad_to_window : bool
        As of `LanguageModel.encode_features`: false takes sound at its own length.
    weights : str
        How the language model's matrices are stored: ``"plain"``, in the model's type, or ``"fp8"``.
    take_weights : bool
        The model is used by this engine alone: its adapters are merged in place, for good, and what the engine stores
        otherwise is freed. Without it, merged matrices are stored beside the model's own.

    Raises
    ------
    NaturelmError
        No queries, a setting is out of range, the model is a classifier, or the device cannot use such weights or has
        too little memory.
    """

    def __init__(
        self,
        model: LanguageModel | Classifier,
        queries: Sequence[EngineQuery],
        *,
        num_beams: int = 1,
        batch_size: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
        seed: int = 0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        pad_to_window: bool = True,
        weights: str = "plain",
        take_weights: bool = False,
    ) -> None:
        if num_beams < 1 or (batch_size is not None and batch_size < 1):
            raise NaturelmError(
                f"num_beams is {num_beams} and batch_size {batch_size}; both must be at least 1"
            )
        if do_sample and num_beams > 1:
            raise NaturelmError(
                f"sampling has one beam, not {num_beams}; give num_beams=1 or do_sample=False"
            )
        if not (math.isfinite(temperature) and temperature > 0):
            raise NaturelmError(f"temperature is {temperature}; it must be above 0")
        if top_k < 0 or not 0 < top_p <= 1:
            raise NaturelmError(
                f"top_k is {top_k} and top_p {top_p}; give top_k of at least 0, and top_p above 0 and at most 1"
            )
        if not (math.isfinite(repetition_penalty) and repetition_penalty > 0):
            raise NaturelmError(f"repetition_penalty is {repetition_penalty}; it must be above 0")
        self.model = model = require_language_model(model)
        self.num_beams = num_beams
        self.do_sample, self.temperature, self.seed = do_sample, temperature, seed
        self.top_k, self.top_p, self.repetition_penalty = top_k, top_p, repetition_penalty
        self.pad_to_window = pad_to_window
        self._given_batch_size = batch_size
        # The language model runs in the decoder below; in its own place it stays the plain path, as it was.
        for module in model.audio_modules():
            quicken(module)
        if take_weights:
            model.merge_adapters()
        self._decoder = self._make_decoder(weights, release=take_weights)
        self._device = self._decoder.device
        self._buffer: DecodeBuffer | None = None
        self._pool: Callable[[Tensor], Tensor] | None = None
        self._encode_bytes = 0
        self._has_waited = False
        # Parts of a batch side by side, one thread each: many small operations gain little from two threads.
        self._cpu_encoders = ThreadPoolExecutor(
            torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)
        )
        self._encode_stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        # Copying a batch to the GPU and launching its encoder takes the host as long as launching its answers.
        self._encode_thread = ThreadPoolExecutor(1) if self._device.type == "cuda" else None
        self.ask(queries)

    @torch.inference_mode()
    def ask(self, queries: Sequence[EngineQuery]) -> None:
        """Ask other queries from now on; cheap, as the model stays as it is.

        Raises
        ------
        NaturelmError
            No queries, one without text, or labels that are the same.
        """
        if not queries:
            raise NaturelmError("the engine has no queries; give at least one")
        tokens = [self._tokens(query) for query in queries]
        starts = [
            (prompt.before, prompt.head, query.examples)
            for prompt, query in zip(tokens, queries, strict=True)
        ]
        self._heads: list[_Head] = []
        for start in dict.fromkeys(starts):
            members = [i for i, own in enumerate(starts) if own == start]
            shared = _common_start([tokens[i].tail for i in members])
            before, head, examples = start
            start_TD = self._embed_start(before, head, examples)
            head_kv = self._decoder.new_kv(1, len(start_TD))
            if len(start_TD):
                self._decoder.prefill(start_TD.unsqueeze(0), head_kv, 0)
            text_before = [token for part in before for token in part]
            example_tokens = len(start_TD) - len(text_before) - len(head)
            group = _Head(head_kv, self._ids(shared))
            for i in members:
                query, tail = queries[i], tokens[i].tail
                trie = LabelTrie(query.labels, self.model.text_tokens) if query.labels else None
                rest, text = self._ids(tail[len(shared) :]), self._ids((*text_before, *head, *tail))
                group.asked.append(_Asked(i, query, rest, trie, text, example_tokens))
            self._heads.append(group)
        self.queries = tuple(queries)
        self.batch_size = self._given_batch_size or self._find_batch_size()

    @property
    def decoder(self) -> Decoder:
        """The language model, as the engine runs it."""
        return self._decoder

    @property
    def tokens_read(self) -> int:
        """Tokens of one window's prompts that go through the language model, all queries together."""
        return sum(
            self.model.audio_tokens + head.shared.numel() + sum(asked.rest.numel() for asked in head.asked)
            for head in self._heads
        )

    def prompt_tokens(self, query: EngineQuery) -> int:
        """Length of a query's whole prompt in tokens, sound included."""
        tokens = self._tokens(query)
        examples = sum(len(part) + self.model.audio_tokens for part in tokens.before)
        return examples + len(tokens.head) + self.model.audio_tokens + len(tokens.tail)

    def _tokens(self, query: EngineQuery) -> PromptTokens:
        return self.model.prompt_tokens(query.prompt, [example.answer for example in query.examples])

    def _embed_start(
        self, before: Sequence[tuple[int, ...]], head: tuple[int, ...], examples: Sequence[QueryExample]
    ) -> Tensor:
        """Embeddings ``[tokens, D]`` of what is before the sound: examples with theirs, and the head."""
        parts: list[Tensor] = []
        for text, example in zip(before, examples, strict=True):
            waveforms_BS = self._check(example.waveform[None], None)
            parts += [self._decoder.embed(self._ids(text)), self.encode(waveforms_BS)[0]]
        parts.append(self._decoder.embed(self._ids(head)))
        return torch.cat([part.to(self._decoder.dtype) for part in parts])

    def answer(self, waveforms: Waveforms, sample_rate_hz: int | None = None) -> list[list[Answer]]:
        """Answer every query about every window.

        Parameters
        ----------
        waveforms : ndarray, Tensor or list of them
            float32 ``[windows, samples]`` in [-1, 1], mono, any number of windows; or a list of ``[samples]`` of
            several lengths, where one of no samples is a query without sound. Shorter ones than the model takes are
            padded with silence, or taken at their own length (`pad_to_window`).
        sample_rate_hz : int, optional
            Must be the model's: recordings are resampled as they stream, before they are cut, since resampled windows
            would ring at both ends.

        Returns
        -------
        list of list of Answer
            For each window the answer to each query.

        Raises
        ------
        NaturelmError
            Wrong shape or rate, or windows longer than the model hears.
        """
        return self._answer_all(waveforms, sample_rate_hz)[0]

    def answer_and_embed(
        self, waveforms: Waveforms, pooling: str, sample_rate_hz: int | None = None
    ) -> tuple[list[list[Answer]], np.ndarray]:
        """As `answer`, and the vector of each window, float32 ``[windows, E]``, of the same pass.

        Parameters
        ----------
        waveforms, sample_rate_hz
            As for `answer`.
        pooling : str
            One of `naturelm.engine.pooling.POOLINGS`.
        """
        self._pool = POOLINGS[pooling]
        try:
            answers, vectors = self._answer_all(waveforms, sample_rate_hz)
        finally:
            self._pool = None
        return answers, np.stack(vectors) if vectors else np.empty((0, self.model.feature_width), np.float32)

    @torch.inference_mode()
    def _answer_all(
        self, waveforms: Waveforms, sample_rate_hz: int | None
    ) -> tuple[list[list[Answer]], list[np.ndarray]]:
        """Answers, and the vectors where the engine pools them, in the order of the windows."""
        answers: dict[int, list[Answer]] = {}
        vectors: dict[int, np.ndarray] = {}
        for places, group in self._groups(waveforms, sample_rate_hz):
            left = iter(places)
            for batch, vectors_BE in self._batches(group):
                own = list(itertools.islice(left, len(batch)))
                answers.update(zip(own, batch, strict=True))
                if vectors_BE is not None:
                    vectors.update(zip(own, vectors_BE.cpu().numpy(), strict=True))
        return [answers[i] for i in range(len(answers))], [vectors[i] for i in range(len(vectors))]

    # -- batches -----------------------------------------------------------------------------------------------

    def _check(self, waveforms: np.ndarray | Tensor, sample_rate_hz: int | None) -> Tensor:
        if sample_rate_hz not in (None, self.model.sample_rate_hz):
            raise NaturelmError(
                f"waveforms have {sample_rate_hz} Hz; resample them to {self.model.sample_rate_hz} Hz first"
            )
        waveforms_BS = torch.as_tensor(waveforms)
        if waveforms_BS.ndim != 2 or not waveforms_BS.is_floating_point():
            raise NaturelmError(
                f"waveforms are {waveforms_BS.dtype} of shape {list(waveforms_BS.shape)}; "
                "give floating-point [windows, samples], one channel each"
            )
        longest = self.model.window_samples
        if waveforms_BS.shape[1] > longest and not self._grows_beyond(longest, waveforms_BS.shape[1]):
            raise NaturelmError(
                f"windows have {waveforms_BS.shape[1]} samples, the model hears {longest}; "
                f"use windows of at most {self.model.window_s:g} s"
            )
        return waveforms_BS

    def _grows_beyond(self, longest: int, samples: int) -> bool:
        """Whether sound that is longer than the window becomes more tokens, and so is not cut."""
        counts = [self.model.audio_token_count(length, self.pad_to_window) for length in (longest, samples)]
        return counts[1] > counts[0]

    def _groups(
        self, waveforms: Waveforms, sample_rate_hz: int | None
    ) -> Iterator[tuple[Sequence[int], _Sound]]:
        """Windows that become equally many tokens, and which ones they are; those of one length follow each other."""
        if isinstance(waveforms, np.ndarray | Tensor):
            waveforms_BS = self._check(waveforms, sample_rate_hz)
            yield range(len(waveforms_BS)), waveforms_BS
            return
        rows = [self._check(torch.as_tensor(row).unsqueeze(0), sample_rate_hz)[0] for row in waveforms]
        by_tokens: dict[int, list[int]] = {}
        for place in sorted(range(len(rows)), key=lambda place: len(rows[place])):
            tokens = self.model.audio_token_count(len(rows[place]), self.pad_to_window)
            by_tokens.setdefault(tokens, []).append(place)
        for places in by_tokens.values():
            yield places, [rows[place] for place in places]

    def _batches(self, waveforms: _Sound) -> Iterator[tuple[list[list[Answer]], Any]]:
        """Answers batch by batch; on a GPU the next is encoded meanwhile, by a separate thread in a separate stream."""
        done = 0
        encoded: Future[_Encoded] | None = None
        while done < len(waveforms):
            batch = waveforms[done : done + self.batch_size]
            try:
                audio = self._encode(batch) if encoded is None else self._wait(encoded)
                after = waveforms[done + len(batch) :][: self.batch_size]
                encoded = None
                if self._encode_thread is not None and len(after) > 0:
                    encoded = self._encode_thread.submit(self._encode_aside, after)
                answers = self._answer_batch(batch, audio.tokens_BAD)
            except Exception as error:  # memory runs out by many names
                last_one = len(batch) == 1
                if encoded is not None:
                    encoded.exception()  # waits: the thread must not continue while memory is freed
                if not is_out_of_memory(error) or (last_one and self._device.type != "cuda"):
                    raise
                encoded, self._buffer = None, None
                reason = first_line(error)
            else:
                done += len(batch)
                yield answers, audio.vectors_BE
                continue
            # Outside the handler: there the traceback still holds the failed batch's tensors.
            self._free_memory()
            if last_one or self._is_full():
                self._wait_for_one_window(last_one)
                self.batch_size = self._given_batch_size or self._find_batch_size()
            else:
                self.batch_size = max(1, len(batch) // 2)
                _LOG.warning(
                    "%d windows at once do not fit the memory (%s); continuing with %d",
                    len(batch),
                    reason,
                    self.batch_size,
                )

    def _free_memory(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()

    def _is_full(self) -> bool:
        """Whether not even one window fits, as long as another program holds so much of the GPU's memory."""
        return self._device.type == "cuda" and self._free_bytes() < self._needs().bytes_of(1)

    def _wait_for_one_window(self, has_failed: bool) -> None:
        """Wait for the memory of a batch of one window; `has_failed` where just such a batch ran out of it.

        Raises
        ------
        OutOfMemory
            It has not come back.
        """
        needed = self._needs().bytes_of(1)
        if (has_failed and self._has_waited) or not wait_for_memory(needed, self._free_bytes):
            raise too_little(needed, self._free_bytes())
        # Enough is free, and where one window failed all the same, that is not waited for a second time.
        self._has_waited = self._has_waited or has_failed

    def encode(self, waveforms_BS: Tensor) -> Tensor:
        """Audio tokens of a batch, as the engine's language model takes them: ``[windows, tokens, width]``."""
        return self._encode(waveforms_BS).tokens_BAD

    def _encode(self, waveforms: _Sound) -> _Encoded:
        if isinstance(waveforms, list):
            runs = [torch.stack(list(run)) for _, run in itertools.groupby(waveforms, key=len)]
            return _Encoded.joined([self._encode(run_BS) for run_BS in runs])
        waveforms_BS = waveforms
        if self._encode_stream is None:
            # Every thread has a part; a single window has all threads.
            at_once = max(
                1,
                min(
                    _CPU_ENCODE_AT_ONCE // self.model.feature_width,
                    -(-len(waveforms_BS) // torch.get_num_threads()),
                ),
            )
            parts = waveforms_BS.split(at_once)
            if len(parts) == 1:
                return self._encode_part(waveforms_BS)
            return _Encoded.joined(list(self._cpu_encoders.map(self._encode_part, parts)))
        waveforms_BS = waveforms_BS.pin_memory() if waveforms_BS.device.type == "cpu" else waveforms_BS
        waveforms_BS = waveforms_BS.to(self._device, non_blocking=True)
        return _Encoded.joined(
            [self._encode_padded(part) for part in waveforms_BS.split(_GPU_ENCODE_AT_ONCE)]
        )

    def _encode_padded(self, waveforms_BS: Tensor) -> _Encoded:
        windows = len(waveforms_BS)
        waveforms_BS = F.pad(waveforms_BS, (0, 0, 0, _GPU_ENCODE_AT_ONCE - windows))
        audio = self._encode_part(waveforms_BS).first(windows)
        return _Encoded(audio.tokens_BAD.to(self._decoder.dtype), audio.vectors_BE)

    @torch.inference_mode()
    def _encode_part(self, waveforms_BS: Tensor) -> _Encoded:
        if self._pool is None:
            return _Encoded(self.model.encode_audio(waveforms_BS, self.pad_to_window), None)
        features_BPE = self.model.encode_features(waveforms_BS, self.pad_to_window)
        return _Encoded(self.model.project_features(features_BPE), self._pool(features_BPE))

    @torch.inference_mode()
    def _encode_aside(self, waveforms: _Sound) -> _Encoded:
        with torch.cuda.stream(self._encode_stream):
            return self._encode(waveforms)

    def _wait(self, encoded: Future[_Encoded]) -> _Encoded:
        audio = encoded.result()
        if self._encode_stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._encode_stream)
            for tensor in audio:
                if tensor is not None:
                    tensor.record_stream(current)
        return audio

    def _find_batch_size(self) -> int:
        """What the free memory holds: encoding is measured by running it once, the rest follows from shapes."""
        if self._device.type != "cuda":
            return CPU_BATCH_SIZE
        if self._encode_bytes == 0:
            self._encode_bytes = self._measure_encoding()
        needs = self._needs()
        batch_size = plan_batch(self._free_bytes(), needs, GPU_BATCH_SIZE)
        if batch_size == 0:
            if not wait_for_memory(needs.bytes_of(1), self._free_bytes):
                raise too_little(needs.bytes_of(1), self._free_bytes())
            batch_size = plan_batch(self._free_bytes(), needs, GPU_BATCH_SIZE)
        return batch_size

    def _measure_encoding(self) -> int:
        """Bytes that encoding one part takes at its fullest."""
        silence_BS = torch.zeros(1, self.model.natural_window_samples, device=self._device)
        for _ in range(2):  # the first time compiles, and makes what is kept
            self._free_memory()
            before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            try:
                self.encode(silence_BS)
            except Exception as error:  # as in `_batches`
                if not is_out_of_memory(error):
                    raise
                # Half of it is free at most: the plan refuses, and names what one window needs.
                return 2 * self._free_bytes()
        return torch.cuda.max_memory_allocated(self._device) - before

    def _needs(self) -> BatchNeeds:
        decoder, model = self._decoder, self.model
        asked = list(self._all_asked())
        free = [one for one in asked if one.trie is None]
        itemsize, width = decoder.dtype.itemsize, decoder.embedding.shape[1]
        sound_bytes = model.natural_window_samples * 4 + model.audio_tokens * width * itemsize
        # Gate, up and their product; the residual stream, its norm, and what attention reads and writes.
        token_bytes = (3 * decoder.mlp_width + 8 * width) * itemsize
        return BatchNeeds(
            encode_bytes=self._encode_bytes,
            window_bytes=2 * sound_bytes,
            rows_per_window=len(free) * self.num_beams,
            slots=self._slots(free, model.audio_tokens),
            kv_bytes=decoder.kv_bytes,
            vocabulary=decoder.lm_head.shape[0],
            prompt_tokens=max(one.prompt_tokens(model.audio_tokens) for one in asked),
            token_bytes=token_bytes,
            list_window_bytes=max(
                (self._list_bytes(one, token_bytes) for one in asked if one.trie is not None), default=0
            ),
        )

    def _list_bytes(self, asked: _Asked, token_bytes: int) -> int:
        """What a closed list takes for each window, apart from logits."""
        assert asked.trie is not None
        decoder, nodes = self._decoder, asked.trie.nodes_at_once
        slots = asked.prompt_tokens(self.model.audio_tokens) + asked.trie.size
        # The prompt's keys and values, and once more while the buffer of the nodes grows.
        kept = 2 * slots * decoder.kv_bytes
        # Activations of the nodes, and what each sees: as truth and as numbers.
        return kept + nodes * (token_bytes + slots * decoder.group * (1 + decoder.dtype.itemsize))

    def _free_bytes(self) -> int:
        """Free memory, and that of the buffer, which the next batch uses again."""
        return free_bytes(self._device) + (0 if self._buffer is None else self._buffer.nbytes)

    def _make_decoder(self, weights: str, release: bool) -> Decoder:
        """The language model, ready to run; memory that other programs hold is waited for once."""
        device = self.model.device
        for attempt in range(2):
            try:
                return Decoder(self.model.merged_language_model(), weights, release)
            except Exception as error:  # as in `_batches`
                if not is_out_of_memory(error) or device.type != "cuda":
                    raise
            torch.cuda.empty_cache()
            needed = int(_DECODER_SHARE * sum(p.nbytes for p in self.model.parameters()))
            if attempt or not wait_for_memory(needed, lambda: free_bytes(device)):
                break
        raise too_little(needed, free_bytes(device))

    @staticmethod
    def _slots(free: Sequence[_Asked], audio_tokens: int) -> int:
        """Slots of a row: the longest prompt, and after it the longest answer."""
        prompt_slots = max((one.prompt_tokens(audio_tokens) for one in free), default=0)
        return prompt_slots + max((one.query.max_new_tokens for one in free), default=0)

    # -- one batch ---------------------------------------------------------------------------------------------

    def _answer_batch(self, waveforms: _Sound, audio_BAD: Tensor) -> list[list[Answer]]:
        answers: list[list[Any]] = [[None] * len(self.queries) for _ in range(len(audio_BAD))]
        free = [asked for asked in self._all_asked() if asked.trie is None]
        buffer = self._buffer_for(
            len(audio_BAD) * len(free) * self.num_beams, self._slots(free, audio_BAD.shape[1])
        )
        hidden: dict[int, Tensor] = {}
        for head in self._heads:
            prefix_kv, prefix_hidden_BD = self._read_sound(head, audio_BAD, buffer, free)
            for asked in head.asked:
                if asked.trie is not None:
                    for window, answer in enumerate(self._choose_labels(asked, prefix_kv, prefix_hidden_BD)):
                        answers[window][asked.index] = answer
                    continue
                assert buffer is not None
                kv = self._rows_of(asked, free, buffer, len(audio_BAD))
                hidden[asked.index] = self._read_rest(asked, kv, prefix_kv, prefix_hidden_BD)
        if buffer is not None:
            hidden_RD = torch.cat([hidden[asked.index] for asked in free])
            columns = self._generate(free, buffer, hidden_RD, audio_BAD.shape[1], waveforms)
            for asked, column in zip(free, columns, strict=True):
                for window, answer in enumerate(column):
                    answers[window][asked.index] = answer
        return answers

    def _buffer_for(self, rows: int, slots: int) -> DecodeBuffer | None:
        """The decode buffer, made anew where the last one is too small; None where nothing is generated."""
        if rows == 0:
            return None
        if self._buffer is None or not self._buffer.fits(rows, slots):
            self._buffer = None  # the old one's memory goes before the new one's comes
            self._buffer = DecodeBuffer.on(self._decoder, rows, slots)
        return self._buffer

    @staticmethod
    def _rows_of(asked: _Asked, free: Sequence[_Asked], buffer: DecodeBuffer, windows: int) -> Tensor:
        """The buffer's rows of one query."""
        number = free.index(asked)
        return buffer.kv[:, :, number * windows : (number + 1) * windows]

    def _read_sound(
        self, head: _Head, audio_BAD: Tensor, buffer: DecodeBuffer | None, free: Sequence[_Asked]
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of head, sound and what the head's queries share after it; and the last hidden state.

        They are read where the head's first free query will decode, so that one query needs no copy.
        """
        decoder = self._decoder
        windows, head_tokens = audio_BAD.shape[0], head.kv.shape[-2]
        shared_BTD = decoder.embed(head.shared).expand(windows, -1, -1)
        x_BTD = torch.cat([audio_BAD, shared_BTD], dim=1)
        tokens = head_tokens + x_BTD.shape[1]
        first = next((asked for asked in head.asked if asked.trie is None), None)
        if first is not None:
            assert buffer is not None
            kv = self._rows_of(first, free, buffer, windows)[..., :tokens, :]
        else:
            kv = decoder.new_kv(windows, tokens)
        kv[..., :head_tokens, :] = head.kv
        return kv, self._prefill(x_BTD, kv, head_tokens)

    def _read_rest(self, asked: _Asked, kv: Tensor, prefix_kv: Tensor, prefix_hidden_BD: Tensor) -> Tensor:
        """Read what is left of a query's prompt into `kv`, after the prefix; the last hidden state."""
        prefix_tokens = prefix_kv.shape[-2]
        if kv.data_ptr() != prefix_kv.data_ptr():
            kv[..., :prefix_tokens, :] = prefix_kv
        if asked.rest.numel() == 0:
            return prefix_hidden_BD
        x_BTD = self._decoder.embed(asked.rest).expand(kv.shape[2], -1, -1)
        return self._prefill(x_BTD, kv, prefix_tokens)

    def _prefill(self, x_BTD: Tensor, kv: Tensor, start: int) -> Tensor:
        """The last hidden state ``[B, D]`` of tokens after `start` others; windows in parts that bound the memory."""
        at_once = max(1, PREFILL_TOKENS // x_BTD.shape[1])
        parts = range(0, len(x_BTD), at_once)
        return torch.cat(
            [
                self._decoder.prefill(x_BTD[part : part + at_once], kv[:, :, part : part + at_once], start)[
                    :, -1
                ]
                for part in parts
            ]
        )

    def _choose_labels(self, asked: _Asked, prefix_kv: Tensor, prefix_hidden_BD: Tensor) -> list[Answer]:
        assert asked.trie is not None
        kv = self._decoder.new_kv(prefix_kv.shape[2], prefix_kv.shape[-2] + asked.rest.numel())
        hidden_BD = self._read_rest(asked, kv, prefix_kv, prefix_hidden_BD)
        scores = score_labels(
            self._decoder, asked.trie, kv, hidden_BD, self.model.end_token_ids, asked.query.top_k
        )
        return [self._label_answer(asked.trie, score) for score in scores]

    def _label_answer(self, trie: LabelTrie, score: LabelScores) -> Answer:
        best = score.best[0][0]
        answer = self.model.make_answer(trie.label_tokens[best], score.token_log_probs)
        return Answer(
            text=answer.text,
            token_ids=answer.token_ids,
            score=answer.score,
            token_scores=answer.token_scores,
            token_ends=answer.token_ends,
            candidates=tuple((trie.labels[label], probability) for label, probability in score.best),
        )

    def _generate(
        self,
        free: Sequence[_Asked],
        buffer: DecodeBuffer,
        hidden_RD: Tensor,
        audio_tokens: int,
        waveforms: _Sound,
    ) -> list[list[Answer]]:
        """Free answers to several queries, for each query one per window; all rows decode together."""
        rows = len(hidden_RD)
        windows = rows // len(free)
        prompt_tokens = [asked.prompt_tokens(audio_tokens) for asked in free]
        for number, tokens in enumerate(prompt_tokens):
            own = slice(number * windows, (number + 1) * windows)
            buffer.mask_RS[own] = torch.arange(buffer.slots, device=self._device) < tokens
        prompts = Prompts(
            logits_RV=self._decoder.logits(hidden_RD).float(),
            positions_R=self._ids(prompt_tokens).repeat_interleave(windows),
            slots=max(prompt_tokens),
            limits_R=self._ids([asked.query.max_new_tokens for asked in free]).repeat_interleave(windows),
        )
        ends = self.model.end_token_ids
        draws_RT = self._draws([asked.query for asked in free], waveforms) if self.do_sample else None
        choice = Choice(draws_RT, self.temperature, self.top_k, self.top_p, self.repetition_penalty)
        if self.repetition_penalty != 1.0:
            choice.seen_RV = torch.zeros_like(prompts.logits_RV, dtype=torch.bool)
            for number, asked in enumerate(free):
                choice.seen_RV[number * windows : (number + 1) * windows, asked.text] = True
        if self.num_beams > 1:
            found = search_beams(buffer, prompts, ends, self.num_beams, choice)
        else:
            found = search_one(buffer, prompts, ends, choice)
        answers = [self.model.make_answer(row.token_ids, row.log_probs) for row in found]
        return [answers[start : start + windows] for start in range(0, rows, windows)]

    def _draws(self, queries: Sequence[EngineQuery], waveforms: _Sound) -> np.ndarray:
        """Random numbers in [0, 1) ``[rows, tokens]`` that depend on seed, query and sound only."""
        longest = max(query.max_new_tokens for query in queries)
        sounds = [zlib.crc32(row.float().cpu().numpy().tobytes()) for row in waveforms]
        draws_RT = np.empty((len(queries) * len(sounds), longest), dtype=np.float32)
        for i, query in enumerate(queries):
            for j, sound in enumerate(sounds):
                key = (self.seed, zlib.crc32(query.prompt.encode()), sound)
                draws_RT[i * len(sounds) + j] = np.random.default_rng(key).random(longest, dtype=np.float32)
        return draws_RT

    # -- small things ------------------------------------------------------------------------------------------

    def _all_asked(self) -> Iterator[_Asked]:
        return (asked for head in self._heads for asked in head.asked)

    def _ids(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _common_start(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    shortest = min(sequences, key=len)
    differing = (i for i, token in enumerate(shortest) if any(other[i] != token for other in sequences))
    return shortest[: next(differing, len(shortest))]
