"""A plot of a training run: loss, learning rate and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naturelm.errors import NaturelmError
from naturelm.training.store import RunStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HELD_OUT = "held_out_"
# From so many rows on, single steps hide the trend: a running mean is drawn over them.
_MANY_ROWS = 100


def plot_run(storage: str, output: Path) -> None:
    """Plot a run's metrics into an image; its suffix determines the format.

    Raises
    ------
    NaturelmError
        The run does not exist, it has no metrics yet, or the image cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    store = RunStore(storage)
    config = store.config()
    rows = list(store.metrics())
    if not rows:
        raise NaturelmError(f"{storage}: has no metrics yet; train first")
    if output.suffix.lstrip(".").lower() not in pyplot.gcf().canvas.get_supported_filetypes():
        raise NaturelmError(
            f"{output}: unknown image format; give --out a name that ends in .png, .svg or .pdf"
        )
    names = {name for row in rows for name in row if name.startswith(_HELD_OUT)} - {"held_out_loss"}
    over_all = sorted(name for name in names if ":" not in name)
    by_task = sorted(name for name in names if ":" in name and not name.startswith("held_out_loss:"))
    shares = [(title, drawn) for title, drawn in (("held out", over_all), ("by task", by_task)) if drawn]
    height = 2 + len(shares)
    figure, panels = pyplot.subplots(
        height, 1, figsize=(9, 3 * height), sharex=True, layout="constrained", squeeze=False
    )
    panels = panels[:, 0]
    _draw_loss(panels[0], rows)
    _draw(panels[1], rows, "learning_rate", "learning rate", color="tab:green")
    panels[1].set_ylabel("learning rate")
    for panel, (title, drawn) in zip(panels[2:], shares, strict=True):
        for name in drawn:
            _draw(panel, rows, name, name.removeprefix(_HELD_OUT).replace("_", " "), marker="o")
        panel.set(ylabel=title, ylim=(0, 1))
        panel.legend(fontsize="small")
    panels[-1].set_xlabel("step")
    skipped = max(row.get("skipped", 0) for row in rows)
    note = f", {skipped} skipped" if skipped else ""
    figure.suptitle(f"{storage}: {rows[-1]['step']} of {config.optimisation.steps} steps{note}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=120)
    except OSError as error:
        raise NaturelmError(f"{output}: cannot be written ({error.strerror}); check --out") from None
    finally:
        pyplot.close(figure)


def _draw_loss(panel: Axes, rows: Sequence[dict[str, Any]]) -> None:
    many = sum("loss" in row for row in rows) >= _MANY_ROWS
    _draw(panel, rows, "words", "answers", smooth=many, color="tab:blue")
    _draw(panel, rows, "auxiliary", "labels present", smooth=many, color="tab:gray")
    _draw(panel, rows, "held_out_loss", "held out", marker="o", color="tab:orange")
    panel.set(ylabel="loss", ylim=(0, None))
    panel.legend()


def _draw(
    panel: Axes, rows: Sequence[dict[str, Any]], name: str, label: str, smooth: bool = False, **style: Any
) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    if not points:
        return
    steps, values = [step for step, _ in points], [value for _, value in points]
    if smooth:
        panel.plot(steps, values, alpha=0.25, linewidth=0.8, **style)
        values = _running_mean(values)
    panel.plot(steps, values, label=label, **style)


def _running_mean(values: Sequence[float]) -> list[float]:
    share = 10 / len(values)
    means = [values[0]]
    for value in values[1:]:
        means.append((1 - share) * means[-1] + share * value)
    return means
