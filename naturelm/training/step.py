"""One training step: the same arithmetic on one worker or many, at once or in parts, uninterrupted or resumed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from naturelm.errors import NaturelmError
from naturelm.text import printable
from naturelm.training.data import Loaded
from naturelm.training.initial_model import train_mode
from naturelm.training.objective import Batch, Objective, Preparer, Sums
from naturelm.training.settings import Optimisation, TrainConfig
from naturelm.training.tensors import is_sharded, like, load_weights, whole

_FAILURES_TO_STOP = 3
_NAMED = 8


class TrainingStopped(NaturelmError):
    """Training cannot continue, and every worker has found so: restarting them would change nothing."""


@dataclass(frozen=True)
class Worker:
    """One process of a run: its number among how many, and its device."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, *values: float) -> list[float]:
        """Each value's sum over all workers."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, values: Sequence[str]) -> list[str]:
        """All workers' texts, in order of rank."""
        if self.world == 1:
            return list(values)
        parts: list[list[str]] = [[] for _ in range(self.world)]
        dist.all_gather_object(parts, list(values))
        return [value for part in parts for value in part]


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    Attributes
    ----------
    loss : float
        What was minimised, over the whole batch: `words` and the weighted `auxiliary`.
    words, auxiliary : float
        Mean cross-entropy of the answers' tokens; of the labels present. NaN where not computed.
    token_accuracy : float
        Share of answer tokens that would have been generated.
    learning_rate, gradient_norm : float
        The norm is that before clipping.
    tokens : int
        Answer tokens.
    skipped : bool
        The loss or its gradient was not finite, so the weights were not changed.
    """

    loss: float
    words: float
    auxiliary: float
    token_accuracy: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    skipped: bool


class Trainer:
    """Takes steps.

    Parameters
    ----------
    config
        The run's settings.
    objective
        On the worker's device; already sharded, if at all.
    worker
        This process.

    Attributes
    ----------
    skipped, skipped_in_a_row : int
        Steps whose loss was not finite, and how many of them were the most recent.
    prepare : callable
        Makes a batch of examples, on the worker's device.
    trained : dict
        The parameters that train, by name.
    """

    def __init__(self, config: TrainConfig, objective: Objective, worker: Worker) -> None:
        self.config, self.objective, self.worker = config, objective, worker
        self.skipped = self.skipped_in_a_row = 0
        self._auxiliary = config.auxiliary
        self.prepare: Callable[[Sequence[Loaded]], Batch] = Preparer(
            objective.model,
            config.optimisation.max_text_tokens,
            config.auxiliary.labels if config.auxiliary else (),
            with_prompt=config.optimisation.loss_on != "answer",
        )
        self.trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(self.trained, config.optimisation)
        self._sharded = any(is_sharded(p) for p in self.trained.values())
        self._module: nn.Module = objective
        if worker.world > 1 and not self._sharded:
            # Layers that are dropped, and losses that only some steps have, leave weights without a gradient.
            varying = config.auxiliary is not None or objective.model.drops_layers
            self._module = DistributedDataParallel(objective, find_unused_parameters=varying)

    def step(self, number: int, examples: Sequence[Loaded]) -> StepResult:
        """Take one step.

        Parameters
        ----------
        number
            Of the step, from 0: it determines the learning rate and what dropout draws.
        examples
            This worker's share of the batch.

        Raises
        ------
        TrainingStopped
            For the third time in a row the loss was not finite; names the examples.
        """
        settings, worker = self.config.optimisation, self.worker
        words, auxiliary = self._losses_at(number)
        rate = learning_rate(number, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        train_mode(self.objective.model, self.config.model.trainable)

        parts = [self.prepare(part) for part in _parts(examples, settings.micro_batch)]
        tokens, count = worker.sum(sum(part.tokens for part in parts), len(examples))
        weight = self._auxiliary.weight if self._auxiliary else 0.0
        sums = [0.0, 0.0, 0.0]
        not_finite: list[str] = []
        self.optimizer.zero_grad(set_to_none=True)
        for place, part in enumerate(parts):
            torch.manual_seed(_seed(self.config.seed, number, worker.rank, place))
            with self._communicating(place == len(parts) - 1):
                with autocast(self.config, worker.device):
                    result: Sums = self._module(part, words=words, auxiliary=auxiliary)
                # Gradients are averaged over workers, so each worker's are scaled up by their number.
                loss = worker.world * (result.words / tokens + weight * result.auxiliary / count)
                loss.backward()
            sums = [a + float(b.detach()) for a, b in zip(sums, result[:3], strict=True)]
            not_finite += [
                name for name, x in zip(part.ids, result.each_B.tolist(), strict=True) if not math.isfinite(x)
            ]
        norm = whole(nn.utils.clip_grad_norm_(self.trained.values(), settings.clip_norm)).item()
        word_sum, auxiliary_sum, correct = worker.sum(*sums)
        loss_value = word_sum / tokens + weight * auxiliary_sum / count
        skipped = not (math.isfinite(loss_value) and math.isfinite(norm))
        if skipped:
            self._skip(number, not_finite or [example.id for example in examples])
        else:
            self.skipped_in_a_row = 0
            self.optimizer.step()
        return StepResult(
            loss=loss_value,
            words=word_sum / tokens if words else math.nan,
            auxiliary=auxiliary_sum / count if auxiliary else math.nan,
            token_accuracy=correct / tokens if words else math.nan,
            learning_rate=rate,
            gradient_norm=norm,
            tokens=int(tokens),
            skipped=skipped,
        )

    # -- state for checkpoints -------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """What trains, whole and on the CPU, by name. Sharded, all workers must call it."""
        return {name: whole(p.detach()).cpu().contiguous() for name, p in self.trained.items()}

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state, whole and on the CPU: `NAME/exp_avg` and so on. As `weights`."""
        return {
            f"{name}/{key}": whole(value).cpu().contiguous()
            for name, parameter in self.trained.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], moments: dict[str, Tensor], where: str) -> None:
        """Restore what `weights` and `moments` returned.

        Raises
        ------
        NaturelmError
            If they belong to a model of another shape.
        """
        load_weights(self.trained, weights, where)
        for name, value in moments.items():
            parameter, key = name.rsplit("/", 1)
            target = self.trained[parameter]
            self.optimizer.state[target][key] = value.clone() if value.ndim == 0 else like(value, target)

    # -- details ---------------------------------------------------------------------------------------------

    def _losses_at(self, number: int) -> tuple[bool, bool]:
        if self._auxiliary is None:
            return True, False
        return number >= self._auxiliary.alone_steps, number < self._auxiliary.steps

    @contextmanager
    def _communicating(self, last: bool) -> Iterator[None]:
        """Exchange gradients after the last part only; before, they add up on each worker."""
        if isinstance(self._module, DistributedDataParallel):
            with nullcontext() if last else self._module.no_sync():
                yield
            return
        if self._sharded:
            self.objective.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def _skip(self, number: int, names: Sequence[str]) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self.skipped_in_a_row >= _FAILURES_TO_STOP:
            all_names = self.worker.gather(names)
            more = f" and {len(all_names) - _NAMED} more" if len(all_names) > _NAMED else ""
            raise TrainingStopped(
                f"step {number + 1}: the loss was not finite {self.skipped_in_a_row} times in a row; the last batch "
                f"contained {', '.join(printable(name) for name in all_names[:_NAMED])}{more}: check these examples, "
                "or lower optimisation.peak_lr"
            )


