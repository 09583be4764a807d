"""Average precision of probes with few examples, on stations that they were not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from naturelm.embeddings.probe_training import average_precision, logistic_regression


def measure_probes(unit: np.ndarray, labels: np.ndarray, stations: np.ndarray) -> dict[str, Any]:
    """By examples of each class: the mean over classes and held-out stations, with a 95 % bootstrap interval."""
    found = {}
    fit = logistic_regression(0)
    for number in (5, 10, 20):
        scores = []
        for held in sorted(set(stations)):
            rng = np.random.default_rng(number)
            inside, outside = np.flatnonzero(stations != held), np.flatnonzero(stations == held)
            chosen = np.concatenate(
                [rng.permutation(inside[labels[inside] == label])[:number] for label in sorted(set(labels))]
            )
            for label in sorted(set(labels)):
                weights, bias = fit(unit[chosen], labels[chosen] == label)
                logits = unit[outside] @ weights + bias
                scores.append(average_precision(logits, labels[outside] == label))
        rng = np.random.default_rng(0)
        draws = [np.mean(rng.choice(scores, len(scores))) for _ in range(1000)]
        low, high = np.quantile(draws, (0.025, 0.975))
        found[str(number)] = [round(float(value), 3) for value in (np.mean(scores), low, high)]
    return found
