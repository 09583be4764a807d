"""Figures of a model on held-out examples: loss, exact answers and F1 of labels, over all, by task and by label."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from naturelm.labels import normal_form, parse_labels
from naturelm.training.data import Loaded
from naturelm.training.objective import Objective
from naturelm.training.settings import TrainConfig
from naturelm.training.step import Trainer, Worker, autocast
from naturelm.training.tasks import is_detection, is_naming

# A task of few tokens or answers is counted like one of many: sums, divided at the end.
_SUMS = ("words", "tokens", "exact", "questions")
_COUNTS = ("hits", "predicted", "expected")


@dataclass
class HeldOut:
    """Sums over held-out examples.

    Attributes
    ----------
    correct, tokens : float
        Answer tokens that would have been generated, and all.
    tasks : dict
        For each task the sums of its loss, tokens, exact answers and questions.
    labels : dict
        For each task and label (in its normal form) how often it was answered rightly, answered, and expected.
    spelling : dict
        Normal form of a label to its spelling.
    """

    correct: float = 0.0
    tokens: float = 0.0
    tasks: dict[str, Counter[str]] = field(default_factory=dict)
    labels: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    spelling: dict[str, str] = field(default_factory=dict)

    def add_loss(self, task: str, words: float, tokens: int) -> None:
        """Add an example's loss, summed over its answers' tokens."""
        sums = self.tasks.setdefault(task, Counter())
        sums["words"] += words  # type: ignore[assignment]  # a Counter adds fractions too, its type knows integers
        sums["tokens"] += tokens

    def add_answer(self, task: str, text: str, answer: str) -> None:
        """Add a generated answer and the text that was expected."""
        sums = self.tasks.setdefault(task, Counter())
        sums["questions"] += 1
        sums["exact"] += normal_form(answer) == normal_form(text)
        if not (is_detection(task) or is_naming(task)):
            return
        expected, predicted = self._labels(text), self._labels(answer)
        for label in expected | predicted:
            counts = self.labels.setdefault((task, label), Counter())
            counts["hits"] += label in expected and label in predicted
            counts["predicted"] += label in predicted
            counts["expected"] += label in expected

    def _labels(self, text: str) -> set[str]:
        names = [label.name for label in parse_labels(text)]
        self.spelling = {normal_form(name): name for name in names} | self.spelling
        return {normal_form(name) for name in names}

    def over_all(self, worker: Worker) -> HeldOut:
        """The sums over all workers, alike on each."""
        if worker.world == 1:
            return self
        text = json.dumps(
            [
                [self.correct, self.tokens],
                self.tasks,
                [[*key, counts] for key, counts in self.labels.items()],
                self.spelling,
            ]
        )
        total = HeldOut()
        for part in worker.gather([text]):
            (correct, tokens), tasks, labels, spelling = json.loads(part)
            total.correct += correct
            total.tokens += tokens
            for task, sums in tasks.items():
                total.tasks.setdefault(task, Counter()).update(sums)
            for task, label, counts in labels:
                total.labels.setdefault((task, label), Counter()).update(counts)
            total.spelling = spelling | total.spelling
        return total

    def figures(self) -> dict[str, float]:
        """Over all: `loss` (mean over the answers' tokens) and `token_accuracy`.

        Where answers are generated also `exact` (share of answers equal to the text but for case and spaces) and,
        where there are detection tasks, `f1` of their labels, counted over all answers. Then `loss:TASK`, `exact:TASK`
        and `f1:TASK` of each task, the last where its answers are labels.
        """
        sums = {name: sum(task[name] for task in self.tasks.values()) for name in _SUMS}
        figures = {"loss": sums["words"] / sums["tokens"], "token_accuracy": self.correct / self.tokens}
        if sums["questions"]:
            figures["exact"] = sums["exact"] / sums["questions"]
        detection = [task for task in self.tasks if is_detection(task)]
        figures |= self._f1("f1", detection)
        for task, own in sorted(self.tasks.items()):
            figures[f"loss:{task}"] = own["words"] / own["tokens"]
            if own["questions"]:
                figures[f"exact:{task}"] = own["exact"] / own["questions"]
            figures |= self._f1(f"f1:{task}", [task])
        return figures

    def _f1(self, name: str, tasks: Sequence[str]) -> dict[str, float]:
        chosen = [counts for (task, _), counts in self.labels.items() if task in tasks]
        hits, predicted, expected = (sum(counts[kind] for counts in chosen) for kind in _COUNTS)
        return {name: 2 * hits / (predicted + expected)} if predicted + expected else {}

    def by_label(self) -> Iterator[dict[str, Any]]:
        """Rows of task, label, how often it was expected, answered and answered rightly, and F1."""
        for (task, label), counts in sorted(self.labels.items()):
            yield {
                "task": task,
                "label": self.spelling[label],
                **{kind: counts[kind] for kind in _COUNTS},
                "f1": 2 * counts["hits"] / (counts["predicted"] + counts["expected"]),
            }


@torch.no_grad()
def measure_held_out(
    trainer: Trainer, batches: Iterable[tuple[Sequence[Loaded], bool]], config: TrainConfig
) -> HeldOut:
    """Measure on a worker's share of the held-out examples; every worker gets the sums over all of them.

    Parameters
    ----------
    trainer
        Whose model is measured; it is not changed.
    batches
        Examples, and whether they count (see `held_out_batches`).
    config
        The run's settings.
    """
    objective, worker = trainer.objective, trainer.worker
    objective.eval()
    measured = HeldOut()
    for examples, real in batches:
        batch = trainer.prepare(examples)
        with autocast(config, worker.device):
            sums = objective(batch)
            answers = _answers(objective, examples, config) if config.evaluation.generate else []
        if not real:
            continue
        measured.correct += sums.correct.item()
        measured.tokens += batch.tokens
        for example, words, tokens in zip(
            examples, sums.each_B.tolist(), batch.example_tokens(), strict=True
        ):
            measured.add_loss(example.task, words, tokens)
        expected = [(example.task, text) for example in examples for _, text in example.questions]
        for (task, text), answer in zip(expected, answers, strict=False):
            measured.add_answer(task, text, answer)
    return measured.over_all(worker)


def _answers(objective: Objective, examples: Sequence[Loaded], config: TrainConfig) -> list[str]:
    prompts = [prompt for example in examples for prompt, _ in example.questions]
    owners = [i for i, example in enumerate(examples) for _ in example.questions]
    batch_waveforms = [torch.from_numpy(example.waveform) for example in examples]
    waveforms_BS = torch.nn.utils.rnn.pad_sequence(batch_waveforms, batch_first=True)
    return objective.generate(waveforms_BS[owners], prompts, config.evaluation.max_new_tokens)
