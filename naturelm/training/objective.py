"""What a training step minimises: cross-entropy of answers and, for small models, of the labels that are present.

Axes: B examples · S samples · P positions of the encoder's output · E their width · A audio tokens · D LLM's width ·
R rows (one per question) · L labels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naturelm.labels import normal_form
from naturelm.models.base import LanguageModel
from naturelm.models.prompts import PromptTokens
from naturelm.training.data import Loaded


@dataclass(frozen=True)
class Batch:
    """Examples as the model takes them.

    Attributes
    ----------
    ids : tuple of str
        The examples', for messages.
    waveforms_BS : Tensor
        float32 sound at the model's rate.
    prompts, answers
        For each question the tokens around the sound, and those of the answer, end token included.
    owners : tuple of int
        For each question the example it is about.
    present_BL : Tensor, optional
        Share of each label, and of "none of them" last, in what is present; rows sum to 1.
    samples : tuple of int
        Length of each example's own sound, where these differ.
    """

    ids: tuple[str, ...]
    waveforms_BS: Tensor
    prompts: tuple[PromptTokens, ...]
    answers: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    present_BL: Tensor | None = None
    samples: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Answer tokens, end tokens included."""
        return sum(map(len, self.answers))

    def example_tokens(self) -> list[int]:
        """Answer tokens of each example."""
        counts = [0] * len(self.ids)
        for owner, answer in zip(self.owners, self.answers, strict=True):
            counts[owner] += len(answer)
        return counts


class Sums(NamedTuple):
    """Sums over a batch, so that parts of a batch add up to the whole.

    Attributes
    ----------
    words : Tensor
        Cross-entropy over the answers' tokens; has a gradient.
    auxiliary : Tensor
        Cross-entropy of the labels present over the examples; has a gradient.
    correct : Tensor
        Answer tokens that would have been generated, each given those before it.
    each_B : Tensor
        `words` and `auxiliary` of each example, without a gradient.
    """

    words: Tensor
    auxiliary: Tensor
    correct: Tensor
    each_B: Tensor


