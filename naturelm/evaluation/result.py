"""The result of an evaluation, component by component."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from naturelm.errors import NaturelmError
from naturelm.evaluation.captions import CIDER_ONLY, missing_for_spice
from naturelm.evaluation.components import BEANS_ZERO
from naturelm.evaluation.intervals import Interval, interval, resample
from naturelm.evaluation.matching import Match
from naturelm.evaluation.metrics import Figures
from naturelm.evaluation.predictions import Predictions
from naturelm.evaluation.scored import Scored, Ties, score
from naturelm.text import one_line


@dataclass(frozen=True, slots=True)
class ComponentResult:
    """A model's scores on one component.

    Attributes
    ----------
    predictions : Predictions
        The scored predictions.
    figures : dict
        The official figures by name.
    intervals : dict
        Their 95 % bootstrap intervals.
    by_label : list of dict
        Precision, recall and F1 by label.
    confusions : list
        True label, answered label and count; the most frequent first.
    out_of_vocabulary : list
        Answers, or pieces of them, that are not labels, and their counts; the most frequent first.
    ties : Ties, optional
        Answers equally near to several labels.
    rows : dict
        For each example `matched` and `correct`.
    """

    predictions: Predictions
    figures: Figures
    intervals: dict[str, Interval]
    by_label: list[dict[str, Any]]
    confusions: list[tuple[str, str, int]]
    out_of_vocabulary: list[tuple[Match, int]]
    ties: Ties | None
    rows: dict[str, list[Any]] = field(repr=False)

    @property
    def name(self) -> str:
        return self.predictions.component

    @property
    def main_metric(self) -> str | None:
        """The figure that is usually reported; None where no row has a label."""
        return next(iter(self.figures), None)


def evaluate_components(
    predictions: Iterable[Predictions], require_spider: bool = False
) -> tuple[list[ComponentResult], list[str]]:
    """Score predictions.

    Parameters
    ----------
    predictions
        By component.
    require_spider
        Refuse to score captions by CIDEr alone.

    Returns
    -------
    tuple
        A result for each component, in order, and notes for the reader.

    Raises
    ------
    NaturelmError
        SPIDEr is required and cannot be computed here.
    """
    predictions = list(predictions)
    lacking = missing_for_spice({part.scoring for part in predictions})
    if lacking and require_spider:
        raise NaturelmError(
            f"SPIDEr cannot be computed: {lacking}; leave out --require-spider for CIDEr alone"
        )
    results = [_result(score(part, spice=lacking is None)) for part in predictions]
    notes = [note for result in results for note in _notes(result)]
    if lacking:
        notes.append(CIDER_ONLY.format(lacking))
    return results, notes


def _result(scored: Scored) -> ComponentResult:
    (resampled,) = resample(scored)
    return ComponentResult(
        scored.predictions,
        scored.figures(),
        {name: interval(values) for name, values in resampled.items()},
        scored.by_label(),
        [(label, other, count) for (label, other), count in _frequent(scored.confusions())],
        _frequent(scored.out_of_vocabulary()),
        scored.ties,
        scored.rows(),
    )


def _frequent(counts: Any) -> list[tuple[Any, int]]:
    """The most frequent first, those of one frequency by name."""

    def key(item: tuple[Any, int]) -> tuple[int, Any]:
        return -item[1], item[0].text if isinstance(item[0], Match) else item[0]

    return sorted(counts.items(), key=key)


def _notes(result: ComponentResult) -> list[str]:
    part, name, notes = result.predictions, one_line(result.name, 60), []
    if part.component not in BEANS_ZERO:
        notes.append(
            f"{name}: not in BEANS-Zero; scored as {part.scoring} by its task {one_line(part.task, 60)}"
        )
    if part.unanswered:
        notes.append(f"{name}: {part.unanswered} of {len(part)} rows have no answer and count as wrong")
    if not result.figures:
        notes.append(f"{name}: no row has a label, so there is nothing to average")
    elif result.ties:
        metric, ties = str(result.main_metric), result.ties
        low, high = ties.bounds(metric)
        count = len(ties.matches)
        several = "1 answer is" if count == 1 else f"{count} different answers are"
        notes.append(
            f"{name}: {several} equally near to several labels; {metric} is {result.figures[metric]:.4f} (as the "
            f"official tool with PYTHONHASHSEED=0), {ties.first_sorted[metric]:.4f} with the first label in sorted "
            f"order, and between {low:.4f} and {high:.4f} with other choices"
        )
    return notes