def learning_rate(number: int, settings: Optimisation) -> float:
    """The rate of a step, from 0: a linear warm-up, then half a cosine or a line down to `end_lr` at the last step."""
    if number < settings.warmup_steps:
        rise = settings.peak_lr - settings.start_lr
        return settings.start_lr + rise * (number + 1) / settings.warmup_steps
    falling = max(1, settings.steps - 1 - settings.warmup_steps)
    way = min(1.0, (number - settings.warmup_steps) / falling)
    left = 1.0 - way if settings.decay == "linear" else 0.5 + 0.5 * math.cos(math.pi * way)
    return settings.end_lr + (settings.peak_lr - settings.end_lr) * left


def make_optimizer(trained: dict[str, nn.Parameter], settings: Optimisation) -> torch.optim.AdamW:
    """AdamW; norms, biases and the table of relative positions do not decay."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in trained.items():
        groups[decays(name, parameter)].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": settings.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=settings.peak_lr,
        betas=settings.betas,
        fused=True,
    )


def decays(name: str, parameter: Tensor) -> bool:
    """Whether a parameter takes weight decay, by the published rule: no vector, and no bias or norm by name."""
    return parameter.ndim > 1 and "bias" not in name and "norm" not in name.lower()


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The run's precision; the filterbank and the losses stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def _parts(examples: Sequence[Loaded], size: int | None) -> list[Sequence[Loaded]]:
    size = size or len(examples)
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def _seed(*numbers: int) -> int:
    """One seed from several numbers, so that a resumed step draws what an uninterrupted one would."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")