class Objective(nn.Module):
    """The model and, where there are labels, two layers that name what is present from patches and audio tokens.

    ``forward(batch, words, auxiliary)`` returns `Sums`; what is not requested is 0.

    Attributes
    ----------
    in_step : bool
        All workers call the LLM equally often, whatever their examples; necessary where its weights are sharded.
    """

    in_step = False

    def __init__(self, model: LanguageModel, labels: Sequence[str] = ()) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleList(
            nn.Linear(2 * width, len(labels) + 1)
            for width in (model.feature_width, model.token_width)
            if labels
        ).to(model.device)

    def forward(self, batch: Batch, words: bool = True, auxiliary: bool = False) -> Sums:
        model = self.model
        features_BPE = self._encode(batch)
        audio_BAD = model.project_features(features_BPE)
        total_B = torch.zeros(len(batch.ids), device=audio_BAD.device)
        answered = named = correct = total_B.sum()
        if words:
            loss_R, correct = answer_losses(model, audio_BAD, batch, split=not self.in_step)
            answered = loss_R.sum()
            owners_R = torch.tensor(batch.owners, device=audio_BAD.device)
            total_B = total_B.index_add(0, owners_R, loss_R.detach())
        if auxiliary and batch.present_BL is not None:
            for head, x in zip(self.heads, (features_BPE, audio_BAD), strict=True):
                scores_BL = head(torch.cat([x.mean(dim=1), x.amax(dim=1)], dim=1)).float()
                loss_B = F.cross_entropy(scores_BL, batch.present_BL, reduction="none")
                named = named + loss_B.sum()
                total_B = total_B + loss_B.detach()
        return Sums(answered, named, correct, total_B)

    def _encode(self, batch: Batch) -> Tensor:
        """The encoder's output; sounds of several lengths each at their own."""
        encode = self.model.encode_features
        if not batch.samples:
            return encode(batch.waveforms_BS)
        rows = range(len(batch.samples))
        by_length: dict[tuple[int, int], list[int]] = {}
        for row in rows:
            # In step, every worker calls the encoder as often: once for each example.
            by_length.setdefault((batch.samples[row], row if self.in_step else 0), []).append(row)
        parts = [encode(batch.waveforms_BS[own, :length]) for (length, _), own in by_length.items()]
        order = np.argsort([row for own in by_length.values() for row in own])
        return torch.cat(parts)[torch.from_numpy(order)]

    @torch.no_grad()
    def generate(self, waveforms_BS: Tensor, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy answers, for evaluation; a method, so that sharded weights are gathered when it is called."""
        answers = self.model.generate(
            waveforms_BS, prompts, max_new_tokens, num_beams=1, together=self.in_step
        )
        return [answer.text for answer in answers]


def answer_losses(
    model: LanguageModel, audio_BAD: Tensor, batch: Batch, split: bool = True
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each question's answer, summed over its tokens ``[R]``, and how many tokens were right.

    The sound is encoded once for all questions about it. With `split`, questions of similar length go through the LLM
    together, which saves padding.
    """
    lengths = [
        len(prompt.head) + len(prompt.tail) + len(answer)
        for prompt, answer in zip(batch.prompts, batch.answers, strict=True)
    ]
    groups = (
        _by_length([audio_BAD.shape[1] + length for length in lengths]) if split else [[*range(len(lengths))]]
    )
    losses: list[Tensor] = []
    correct = torch.zeros((), device=audio_BAD.device)
    for rows in groups:
        scores = model.score_answers(
            audio_BAD,
            [batch.prompts[row] for row in rows],
            [batch.answers[row] for row in rows],
            [batch.owners[row] for row in rows],
        )
        losses.append(-scores.log_probs_RT.sum(dim=1))
        correct = correct + scores.is_likeliest_RT.sum()
    back = torch.tensor(np.argsort([row for rows in groups for row in rows]), device=audio_BAD.device)
    return torch.cat(losses)[back], correct


class Preparer:
    """Makes batches of loaded examples.

    Parameters
    ----------
    model
        Its prompts, words and window are used.
    max_text_tokens
        Longest answer, end token included.
    labels
        Of the auxiliary loss; none without it.
    with_prompt
        The prompt after the sound is learnt, too.
    """

    def __init__(
        self,
        model: LanguageModel,
        max_text_tokens: int,
        labels: Sequence[str] = (),
        with_prompt: bool = False,
    ) -> None:
        self._with_prompt, self._max_text_tokens = with_prompt, max_text_tokens
        self._prompt_tokens = lru_cache(maxsize=4096)(model.prompt_tokens)
        self._answer_tokens = partial(model.answer_tokens, longest=max_text_tokens)
        self._samples, self._device = model.natural_window_samples, model.device
        self._labels = {normal_form(label): index for index, label in enumerate(labels)}

    def __call__(self, examples: Sequence[Loaded]) -> Batch:
        waveforms_BS = np.zeros((len(examples), self._samples), np.float32)
        for row, example in zip(waveforms_BS, examples, strict=True):
            sound = example.waveform[: self._samples]
            row[: len(sound)] = sound
        lengths = tuple(min(len(example.waveform), self._samples) for example in examples)
        questions = [(i, *question) for i, example in enumerate(examples) for question in example.questions]
        texts = [
            self._split(self._prompt_tokens(prompt), self._answer_tokens(text))
            for _, prompt, text in questions
        ]
        return Batch(
            ids=tuple(example.id for example in examples),
            waveforms_BS=torch.from_numpy(waveforms_BS).to(self._device),
            prompts=tuple(prompt for prompt, _ in texts),
            answers=tuple(answer for _, answer in texts),
            samples=() if set(lengths) == {self._samples} else lengths,
            owners=tuple(owner for owner, _, _ in questions),
            present_BL=self._present(examples).to(self._device) if self._labels else None,
        )

    def _split(self, prompt: PromptTokens, answer: tuple[int, ...]) -> tuple[PromptTokens, tuple[int, ...]]:
        """What is read, and what is learnt: of the prompt, all after the sound but the first token."""
        if not self._with_prompt:
            return prompt, answer
        learnt = (*prompt.tail[1:], *answer)[: self._max_text_tokens]
        return PromptTokens(prompt.head, prompt.tail[:1], prompt.before), learnt

    def _present(self, examples: Sequence[Loaded]) -> Tensor:
        present_BL = torch.zeros(len(examples), len(self._labels) + 1)
        for row, example in zip(present_BL, examples, strict=True):
            named = {normal_form(label) for label in example.labels}
            known = [self._labels[label] for label in named if label in self._labels]
            row[known or [-1]] = 1.0
        return present_BL / present_BL.sum(dim=1, keepdim=True)


def _by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in one group, or in two of similar length where that saves a sixth of the positions or more."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    longest = lengths[order[-1]]
    costs = {
        cut: cut * lengths[order[cut - 1]] + (len(order) - cut) * longest for cut in range(1, len(order))
    }
    cut = min(costs, key=costs.__getitem__, default=0)
    if not cut or costs[cut] * 6 > len(order) * longest * 5:
        return [order]
    return [order[:cut], order[cut:]]
