"""The engine: answers of a model to several queries about many windows, with scores, as fast as the device allows.

What it does that the plain path (`NatureLM.generate`, one window and query at a time) does not: LoRA is merged once;
sound is encoded once for all queries; what stands before the sound is read once per engine, the sound once per
window; queries of any length share batches, without padding between prompt and answer; rows that have finished leave;
scores come from the pass that generates. The answers are the same (docs/explanation/engine.md).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from naturelm.engine.buffer import DecodeBuffer
from naturelm.engine.decoder import Decoder
from naturelm.engine.queries import EngineQuery
from naturelm.engine.search import Choice, Prompts, search_beams, search_one
from naturelm.engine.trie import LabelScores, LabelTrie, score_labels
from naturelm.errors import NaturelmError
from naturelm.models.answer import Answer
from naturelm.models.base import Classifier, LanguageModel, require_language_model
from naturelm.models.parts.linear import quicken

# Windows heard at once on a CPU: beyond, nothing is gained (docs/benchmarks), and caches are lost.
CPU_BATCH_SIZE = 32
# Windows encoded at once on a CPU: attention weights of more leave the cache.
_CPU_ENCODE_AT_ONCE = 16
# Most windows heard at once on a GPU. Decoding is bound by arithmetic from some 190 rows on.
GPU_BATCH_SIZE = 256
# Share of the GPU's free memory that a batch may plan with; the rest is for what the estimate leaves out.
_MEMORY_SHARE = 0.6
# What encoding one window holds at its fullest, generously: frames, spectra, and attention masks of 12 heads.
_ENCODE_BYTES = 64 << 20


@dataclass
class _Asked:
    """A query as the engine works with it."""

    index: int
    query: EngineQuery
    rest: Tensor  # int64 [tokens]: what follows the part of the prompt that its head's queries share
    trie: LabelTrie | None
    text: Tensor  # int64 [tokens]: all of the prompt but the sound
    prompt_tokens: int


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
        Makes tokens of the prompt's text and of the answer so far less likely; 1 is none. Not with several beams.
    pad_to_window : bool
        As of `LanguageModel.encode_features`: false takes sound at its own length.

    Raises
    ------
    NaturelmError
        No queries, a setting is out of range, or the model is a classifier.
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
        if repetition_penalty != 1.0 and num_beams > 1:
            raise NaturelmError(
                f"repetition_penalty is {repetition_penalty}, which the engine applies with one beam, not {num_beams}; "
                "give num_beams=1"
            )
        self.model = model = require_language_model(model)
        self.num_beams = num_beams
        self.do_sample, self.temperature, self.seed = do_sample, temperature, seed
        self.top_k, self.top_p, self.repetition_penalty = top_k, top_p, repetition_penalty
        self.pad_to_window = pad_to_window
        self._given_batch_size = batch_size
        # The language model runs in the decoder below; in its own place it stays the plain path, as it was.
        for module in model.audio_modules():
            quicken(module)
        self._decoder = Decoder(model.merged_language_model())
        self._device = self._decoder.device
        self._buffer: DecodeBuffer | None = None
        # Parts of a batch side by side, one thread each: many small operations gain little from two threads.
        self._cpu_encoders = ThreadPoolExecutor(
            torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)
        )
        self._encode_stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
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
        tokens = [self.model.prompt_tokens(query.prompt) for query in queries]
        self._heads: list[_Head] = []
        for head in dict.fromkeys(prompt.head for prompt in tokens):
            members = [i for i, prompt in enumerate(tokens) if prompt.head == head]
            shared = _common_start([tokens[i].tail for i in members])
            head_kv = self._decoder.new_kv(1, len(head))
            if head:
                self._decoder.prefill(self._decoder.embed(self._ids(head)).unsqueeze(0), head_kv, 0)
            group = _Head(head_kv, self._ids(shared))
            for i in members:
                query, tail = queries[i], tokens[i].tail
                trie = LabelTrie(query.labels, self.model.text_tokens) if query.labels else None
                prompt_tokens = len(head) + self.model.audio_tokens + len(tail)
                rest, text = self._ids(tail[len(shared) :]), self._ids((*head, *tail))
                group.asked.append(_Asked(i, query, rest, trie, text, prompt_tokens))
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
        tokens = self.model.prompt_tokens(query.prompt)
        return len(tokens.head) + self.model.audio_tokens + len(tokens.tail)

    def answer(self, waveforms: np.ndarray | Tensor, sample_rate_hz: int | None = None) -> list[list[Answer]]:
        """Answer every query about every window.

        Parameters
        ----------
        waveforms : ndarray or Tensor
            float32 ``[windows, samples]`` in [-1, 1], mono, any number of windows; shorter ones than the model hears
            are padded with silence.
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
        waveforms_BS = self._check(waveforms, sample_rate_hz)
        with torch.inference_mode():
            return [answers for batch in self._batches(waveforms_BS) for answers in batch]

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

    def _batches(self, waveforms_BS: Tensor) -> Iterator[list[list[Answer]]]:
        """Answers batch by batch; while one is answered the next is encoded, on a GPU in a stream of its own."""
        done, encoded = 0, None
        while done < len(waveforms_BS):
            batch_BS = waveforms_BS[done : done + self.batch_size]
            try:
                audio_BAD = self.encode(batch_BS) if encoded is None else self._wait(encoded)
                after_BS = waveforms_BS[done + len(batch_BS) :][: self.batch_size]
                overlap = self._encode_stream is not None and len(after_BS) > 0
                encoded = self._encode_aside(after_BS) if overlap else None
                answers = self._answer_batch(batch_BS, audio_BAD)
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size = max(1, len(batch_BS) // 2)
                encoded, self._buffer = None, None
            else:
                done += len(batch_BS)
                yield answers
                continue
            # Outside the handler: there the traceback still holds the failed batch's tensors.
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
                torch.cuda.empty_cache()

    def encode(self, waveforms_BS: Tensor) -> Tensor:
        """Audio tokens of a batch, as the engine's language model takes them: ``[windows, tokens, width]``."""
        if self._encode_stream is not None:
            waveforms_BS = waveforms_BS.pin_memory() if waveforms_BS.device.type == "cpu" else waveforms_BS
            waveforms_BS = waveforms_BS.to(self._device, non_blocking=True)
            return self.model.encode_audio(waveforms_BS, self.pad_to_window).to(self._decoder.dtype)
        parts = waveforms_BS.split(_CPU_ENCODE_AT_ONCE)
        return torch.cat(list(self._cpu_encoders.map(self._encode_part, parts)))

    @torch.inference_mode()
    def _encode_part(self, waveforms_BS: Tensor) -> Tensor:
        return self.model.encode_audio(waveforms_BS, self.pad_to_window)

    def _encode_aside(self, waveforms_BS: Tensor) -> Tensor:
        assert self._encode_stream is not None
        self._encode_stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._encode_stream):
            return self.encode(waveforms_BS)

    def _wait(self, audio_BAD: Tensor) -> Tensor:
        assert self._encode_stream is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._encode_stream)
        audio_BAD.record_stream(current)
        return audio_BAD

    def _find_batch_size(self) -> int:
        if self._device.type != "cuda":
            return CPU_BATCH_SIZE
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        free_bytes += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        decoder = self._decoder
        window_bytes = _ENCODE_BYTES
        for asked in self._all_asked():
            rows = self.num_beams if asked.trie is None else 1
            slots = asked.prompt_tokens + (asked.query.max_new_tokens if asked.trie is None else 256)
            # Keys and values (and once more what queries share), float32 logits (beside a copy or two), and what a
            # prompt's widest layer holds.
            window_bytes += (rows * slots + asked.prompt_tokens) * decoder.kv_bytes
            window_bytes += rows * 12 * decoder.lm_head.shape[0]
            window_bytes += 6 * asked.prompt_tokens * decoder.mlp_width * decoder.dtype.itemsize
        return int(min(GPU_BATCH_SIZE, max(1, _MEMORY_SHARE * free_bytes // window_bytes)))

    # -- one batch ---------------------------------------------------------------------------------------------

    def _answer_batch(self, waveforms_BS: Tensor, audio_BAD: Tensor) -> list[list[Answer]]:
        answers: list[list[Any]] = [[None] * len(self.queries) for _ in range(len(audio_BAD))]
        free: list[tuple[_Asked, Tensor, Tensor]] = []
        for head in self._heads:
            prefix_kv, prefix_hidden_BD = self._read_sound(head, audio_BAD)
            for asked in head.asked:
                if asked.trie is None:
                    free.append((asked, prefix_kv, prefix_hidden_BD))
                    continue
                for window, answer in enumerate(self._choose_labels(asked, prefix_kv, prefix_hidden_BD)):
                    answers[window][asked.index] = answer
        if free:
            for (asked, _, _), column in zip(free, self._generate(free, waveforms_BS), strict=True):
                for window, answer in enumerate(column):
                    answers[window][asked.index] = answer
        return answers

    def _read_sound(self, head: _Head, audio_BAD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of head, sound and what the head's queries share after it; and the last hidden state."""
        decoder = self._decoder
        windows, head_tokens = audio_BAD.shape[0], head.kv.shape[-2]
        shared_BTD = decoder.embed(head.shared).expand(windows, -1, -1)
        x_BTD = torch.cat([audio_BAD, shared_BTD], dim=1)
        kv = decoder.new_kv(windows, head_tokens + x_BTD.shape[1])
        kv[..., :head_tokens, :] = head.kv
        return kv, decoder.prefill(x_BTD, kv, head_tokens)[:, -1]

    def _read_rest(self, asked: _Asked, kv: Tensor, prefix_kv: Tensor, prefix_hidden_BD: Tensor) -> Tensor:
        """Read what is left of a query's prompt into `kv`, after a copy of the prefix; the last hidden state."""
        prefix_tokens = prefix_kv.shape[-2]
        kv[..., :prefix_tokens, :] = prefix_kv
        if asked.rest.numel() == 0:
            return prefix_hidden_BD
        x_BTD = self._decoder.embed(asked.rest).expand(kv.shape[2], -1, -1)
        return self._decoder.prefill(x_BTD, kv, prefix_tokens)[:, -1]

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
        self, free: list[tuple[_Asked, Tensor, Tensor]], waveforms_BS: Tensor
    ) -> list[list[Answer]]:
        """Free answers to several queries, for each query one per window; all rows decode together."""
        decoder = self._decoder
        windows = free[0][1].shape[2]
        rows = windows * len(free)
        # Not as planned: sound that keeps its length becomes more or fewer tokens.
        prompt_tokens = [prefix_kv.shape[-2] + asked.rest.numel() for asked, prefix_kv, _ in free]
        prompt_slots = max(prompt_tokens)
        slots = prompt_slots + max(asked.query.max_new_tokens for asked, _, _ in free)
        if self._buffer is None or not self._buffer.fits(rows * self.num_beams, slots):
            self._buffer = None  # the old one's memory goes before the new one's comes
            self._buffer = DecodeBuffer.on(decoder, rows * self.num_beams, slots)
        buffer = self._buffer

        hidden = []
        for number, (asked, prefix_kv, prefix_hidden_BD) in enumerate(free):
            own = slice(number * windows, (number + 1) * windows)
            hidden.append(self._read_rest(asked, buffer.kv[:, :, own], prefix_kv, prefix_hidden_BD))
            buffer.mask_RS[own] = torch.arange(buffer.slots, device=self._device) < prompt_tokens[number]
        prompts = Prompts(
            logits_RV=decoder.logits(torch.cat(hidden)).float(),
            positions_R=self._ids(prompt_tokens).repeat_interleave(windows),
            slots=prompt_slots,
            limits_R=self._ids([asked.query.max_new_tokens for asked, _, _ in free]).repeat_interleave(
                windows
            ),
        )
        ends = self.model.end_token_ids
        if self.num_beams > 1:
            found = search_beams(buffer, prompts, ends, self.num_beams)
        else:
            draws_RT = (
                self._draws([asked.query for asked, _, _ in free], waveforms_BS) if self.do_sample else None
            )
            choice = Choice(draws_RT, self.temperature, self.top_k, self.top_p, self.repetition_penalty)
            if self.repetition_penalty != 1.0:
                choice.seen_RV = torch.zeros_like(prompts.logits_RV, dtype=torch.bool)
                for number, (asked, _, _) in enumerate(free):
                    choice.seen_RV[number * windows : (number + 1) * windows, asked.text] = True
            found = search_one(buffer, prompts, ends, choice)
        answers = [self.model.make_answer(row.token_ids, row.log_probs) for row in found]
        return [answers[start : start + windows] for start in range(0, rows, windows)]

    def _draws(self, queries: Sequence[EngineQuery], waveforms_BS: Tensor) -> np.ndarray:
        """Random numbers in [0, 1) ``[rows, tokens]`` that depend on seed, query and sound only."""
        longest = max(query.max_new_tokens for query in queries)
        sounds = [zlib.crc32(row.tobytes()) for row in waveforms_BS.float().cpu().numpy()]
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
