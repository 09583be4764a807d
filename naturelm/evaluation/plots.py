"""Plots of an evaluation as PNG files, drawn without a display."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from naturelm.evaluation.components import MAX_VALUES
from naturelm.text import file_name, one_line

if TYPE_CHECKING:
    from naturelm.evaluation.differences import Difference
    from naturelm.evaluation.result import ComponentResult

MAX_PLOTTED_LABELS = 20

_COLOUR = "#0b6650"
_DPI = 150
_OTHER = "other or none"
# Smaller shares are not written into the matrix.
_LEAST_SHOWN = 0.05


def scores_plot(results: Sequence[ComponentResult]) -> bytes:
    """The main figure of every component, with its interval."""
    names, values, intervals = [], [], []
    for result in results:
        metric = result.main_metric
        if metric is not None:
            full = MAX_VALUES.get(metric, 1.0)
            names.append(_name(f"{result.name} ({metric}{f' / {full:g}' if full != 1 else ''})"))
            values.append(result.figures[metric] / full)
            low, high = result.intervals[metric]
            intervals.append((low / full, high / full))
    return _forest(names, values, intervals, "figure, with 95 % interval", from_zero=True)


def differences_plot(differences: Sequence[Difference], first: str, second: str) -> bytes:
    """The difference in every component's main figure, with its interval."""
    names = [_name(f"{part.component} ({part.metric})") for part in differences]
    return _forest(
        names,
        [part.difference / part.max_value for part in differences],
        [(part.interval[0] / part.max_value, part.interval[1] / part.max_value) for part in differences],
        f"{_name(second)} minus {_name(first)}, as a share of the largest possible value, with 95 % interval",
        from_zero=False,
    )


def confusion_plots(results: Sequence[ComponentResult]) -> dict[str, bytes]:
    """A confusion matrix of every classification component, of its most frequent labels, by file name."""
    return {
        f"confusions-{file_name(result.name)}.png": _matrix(result)
        for result in results
        if result.predictions.scoring == "classification"
    }


def _forest(
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    caption: str,
    from_zero: bool,
) -> bytes:
    figure = Figure(figsize=(7.0, 1.2 + 0.32 * max(1, len(names))), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(names))[::-1]
    axes.hlines(rows, [low for low, _ in intervals], [high for _, high in intervals], _COLOUR, lw=2)
    axes.plot(values, rows, "o", color=_COLOUR, ms=5)
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    if from_zero:
        axes.set_xlim(left=0)
    else:
        axes.axvline(0, color="#55615b", lw=1)
    axes.set_xlabel(caption)
    axes.grid(axis="x", color="#dcdfd8", lw=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _png(figure)


def _matrix(result: ComponentResult) -> bytes:
    labels = [row["label"] for row in result.by_label[:MAX_PLOTTED_LABELS]]
    number = {label: index for index, label in enumerate(labels)}
    correct = {row["label"]: row["correct"] for row in result.by_label}
    counts = np.zeros((len(labels), len(labels) + 1))
    for label, other, count in result.confusions:
        if label in number:
            counts[number[label], number.get(other, len(labels))] += count
    for label, index in number.items():
        counts[index, index] = correct[label]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_name(label) for label in labels]
    # Set by hand: matplotlib's own layout draws every figure twice.
    side, margin = 0.2 * (len(labels) + 1), 0.5 + 0.065 * max(map(len, [*names, _OTHER]))
    figure = Figure(figsize=(margin + side + 0.4, margin + side + 0.4))
    width, height = figure.get_size_inches()
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(labels) + 1), [*names, _OTHER], rotation=90, fontsize=7)
    axes.set_yticks(range(len(labels)), names, fontsize=7)
    axes.set_xlabel("answered label, as a share of the true label's examples", fontsize=8)
    axes.set_ylabel("true label", fontsize=8)
    more = len(result.by_label) - len(labels)
    axes.set_title(
        _name(result.name) + (f", its {len(labels)} most frequent labels" if more else ""), fontsize=9
    )
    for row, column in zip(*np.nonzero(shares >= _LEAST_SHOWN), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(
            column,
            row,
            f"{100 * shares[row, column]:.0f}",
            ha="center",
            va="center",
            fontsize=5,
            color=colour,
        )
    return _png(figure)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        # Labels may be in any script; what the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def _name(text: str) -> str:
    # Matplotlib takes text between dollar signs for a formula.
    return one_line(text, 50).replace("$", r"\$")
