"""The figures of BEANS-Zero's official tool, written plainly from its description: what ours are compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch


def distance(one: str, other: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, mark in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != mark))
    return row[-1]


def nearest(text: str, labels: Sequence[str], limit: int | None = None) -> str:
    text = text.split("<|end_of_text|>")[0]
    if text in labels:
        return text
    best = min(labels, key=lambda label: distance(text, label))
    return best if limit is None or distance(text, best) <= limit else "None"


def _rates(truth: Sequence[bool], answer: Sequence[bool]) -> tuple[float, float, float]:
    hits = sum(a and b for a, b in zip(truth, answer, strict=True))
    precision = hits / sum(answer) if any(answer) else 0.0
    recall = hits / sum(truth) if any(truth) else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0


def classification(answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    vocabulary = list(dict.fromkeys(labels))
    chosen = [nearest(answer, vocabulary) for answer in answers]
    size = len(labels)
    correct = sum(a == b for a, b in zip(chosen, labels, strict=True))
    weighted = [0.0, 0.0, 0.0]
    for label, count in Counter(labels).items():
        rates = _rates([own == label for own in labels], [own == label for own in chosen])
        weighted = [total + rate * count / size for total, rate in zip(weighted, rates, strict=True)]
    in_list = sum(a in [part.strip() for part in b.split(",")] for a, b in zip(chosen, labels, strict=True))
    return {
        "Accuracy": correct / size,
        "Precision": weighted[0],
        "Recall": weighted[1],
        "F1 Score": weighted[2],
        "Top-1 Accuracy": in_list / size,
    }


def detection(answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    vocabulary = [*dict.fromkeys(labels), "None"]
    truth = [{part.strip() for part in label.split(",")} - {"None"} for label in labels]
    chosen = [{nearest(part.strip(), vocabulary, 5) for part in answer.split(",")} for answer in answers]
    chosen = [{part.strip() for label in row for part in label.split(",")} for row in chosen]
    rates, precisions = [], []
    for label in sorted(set().union(*truth)):
        there, said = [label in row for row in truth], [label in row for row in chosen]
        rates.append(_rates(there, said))
        order = torch.sort(torch.tensor(said).float(), 0, True)[1]
        hits = torch.tensor(there)[order].float()
        precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1).float()
        precisions.append(precision[hits.bool()].sum() / max(float(hits.sum()), 1))
    precision, recall, f1 = (sum(values) / len(values) for values in zip(*rates, strict=True))
    return {"mAP": float(torch.stack(precisions).mean()), "F1": f1, "Recall": recall, "Precision": precision}
