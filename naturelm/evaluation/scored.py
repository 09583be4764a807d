"""A component's predictions, matched to its labels: figures, resamples, tables by label, confusions and ties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from naturelm.evaluation import matching, metrics
from naturelm.evaluation.captions import cider_scores, spice_scores
from naturelm.evaluation.components import MAX_VALUES
from naturelm.evaluation.matching import Match
from naturelm.evaluation.metrics import Figures, Resampled
from naturelm.evaluation.predictions import Predictions

NO_ANSWER = ""
"""The label of a row without an answer."""


@dataclass(frozen=True, slots=True)
class Ties:
    """Answers that are equally near to several labels, and the figures with other choices.

    Attributes
    ----------
    matches : tuple of Match
        The answers, each once.
    first_sorted : dict
        Figures with the first label in sorted order.
    fewest_right, most_right : dict
        Figures with the choices that make the fewest and the most answers right.
    """

    matches: tuple[Match, ...]
    first_sorted: Figures
    fewest_right: Figures
    most_right: Figures

    def bounds(self, metric: str) -> tuple[float, float]:
        """The lowest and the highest figure of these choices."""
        values = [choice[metric] for choice in (self.first_sorted, self.fewest_right, self.most_right)]
        return min(values), max(values)


class Scored(Protocol):
    """Predictions about one component, ready to be counted."""

    predictions: Predictions
    ties: Ties | None

    def figures(self) -> Figures:
        """The official figures."""

    def resampled(self, weights_BN: NDArray[np.float32]) -> Resampled:
        """The figures of resamples."""

    def by_label(self) -> list[dict[str, Any]]:
        """A row for each label, the most frequent first; none for captions."""

    def confusions(self) -> Counter[tuple[str, str]]:
        """How often one label was true and another was answered."""

    def out_of_vocabulary(self) -> Counter[Match]:
        """How often an answer, or a piece of it, was not a label."""

    def rows(self) -> dict[str, list[Any]]:
        """For each example `matched`, the label of its answer, and `correct`, how right that is, 0 to 1."""


def score(predictions: Predictions, spice: bool = False) -> Scored:
    """Match predictions to labels; `spice` also runs SPICE on captions."""
    if predictions.scoring == "classification":
        return ScoredClassification(predictions)
    if predictions.scoring == "detection":
        return ScoredDetection(predictions)
    return ScoredCaptions(predictions, spice)


class ScoredClassification:
    """One label for each example. The labels are the distinct whole texts of the truth."""

    def __init__(self, predictions: Predictions) -> None:
        self.predictions = predictions
        self._labels = sorted(set(predictions.labels))
        self._number = {label: number for number, label in enumerate(self._labels)}
        self._texts = [None if answer is None else matching.cut(answer) for answer in predictions.answers]
        self._matches = matching.match({text for text in self._texts if text is not None}, predictions.labels)
        self._truth = np.array([self._number[label] for label in predictions.labels])
        self._alternatives = [set(matching.pieces(label)) for label in predictions.labels]
        self._chosen = self._choose({})
        self._answer = self._numbers(self._chosen)
        self.ties = _ties(self._matches, self._row_gains(), self._figures_of)

    def figures(self) -> Figures:
        return self._figures(self._chosen, self._answer)

    def resampled(self, weights_BN: NDArray[np.float32]) -> Resampled:
        found = metrics.resampled_classification(self._truth, self._answer, weights_BN, len(self._labels))
        found["Top-1 Accuracy"] = metrics.resampled_mean(self._top_1(self._chosen), weights_BN)
        return found

    def by_label(self) -> list[dict[str, Any]]:
        count = len(self._labels)
        hits = np.bincount(self._truth[self._truth == self._answer], minlength=count)
        answered = np.bincount(self._answer, minlength=count + 1)[:count]
        support = np.bincount(self._truth, minlength=count)
        return _by_label(self._labels, hits, answered, support)

    def confusions(self) -> Counter[tuple[str, str]]:
        pairs = zip(self.predictions.labels, self._chosen, strict=True)
        return Counter((label, chosen) for label, chosen in pairs if label != chosen)

    def out_of_vocabulary(self) -> Counter[Match]:
        matches = (self._matches[text] for text in self._texts if text is not None)
        return Counter(match for match in matches if match.distance)

    def rows(self) -> dict[str, list[Any]]:
        return {
            "matched": [None if chosen == NO_ANSWER else chosen for chosen in self._chosen],
            "correct": (self._truth == self._answer).astype(float).tolist(),
        }

    def _choose(self, picks: Mapping[str, str]) -> list[str]:
        chosen = matching.choose(self._matches, picks)
        return [NO_ANSWER if text is None else chosen[text] for text in self._texts]

    def _numbers(self, chosen: list[str]) -> NDArray[np.int64]:
        return np.array([self._number.get(label, len(self._labels)) for label in chosen])

    def _figures_of(self, picks: Mapping[str, str]) -> Figures:
        chosen = self._choose(picks)
        return self._figures(chosen, self._numbers(chosen))

    def _figures(self, chosen: list[str], answer_N: NDArray[np.int64]) -> Figures:
        found = metrics.classification_figures(self._truth, answer_N)
        found["Top-1 Accuracy"] = float(self._top_1(chosen).sum() / len(chosen))
        return found

    def _top_1(self, chosen: list[str]) -> NDArray[np.float64]:
        # As in the official tool: an answer matched to a true label that lists several names is none of the names.
        return np.array(
            [label in alternatives for label, alternatives in zip(chosen, self._alternatives, strict=True)],
            dtype=float,
        )

    def _row_gains(self) -> Counter[tuple[str, str]]:
        """How often each text would be right with each label."""
        return Counter(
            (text, label)
            for text, label in zip(self._texts, self.predictions.labels, strict=True)
            if text is not None
        )


class ScoredDetection:
    """Any number of labels for each example, or None."""

    def __init__(self, predictions: Predictions) -> None:
        self.predictions = predictions
        self._named = [matching.named(label) for label in predictions.labels]
        self._labels = sorted({label for names in self._named for label in names})
        self._number = {label: number for number, label in enumerate(self._labels)}
        self._pieces = [
            [] if answer is None else [matching.cut(piece) for piece in matching.pieces(answer)]
            for answer in predictions.answers
        ]
        self._matches = matching.match(
            {piece for row in self._pieces for piece in row},
            [*predictions.labels, matching.NONE],
            matching.FARTHEST_DETECTION,
        )
        self._truth = self._matrix(self._named)
        self._chosen = self._choose({})
        self._answer = self._matrix(self._chosen)
        self.ties = _ties(self._matches, self._row_gains(), self._figures_of)

    def figures(self) -> Figures:
        return self._figures(self._answer)

    def resampled(self, weights_BN: NDArray[np.float32]) -> Resampled:
        if not self._labels:
            return {}
        return metrics.resampled_detection(self._truth, self._answer, weights_BN)

    def by_label(self) -> list[dict[str, Any]]:
        hits = (self._truth & self._answer).sum(axis=0)
        return _by_label(self._labels, hits, self._answer.sum(axis=0), self._truth.sum(axis=0))

    def confusions(self) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for names, chosen in zip(self._named, self._chosen, strict=True):
            missed = sorted(set(names) - set(chosen)) or [matching.NONE]
            added = sorted(set(chosen) - set(names)) or [matching.NONE]
            if (missed, added) != ([matching.NONE], [matching.NONE]):
                found.update((label, other) for label in missed for other in added)
        return found

    def out_of_vocabulary(self) -> Counter[Match]:
        matches = (self._matches[piece] for row in self._pieces for piece in row)
        return Counter(match for match in matches if match.distance)

    def rows(self) -> dict[str, list[Any]]:
        answered = [answer is not None for answer in self.predictions.answers]
        right = (self._truth == self._answer).all(axis=1) & np.array(answered)
        return {
            "matched": [
                ", ".join(dict.fromkeys(chosen)) or matching.NONE if there else None
                for chosen, there in zip(self._chosen, answered, strict=True)
            ],
            "correct": right.astype(float).tolist(),
        }

    def _choose(self, picks: Mapping[str, str]) -> list[list[str]]:
        chosen = matching.choose(self._matches, picks)
        # A label of the data may itself list several names.
        return [[name for piece in row for name in matching.named(chosen[piece])] for row in self._pieces]

    def _matrix(self, rows: list[list[str]]) -> NDArray[np.bool_]:
        found = np.zeros((len(rows), len(self._labels)), dtype=bool)
        for row, names in enumerate(rows):
            for name in names:
                found[row, self._number[name]] = True
        return found

    def _figures_of(self, picks: Mapping[str, str]) -> Figures:
        return self._figures(self._matrix(self._choose(picks)))

    def _figures(self, answer_NL: NDArray[np.bool_]) -> Figures:
        # Without any label there is nothing to average.
        return metrics.detection_figures(self._truth, answer_NL) if self._labels else {}

    def _row_gains(self) -> Counter[tuple[str, str]]:
        """True labels that each tied text would find with each of its choices, less the false ones."""
        gains: Counter[tuple[str, str]] = Counter()
        for names, row in zip(self._named, self._pieces, strict=True):
            for piece in row:
                match = self._matches[piece]
                for label in (match.label, *match.others) if match.others else ():
                    gains[piece, label] += sum(1 if name in names else -1 for name in matching.named(label))
        return gains


class ScoredCaptions:
    """A sentence for each example; nothing is matched or cut."""

    ties: Ties | None = None

    def __init__(self, predictions: Predictions, spice: bool) -> None:
        self.predictions = predictions
        texts = [answer or "" for answer in predictions.answers]
        answered = np.array([answer is not None for answer in predictions.answers], dtype=float)
        self._scores = {"cider": cider_scores(texts, predictions.labels) * answered}
        if spice:
            self._scores["spice"] = spice_scores(texts, predictions.labels) * answered
            spider = (self._scores["cider"] / MAX_VALUES["cider"] + self._scores["spice"]) / 2
            self._scores = {"spider_score": spider, **self._scores}

    def figures(self) -> Figures:
        found = {name: float(np.mean(scores)) for name, scores in self._scores.items()}
        if "spice" in found:
            # The official tool averages each half first.
            found["spider_score"] = (found["cider"] / MAX_VALUES["cider"] + found["spice"]) / 2
        return found

    def resampled(self, weights_BN: NDArray[np.float32]) -> Resampled:
        return {name: metrics.resampled_mean(scores, weights_BN) for name, scores in self._scores.items()}

    def by_label(self) -> list[dict[str, Any]]:
        return []

    def confusions(self) -> Counter[tuple[str, str]]:
        return Counter()

    def out_of_vocabulary(self) -> Counter[Match]:
        return Counter()

    def rows(self) -> dict[str, list[Any]]:
        return {
            "matched": [None] * len(self.predictions),
            "correct": (self._scores["cider"] / MAX_VALUES["cider"]).tolist(),
        }


def _by_label(
    labels: list[str], hits: NDArray[np.int64], answered: NDArray[np.int64], support: NDArray[np.int64]
) -> list[dict[str, Any]]:
    rows = [
        {
            "label": label,
            "examples": there,
            "answered": named,
            "correct": right,
            "precision": right / named if named else None,
            "recall": right / there if there else None,
            "f1": 2 * right / (named + there) if named + there else None,
        }
        for label, right, named, there in zip(
            labels, hits.tolist(), answered.tolist(), support.tolist(), strict=True
        )
    ]
    return sorted(rows, key=lambda row: (-row["examples"], row["label"]))


def _ties(
    matches: dict[str, Match],
    gains: Counter[tuple[str, str]],
    figures_of: Callable[[Mapping[str, str]], Figures],
) -> Ties | None:
    tied = matching.tied(matches)
    if not tied:
        return None
    first, worst, best = dict[str, str](), dict[str, str](), dict[str, str]()
    for match in tied:
        by_gain = {label: gains[match.text, label] for label in (match.label, *match.others)}
        first[match.text] = min(by_gain)
        worst[match.text] = min(by_gain, key=by_gain.__getitem__)
        best[match.text] = max(by_gain, key=by_gain.__getitem__)
    return Ties(tuple(tied), figures_of(first), figures_of(worst), figures_of(best))
