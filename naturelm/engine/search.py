"""How answers are found token by token: greedy, sampling and beam search over one decode buffer.

Axes: R rows (one for each window and query) · B beams · X beams of all rows, as in the buffer · C candidates of one
row · T generated tokens · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from naturelm.engine.buffer import DecodeBuffer
from naturelm.models.sampling import keep_likeliest, penalise

# Rows that are done are dropped once at most this share of the buffer's rows still generates.
_COMPACT_BELOW = 0.75
# On a GPU, asking how many rows still generate waits for the queue to run dry: not after every token.
_GPU_STEPS_BETWEEN_CHECKS = 4
_NEVER = -1.0e9


@dataclass
class Prompts:
    """Rows that stand in a decode buffer's first rows and have read their prompts.

    Attributes
    ----------
    logits_RV : Tensor
        float32, after the last token of each prompt.
    positions_R : Tensor
        int64, position of each row's next token: its prompt's length.
    slots : int
        Slots that the prompts take in the buffer: the longest one's length. The buffer's mask tells each row's own.
    limits_R : Tensor
        int64, how many tokens each row may generate.
    """

    logits_RV: Tensor
    positions_R: Tensor
    slots: int
    limits_R: Tensor


@dataclass
class Choice:
    """How each token of a row is chosen. Log-probabilities are those of the model itself, whatever the choice.

    Attributes
    ----------
    draws_RT : ndarray, optional
        float32 ``[R, T]`` in [0, 1): the chance of each token to be drawn. The likeliest tokens where not given.
    temperature, top_k, top_p, repetition_penalty
        As of `naturelm.models.base.Generation`.
    seen_RV : Tensor, optional
        bool, true for the tokens of each row's prompt; needed for a repetition penalty.
    """

    draws_RT: np.ndarray | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seen_RV: Tensor | None = None


@dataclass(frozen=True)
class Generated:
    """Token ids of one row, with the end token where it was reached, and their log-probabilities."""

    token_ids: list[int]
    log_probs: list[float]


def search_one(
    buffer: DecodeBuffer,
    prompts: Prompts,
    end_token_ids: Sequence[int],
    choice: Choice | None = None,
) -> list[Generated]:
    """One token after the other: the likeliest, or one drawn by chance.

    Parameters
    ----------
    buffer : DecodeBuffer
        Holds the prompts in its first R rows; has slots for as many tokens as the largest limit.
    prompts : Prompts
        What has been read.
    end_token_ids : sequence of int
        Tokens that end an answer.
    choice : Choice, optional
        How each token is chosen; the likeliest where not given.
    """
    device = prompts.logits_RV.device
    limits_R = prompts.limits_R
    longest = int(limits_R.max())
    ends = torch.tensor(list(end_token_ids), device=device)
    tokens_RT = torch.zeros(limits_R.numel(), longest, dtype=torch.int64, device=device)
    log_probs_RT = torch.zeros(tokens_RT.shape, dtype=torch.float32, device=device)
    choice = choice or Choice()
    draws = None if choice.draws_RT is None else torch.from_numpy(choice.draws_RT).to(device)
    seen_RV = choice.seen_RV

    live_R = torch.arange(limits_R.numel(), device=device)  # which row each of the buffer's first rows is
    done_R = torch.zeros_like(live_R, dtype=torch.bool)
    positions_R, logits_RV = prompts.positions_R, prompts.logits_RV
    for t in range(longest):
        changed_RV = logits_RV if seen_RV is None else penalise(logits_RV, seen_RV, choice.repetition_penalty)
        if draws is None:
            chosen_R = changed_RV.argmax(-1)
        else:
            kept_RV = keep_likeliest(changed_RV / choice.temperature, choice.top_k, choice.top_p)
            chosen_R = _draw(kept_RV, draws[live_R, t])
        chosen_R1 = chosen_R.unsqueeze(1)
        if seen_RV is not None:
            seen_RV = seen_RV.scatter(1, chosen_R1, True)
        tokens_RT[live_R, t] = chosen_R
        log_probs_RT[live_R, t] = logits_RV.gather(1, chosen_R1).squeeze(1) - logits_RV.logsumexp(-1)
        done_R = done_R | torch.isin(chosen_R, ends) | (limits_R[live_R] <= t + 1)
        if t + 1 == longest:
            break
        if _check_now(device, t):
            going_R = torch.nonzero(~done_R).squeeze(1)
            if going_R.numel() == 0:
                break
            if going_R.numel() <= _COMPACT_BELOW * live_R.numel():
                buffer.keep(going_R)
                live_R, done_R = live_R[going_R], done_R[going_R]
                chosen_R, positions_R = chosen_R[going_R], positions_R[going_R]
                seen_RV = None if seen_RV is None else seen_RV[going_R]
        logits_RV = buffer.step(chosen_R, positions_R + t, prompts.slots + t)
    return _until_end(tokens_RT, log_probs_RT, limits_R, set(end_token_ids))


def search_beams(
    buffer: DecodeBuffer,
    prompts: Prompts,
    end_token_ids: Sequence[int],
    beams: int,
    choice: Choice | None = None,
) -> list[Generated]:
    """Beam search with the rules of `transformers.generate` (length penalty 1, no early stopping).

    Prompts are read once and forked after; a row that is finished leaves. The buffer holds beam b of row r in row
    ``b * R + r`` and must have ``beams`` times as many rows as there are prompts. Of `choice`, the repetition penalty
    applies: to log-probabilities, and only to which beams are kept.
    """
    choice = choice or Choice()
    device = prompts.logits_RV.device
    rows, vocabulary = prompts.logits_RV.shape
    limits_R, positions_R = prompts.limits_R, prompts.positions_R
    longest = int(limits_R.max())
    ends = torch.tensor(list(end_token_ids), device=device)
    # So many that enough go on, should all others end.
    candidates = max(2, 1 + len(end_token_ids)) * beams
    buffer.fork(rows, beams, prompts.slots)

    beams_RB = _Beams.empty(rows, beams, longest, device)
    beams_RB.scores[:, 0] = 0.0  # at first all beams are the same one
    finished_RB = _Beams.empty(rows, beams, longest, device)
    is_finished_RB = torch.zeros(rows, beams, dtype=torch.bool, device=device)
    results: list[Generated | None] = [None] * rows
    live = np.arange(rows)

    logits_BRV = prompts.logits_RV.unsqueeze(0).expand(beams, -1, -1)
    # Beam b of row r is row b * R + r, as in the buffer.
    seen_XV = None if choice.seen_RV is None else choice.seen_RV.repeat(beams, 1)
    for t in range(longest):
        # -- the best continuations of each row
        per_beam = min(candidates, vocabulary)
        if seen_XV is None:
            logits_BRC, tokens_BRC = logits_BRV.topk(per_beam, dim=-1)
            log_probs_BRC = ranked_BRC = logits_BRC - logits_BRV.logsumexp(-1, keepdim=True)
        else:
            log_probs_BRV = logits_BRV.log_softmax(-1)
            changed_BRV = penalise(log_probs_BRV, seen_XV.view_as(log_probs_BRV), choice.repetition_penalty)
            ranked_BRC, tokens_BRC = changed_BRV.topk(per_beam, dim=-1)
            log_probs_BRC = log_probs_BRV.gather(-1, tokens_BRC)
        log_probs_RBC = log_probs_BRC.transpose(0, 1)
        total_RN = (ranked_BRC.transpose(0, 1) + beams_RB.scores.unsqueeze(-1)).flatten(1)
        scores_RC, index_RC = total_RN.topk(min(candidates, total_RN.shape[1]), dim=-1)
        chosen_RC = beams_RB.take(index_RC // per_beam)
        chosen_RC.scores = scores_RC
        chosen_RC.tokens[:, :, t] = tokens_BRC.transpose(0, 1).flatten(1).gather(1, index_RC)
        chosen_RC.log_probs[:, :, t] = log_probs_RBC.flatten(1).gather(1, index_RC)
        chosen_RC.lengths += 1

        # -- those that end here, among the finished; only what a beam had room for may end
        ended_RC = torch.isin(chosen_RC.tokens[:, :, t], ends) | (limits_R <= t + 1).unsqueeze(1)
        in_beams_C = torch.arange(ended_RC.shape[1], device=device) < beams
        ends_RC = ended_RC & in_beams_C & beams_RB.open.unsqueeze(1)
        ending_RC = chosen_RC.with_scores(torch.where(ends_RC, scores_RC / (t + 1), _NEVER))
        merged = finished_RB.cat(ending_RC)
        best_RB = merged.scores.topk(beams, dim=-1)[1]
        finished_RB = merged.take(best_RB)
        is_finished_RB = torch.cat([is_finished_RB, ends_RC], dim=1).gather(1, best_RB)

        # -- those that go on
        running_RC = torch.where(ended_RC, scores_RC + _NEVER, scores_RC)
        next_RB = running_RC.topk(beams, dim=-1)[1]
        source_RB = (index_RC // per_beam).gather(1, next_RB)
        was_open_R = beams_RB.open
        beams_RB = chosen_RC.with_scores(running_RC).take(next_RB)
        worst_RB = torch.where(is_finished_RB, finished_RB.scores.min(dim=1, keepdim=True)[0], _NEVER)
        improvable_R = (beams_RB.scores[:, :1] / (t + 1) > worst_RB).any(dim=1)
        beams_RB.open = was_open_R & improvable_R & ~ended_RC.all(dim=1)

        # -- finished rows leave with their best answer
        last = t + 1 == longest
        open_R = beams_RB.open.cpu().numpy() & (not last)
        kept = np.flatnonzero(open_R) if last or (~open_R).any() else None
        if kept is not None and (last or kept.size <= _COMPACT_BELOW * live.size):
            for row in np.flatnonzero(~open_R):
                results[live[row]] = finished_RB.first(int(row))
            live = live[kept]
            if live.size == 0:
                break
            kept_R = torch.from_numpy(kept).to(device)
            source_X = (source_RB.T[:, kept_R] * len(open_R) + kept_R).flatten()
            buffer.keep(source_X)
            seen_XV = None if seen_XV is None else seen_XV[source_X]
            beams_RB, finished_RB = beams_RB.rows(kept_R), finished_RB.rows(kept_R)
            is_finished_RB = is_finished_RB[kept_R]
            limits_R, positions_R = limits_R[kept_R], positions_R[kept_R]
        elif t > 0:
            offset_R = torch.arange(live.size, device=device)
            said = slice(prompts.slots, prompts.slots + t)
            source_X = (source_RB.T * live.size + offset_R).flatten()
            buffer.reorder(source_X, said)
            seen_XV = None if seen_XV is None else seen_XV[source_X]
        tokens_X = beams_RB.tokens[:, :, t].T.flatten()
        if seen_XV is not None:
            seen_XV = seen_XV.scatter(1, tokens_X.unsqueeze(1), True)
        logits = buffer.step(tokens_X, (positions_R + t).repeat(beams), prompts.slots + t)
        logits_BRV = logits.view(beams, live.size, vocabulary)
    return [result for result in results if result is not None]


@dataclass
class _Beams:
    """Several sequences of each row: tokens and log-probabilities ``[R, B, T]``, lengths and scores ``[R, B]``.

    `open` ``[R]`` is false once a row can no longer improve.
    """

    tokens: Tensor
    log_probs: Tensor
    lengths: Tensor
    scores: Tensor
    open: Tensor

    @classmethod
    def empty(cls, rows: int, beams: int, longest: int, device: torch.device) -> _Beams:
        return cls(
            tokens=torch.zeros(rows, beams, longest, dtype=torch.int64, device=device),
            log_probs=torch.zeros(rows, beams, longest, device=device),
            lengths=torch.zeros(rows, beams, dtype=torch.int64, device=device),
            scores=torch.full((rows, beams), _NEVER, device=device),
            open=torch.ones(rows, dtype=torch.bool, device=device),
        )

    def take(self, index_RB: Tensor) -> _Beams:
        """The sequences `index_RB` of each row."""
        index_RBT = index_RB.unsqueeze(-1).expand(-1, -1, self.tokens.shape[-1])
        return _Beams(
            tokens=self.tokens.gather(1, index_RBT),
            log_probs=self.log_probs.gather(1, index_RBT),
            lengths=self.lengths.gather(1, index_RB),
            scores=self.scores.gather(1, index_RB),
            open=self.open,
        )

    def with_scores(self, scores: Tensor) -> _Beams:
        return _Beams(self.tokens, self.log_probs, self.lengths, scores, self.open)

    def cat(self, other: _Beams) -> _Beams:
        return _Beams(
            tokens=torch.cat([self.tokens, other.tokens], dim=1),
            log_probs=torch.cat([self.log_probs, other.log_probs], dim=1),
            lengths=torch.cat([self.lengths, other.lengths], dim=1),
            scores=torch.cat([self.scores, other.scores], dim=1),
            open=self.open,
        )

    def rows(self, rows_R: Tensor) -> _Beams:
        return _Beams(
            *(getattr(self, name)[rows_R] for name in ("tokens", "log_probs", "lengths", "scores", "open"))
        )

    def first(self, row: int) -> Generated:
        length = int(self.lengths[row, 0])
        return Generated(self.tokens[row, 0, :length].tolist(), self.log_probs[row, 0, :length].tolist())


def _draw(logits_RV: Tensor, draws_R: Tensor) -> Tensor:
    """The token at which the summed probability passes the draw."""
    sums_RV = logits_RV.softmax(-1).cumsum(-1)
    targets_R1 = (draws_R * sums_RV[:, -1]).unsqueeze(1)
    return torch.searchsorted(sums_RV, targets_R1, right=True).squeeze(1).clamp(max=logits_RV.shape[1] - 1)


def _check_now(device: torch.device, t: int) -> bool:
    return device.type != "cuda" or t % _GPU_STEPS_BETWEEN_CHECKS == _GPU_STEPS_BETWEEN_CHECKS - 1


def _until_end(tokens_RT: Tensor, log_probs_RT: Tensor, limits_R: Tensor, ends: set[int]) -> list[Generated]:
    results = []
    rows = zip(tokens_RT.tolist(), log_probs_RT.tolist(), limits_R.tolist(), strict=True)
    for tokens, log_probs, limit in rows:
        length = next((t + 1 for t, token in enumerate(tokens[:limit]) if token in ends), limit)
        results.append(Generated(tokens[:length], log_probs[:length]))
    return results
