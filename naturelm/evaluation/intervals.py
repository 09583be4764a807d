"""Bootstrap intervals: examples are drawn repeatedly with replacement (Efron, 1979)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from naturelm.evaluation.metrics import Resampled
from naturelm.evaluation.scored import Scored

RESAMPLES = 1000
LEVEL = 0.95

Interval = tuple[float, float]

_CELLS_AT_ONCE = 2_000_000


def resample(*scored: Scored) -> list[Resampled]:
    """The figures of `RESAMPLES` resamples: ``[resamples]`` by name.

    Several sets of predictions about the same examples are resampled alike, so that their differences are paired: the
    draws depend only on the component's name and size.
    """
    predictions = scored[0].predictions
    parts: list[list[Resampled]] = [[] for _ in scored]
    for weights_BN in _draws(predictions.component, len(predictions)):
        for found, one in zip(parts, scored, strict=True):
            found.append(one.resampled(weights_BN))
    return [{name: np.concatenate([part[name] for part in found]) for name in found[0]} for found in parts]


def interval(values_B: NDArray[np.float64]) -> Interval:
    """The middle `LEVEL` of resampled values: the percentile interval."""
    low, high = np.quantile(values_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def p_value(differences_B: NDArray[np.float64]) -> float:
    """Two-sided bootstrap p-value: twice the share of resampled differences on the other side of 0."""
    beyond = min(int((differences_B <= 0).sum()), int((differences_B >= 0).sum()))
    # One is added to both counts: the p-value of a finite number of resamples is never 0.
    return min(1.0, 2 * (beyond + 1) / (len(differences_B) + 1))


def _draws(name: str, examples: int) -> Iterator[NDArray[np.float32]]:
    """How often each example is drawn in each resample, some resamples at once."""
    rng = np.random.default_rng(zlib.crc32(name.encode("utf-8", "surrogatepass")))
    at_once = max(1, _CELLS_AT_ONCE // examples)
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        drawn_BN = rng.integers(examples, size=(count, examples)) + examples * np.arange(count)[:, None]
        times = np.bincount(drawn_BN.ravel(), minlength=count * examples)
        yield times.reshape(count, examples).astype(np.float32)
