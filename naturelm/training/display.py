"""Progress of a training run: a display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from naturelm.text import printable

_LINE_EVERY_S = 15.0
_SHOWN = {
    "loss": "loss {:.4f}",
    "token_accuracy": "tokens right {:.1%}",
    "learning_rate": "rate {:.2e}",
    "seconds_per_step": "{:.2f} s a step",
}


class TrainProgress:
    """Shows the step, loss, rate and time left, and each evaluation.

    Parameters
    ----------
    console : Console, optional
        Where to print; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._bar = Bar(
            TextColumn("step {task.completed} of {task.total}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            expand=True,
        )
        self._steps, self._skipped = 0, 0
        self._printed_at_s = -math.inf

    def start(self, steps: int, done: int, examples: int, held_out: int) -> None:
        """Report the work: steps in all and done before, examples to train on and held out."""
        self._steps = steps
        before = f", {done} of them done before" if done else ""
        self.report(f"{steps} steps{before}; {examples} examples, {held_out} held out")
        if self._console.is_terminal:
            self._task = self._bar.add_task("", total=steps, completed=done, figures="starting")
            self._live = Live(self._bar, console=self._console, refresh_per_second=2)
            self._live.start()

    def row(self, row: dict[str, Any]) -> None:
        """Show one row of the metrics."""
        skipped = row.get("skipped", self._skipped)
        if skipped > self._skipped:
            self.report(f"step {row['step']}: {skipped} steps skipped so far, their loss was not finite")
            self._skipped = skipped
        held_out = {k.removeprefix("held_out_"): v for k, v in row.items() if k.startswith("held_out_")}
        # By task they would fill the screen: `train report` draws them.
        held_out = {name: value for name, value in held_out.items() if ":" not in name}
        if held_out:
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in held_out.items())
            self.report(f"step {row['step']}, held out: {figures}")
            return
        text = ", ".join(form.format(row[name]) for name, form in _SHOWN.items() if name in row)
        if self._live is not None:
            self._bar.update(self._task, completed=row["step"], figures=text)
        elif time.monotonic() - self._printed_at_s >= _LINE_EVERY_S or row["step"] == self._steps:
            self._printed_at_s = time.monotonic()
            self.report(f"step {row['step']} of {self._steps}, {text}")

    def report(self, line: str) -> None:
        """Print one line, above the display where there is one."""
        self._console.print(escape(printable(line)), highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Remove the display."""
        if self._live is not None:
            self._live.stop()
            self._live = None
