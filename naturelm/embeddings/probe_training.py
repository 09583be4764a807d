"""Training a probe, and what its report says: everything that is measured is of windows it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturelm.embeddings.examples import Examples
from naturelm.embeddings.probe_model import Probe
from naturelm.embeddings.vectors import StoredVectors
from naturelm.errors import NaturelmError

# Inverse strength of the regularisation. Vectors have length 1, so that it means the same for every encoder.
_C = 100.0
_FOLDS = 5
_LEAST = 2
_RECALLS = (0.5, 0.8, 0.9)
_BINS = 5
_CURVE = (5, 10, 20, 50, 100, 200, 500)

_Fit = Callable[[NDArray[np.float32], NDArray[np.bool_]], tuple[NDArray[np.float64], float]]


def train_probe(stored: StoredVectors, examples: Examples, label: str, seed: int) -> Probe:
    """Fit a probe and cross-validate it by recording and by station.

    Raises
    ------
    NaturelmError
        There are fewer than two windows with the label, or without it.
    """
    present = int(examples.present.sum())
    absent = len(examples.present) - present
    if present < _LEAST or absent < _LEAST:
        raise NaturelmError(
            f"--label: {present} windows with {label!r} and {absent} without; a probe needs at least {_LEAST} of "
            "each: review more, windows without it included"
        )
    fit = logistic_regression(seed)
    weights, bias = fit(examples.vectors, examples.present)
    report: dict[str, Any] = {}
    for name, groups in (("recordings", examples.recordings), ("stations", examples.stations)):
        scores = _held_out(fit, examples, groups)
        report[f"by_{name}"] = None if scores is None else _measured(scores, examples.present, seed)
    report["learning_curve"] = _learning_curve(fit, examples, seed)
    report["more_reviews"] = _advice(report["learning_curve"])
    stations = sorted(set(examples.stations))
    return Probe(
        label,
        stored.analysis.encoder,
        stored.analysis.revision,
        stored.pooling,
        tuple(float(f"{weight:.7g}") for weight in weights),
        float(f"{bias:.7g}"),
        trained={
            "present": present,
            "absent_reviewed": int((examples.reviewed & ~examples.present).sum()),
            "absent_drawn": int((~examples.reviewed).sum()),
            "recordings": len(set(examples.recordings)),
            "stations": stations,
            "directory": str(stored.directory),
            "seed": seed,
        },
        report=report,
    )


def logistic_regression(seed: int) -> _Fit:
    """What fits a probe's weights and bias to vectors of length 1 and whether the label is there.

    Raises
    ------
    NaturelmError
        scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise NaturelmError(
            "training a probe needs scikit-learn; install it with: pip install 'naturelm[evaluate]'"
        ) from None

    def fit(vectors: NDArray[np.float32], present: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
        model = LogisticRegression(C=_C, class_weight="balanced", max_iter=2000, random_state=seed)
        model.fit(vectors.astype(np.float64), present)
        return model.coef_[0], float(model.intercept_[0])

    return fit


def _folds(groups: Sequence[str], present: NDArray[np.bool_]) -> list[NDArray[np.intp]] | None:
    """Windows of each fold, groups kept together; None where the label is in one group only."""
    names = np.array(groups)
    with_label = sorted({group for group, is_there in zip(groups, present, strict=True) if is_there})
    if len(with_label) < 2 or len(set(groups)) < 2:
        return None
    count = min(_FOLDS, len(with_label))
    fold_of = {group: number % count for number, group in enumerate(with_label)}
    others = sorted(set(groups) - set(with_label))
    fold_of |= {group: number % count for number, group in enumerate(others)}
    folds = np.array([fold_of[name] for name in names.tolist()])
    return [np.flatnonzero(folds == number) for number in range(count)]


def _held_out(fit: _Fit, examples: Examples, groups: Sequence[str]) -> NDArray[np.float64] | None:
    """Each window's logit by a probe that saw none of its group; NaN where there is none."""
    folds = _folds(groups, examples.present)
    if folds is None:
        return None
    return _logits(fit, examples, folds, lambda rest: rest)


def _logits(
    fit: _Fit,
    examples: Examples,
    folds: Sequence[NDArray[np.intp]],
    choose: Callable[[NDArray[np.intp]], NDArray[np.intp]],
) -> NDArray[np.float64]:
    """Each window's logit by a probe of what `choose` takes of the other folds; NaN where that is all of one kind."""
    logits = np.full(len(examples.present), np.nan)
    for held in folds:
        used = choose(np.setdiff1d(np.arange(len(logits)), held))
        if len(set(examples.present[used].tolist())) < 2:
            continue
        weights, bias = fit(examples.vectors[used], examples.present[used])
        logits[held] = examples.vectors[held] @ weights + bias
    return logits


def average_precision(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Average precision of a ranking, with scikit-learn."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(present, scores))


def _measured(logits: NDArray[np.float64], present: NDArray[np.bool_], seed: int) -> dict[str, Any] | None:
    from sklearn.metrics import precision_recall_curve

    known = ~np.isnan(logits)
    logits, present = logits[known], present[known]
    if len(set(present.tolist())) < 2:
        return None
    precision, recall, _ = precision_recall_curve(present, logits)
    scores = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(200):
        chosen = rng.integers(0, len(present), len(present))
        if present[chosen].any():
            draws.append(average_precision(logits[chosen], present[chosen]))
    edges = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    return {
        "average_precision": round(average_precision(logits, present), 4),
        "interval": [round(float(value), 4) for value in np.quantile(draws, (0.025, 0.975))],
        "chance": round(float(present.mean()), 4),
        "precision_at_recall": {
            f"{wanted:g}": round(float(precision[recall >= wanted].max()), 4) for wanted in _RECALLS
        },
        "calibration": [
            {
                "scores": [number / _BINS, (number + 1) / _BINS],
                "windows": int((edges == number).sum()),
                "present": round(float(present[edges == number].mean()), 4)
                if (edges == number).any()
                else None,
            }
            for number in range(_BINS)
        ],
    }


def _learning_curve(fit: _Fit, examples: Examples, seed: int) -> list[dict[str, Any]]:
    """Average precision with fewer windows of the label, on recordings that were held out."""
    folds = _folds(examples.recordings, examples.present)
    if folds is None:
        return []
    rng = np.random.default_rng(seed)
    total = int(examples.present.sum())
    curve = []
    for number in [*(size for size in _CURVE if size < total), total]:

        def choose(rest: NDArray[np.intp], number: int = number) -> NDArray[np.intp]:
            present = rest[examples.present[rest]]
            fewer = rng.permutation(present)[: max(1, round(number * len(present) / total))]
            return np.concatenate([fewer, rest[~examples.present[rest]]])

        found = []
        for _ in range(1 if number == total else 3):
            logits = _logits(fit, examples, folds, choose)
            known = ~np.isnan(logits)
            if examples.present[known].any():
                found.append(average_precision(logits[known], examples.present[known]))
        if found:
            curve.append({"present": number, "average_precision": round(float(np.mean(found)), 4)})
    return curve


def _advice(curve: Sequence[dict[str, Any]]) -> str:
    if len(curve) < 2:
        return "too few windows with the label, or in one recording only: review windows of other recordings"
    (before, after) = curve[-2:]
    gain = after["average_precision"] - before["average_precision"]
    step = f"from {before['present']} to {after['present']} windows average precision changed by {gain:+.3f}"
    if gain < 0.01:
        return f"{step}: more reviews like these would help little"
    return f"{step}: about {after['present']} more windows with the label are worth reviewing"
