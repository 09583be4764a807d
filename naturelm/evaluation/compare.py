"""Comparison of two sets of predictions about the same examples by a paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from naturelm.errors import NaturelmError
from naturelm.evaluation.captions import CIDER_ONLY, missing_for_spice
from naturelm.evaluation.differences import Difference
from naturelm.evaluation.intervals import interval, p_value, resample
from naturelm.evaluation.predictions import Predictions
from naturelm.evaluation.scored import score
from naturelm.storage import Location
from naturelm.text import one_line


def compare_predictions(
    first: Sequence[Predictions], second: Sequence[Predictions], names: tuple[object, object]
) -> tuple[list[Difference], list[str]]:
    """Compare all figures of the components that both sets have.

    Parameters
    ----------
    first, second
        The sets.
    names
        Their names, for messages.

    Returns
    -------
    tuple
        Differences, second minus first, and notes for the reader.

    Raises
    ------
    NaturelmError
        The sets share no component, or differ in a component's examples or labels.
    """
    others = {part.component: part for part in second}
    shared = [part for part in first if part.component in others]
    if not shared:
        listed = [", ".join(one_line(part.component, 60) for part in parts) for parts in (first, second)]
        raise NaturelmError(
            f"{names[0]} and {names[1]} share no component: the first has {listed[0]}, the second {listed[1]}"
        )
    notes = [
        f"{one_line(part.component, 60)} is only in {name} and is not compared"
        for parts, name, theirs in (
            (first, names[0], others),
            (second, names[1], {p.component for p in first}),
        )
        for part in parts
        if part.component not in theirs
    ]
    lacking = missing_for_spice({part.scoring for part in shared})
    if lacking:
        notes.append(CIDER_ONLY.format(lacking))
    differences = []
    for part in shared:
        scored = [
            score(one, spice=lacking is None) for one in (part, _paired(part, others[part.component], names))
        ]
        resampled = resample(*scored)
        figures = [one.figures() for one in scored]
        for metric in figures[0]:
            apart = resampled[1][metric] - resampled[0][metric]
            values = figures[0][metric], figures[1][metric]
            differences.append(
                Difference(part.component, metric, len(part), *values, interval(apart), p_value(apart))
            )
    return differences, notes


def _paired(first: Predictions, second: Predictions, names: tuple[object, object]) -> Predictions:
    """The second set in the order of the first."""
    component = one_line(first.component, 60)
    if len(first) != len(second):
        raise NaturelmError(
            f"{component}: {names[0]} has {len(first)} rows, {names[1]} {len(second)}; compare predictions about the "
            "same examples"
        )
    place = {row_id: number for number, row_id in enumerate(second.ids)}
    missing = [row_id for row_id in first.ids if row_id not in place]
    if missing:
        raise NaturelmError(
            f"{component}: {names[1]} lacks {len(missing)} ids of {names[0]}, such as {one_line(missing[0], 60)!r}; "
            "compare predictions about the same examples"
        )
    order = [place[row_id] for row_id in first.ids]
    labels = [second.labels[number] for number in order]
    for row_id, mine, other in zip(first.ids, first.labels, labels, strict=True):
        if mine != other:
            raise NaturelmError(
                f"{component}: id {one_line(row_id, 60)!r} has label {one_line(mine, 60)!r} in {names[0]} and "
                f"{one_line(other, 60)!r} in {names[1]}; compare predictions about the same examples"
            )
    return replace(second, ids=first.ids, labels=labels, answers=[second.answers[number] for number in order])


def short_name(place: Location) -> str:
    """The name of a set in plots and tables: the last part of its path."""
    return (place.resolve() if isinstance(place, Path) else place).name
