"""Measures of a model on held-out examples: loss, token accuracy, exact answers and F1 of labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from naturelm.labels import normal_form, parse_labels
from naturelm.training.data import Loaded
from naturelm.training.objective import Objective
from naturelm.training.settings import TrainConfig
from naturelm.training.step import Trainer, autocast
from naturelm.training.tasks import is_detection


@torch.no_grad()
def measure_held_out(
    trainer: Trainer, batches: Iterable[tuple[Sequence[Loaded], bool]], config: TrainConfig
) -> dict[str, float]:
    """Measure on a worker's share of the held-out examples; every worker gets the figures over all of them.

    Parameters
    ----------
    trainer
        Whose model is measured; it is not changed.
    batches
        Examples, and whether they count (see `held_out_batches`).
    config
        The run's settings.

    Returns
    -------
    dict
        `loss` (mean over the answers' tokens), `token_accuracy`, and, where answers are generated, `exact` (share of
        answers equal to the text but for case and spaces) and, where there are detection tasks, `f1` of their
        labels, counted over all answers.
    """
    objective, worker = trainer.objective, trainer.worker
    objective.eval()
    words = correct = tokens = 0.0
    exact = questions = 0
    hits = predicted_count = expected_count = 0
    for examples, real in batches:
        batch = trainer.prepare(examples)
        with autocast(config, worker.device):
            sums = objective(batch)
            answers = _answers(objective, examples, config) if config.evaluation.generate else []
        if not real:
            continue
        words += sums.words.item()
        correct += sums.correct.item()
        tokens += batch.tokens
        expected_texts = [(example.task, text) for example in examples for _, text in example.questions]
        for (task, text), answer in zip(expected_texts, answers, strict=False):
            questions += 1
            exact += normal_form(answer) == normal_form(text)
            if is_detection(task):
                expected, predicted = _labels(text), _labels(answer)
                hits += len(expected & predicted)
                predicted_count += len(predicted)
                expected_count += len(expected)
    words, correct, tokens = worker.sum(words, correct, tokens)
    counts = worker.sum(exact, questions, hits, predicted_count, expected_count)
    metrics = {"loss": words / tokens, "token_accuracy": correct / tokens}
    if counts[1]:
        metrics["exact"] = counts[0] / counts[1]
    if counts[3] + counts[4]:
        metrics["f1"] = 2 * counts[2] / (counts[3] + counts[4])
    return metrics


def _answers(objective: Objective, examples: Sequence[Loaded], config: TrainConfig) -> list[str]:
    prompts = [prompt for example in examples for prompt, _ in example.questions]
    owners = [i for i, example in enumerate(examples) for _ in example.questions]
    batch_waveforms = [torch.from_numpy(example.waveform) for example in examples]
    waveforms_BS = torch.nn.utils.rnn.pad_sequence(batch_waveforms, batch_first=True)
    return objective.generate(waveforms_BS[owners], prompts, config.evaluation.max_new_tokens)


def _labels(text: str) -> set[str]:
    return {normal_form(label.name) for label in parse_labels(text)}
