"""What a run shows while it works: a display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from naturelm.text import printable

if TYPE_CHECKING:
    from naturelm.pipeline.counts import Counts

_LINE_EVERY_S = 15.0
_STARTING = "starting workers and loading the model"


class Progress:
    """Tells hours done and left, the rate, detections so far and recordings that failed.

    Parameters
    ----------
    console : Console, optional
        Where to tell it; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._bar = Bar(
            TextColumn("{task.fields[done]} of {task.fields[total_h]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=self._console,
            expand=True,
        )
        self._total_s = 0.0
        self._began = self._told = time.monotonic()
        self._failures = 0

    def start(self, total_s: float, recordings: int, done_before: int) -> None:
        """Announce the work: seconds of sound to answer, recordings found and those done by earlier runs."""
        self._total_s = total_s
        before = f", {done_before} of them done before" if done_before else ""
        self.say(f"{recordings} recordings{before}; {hours(total_s)} of sound to answer")
        if not total_s:
            return
        if self._console.is_terminal:
            self._task = self._bar.add_task(
                "", total=total_s, done="0", total_h=hours(total_s), said=_STARTING
            )
            self._live = Live(self._bar, console=self._console, refresh_per_second=4)
            self._live.start()
        else:
            self.say(_STARTING)

    def update(self, counts: Counts) -> None:
        """Show how far the run has come."""
        for failure in counts.failures[self._failures :]:
            self.say(failure)
        self._failures = len(counts.failures)
        elapsed_s = time.monotonic() - self._began
        rate = counts.sound_s / elapsed_s if elapsed_s else 0.0
        said = (
            f"{rate:.0f} × real time, {counts.detections.total()} detections, {len(counts.failures)} failed"
        )
        if self._live is not None:
            done = f"{counts.sound_s / (3600 if self._total_s >= 3600 else 60):.1f}"
            self._bar.update(self._task, completed=counts.sound_s, done=done, said=said)
        elif self._total_s and time.monotonic() - self._told >= _LINE_EVERY_S:
            self._told = time.monotonic()
            left = f", {(self._total_s - counts.sound_s) / rate:.0f} s left" if rate else ""
            self.say(f"{hours(counts.sound_s)} of {hours(self._total_s)}, {said}{left}")

    def say(self, line: str) -> None:
        """Print one line, above the display where there is one."""
        self._console.print(escape(printable(line)), highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the display down."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def hours(seconds: float) -> str:
    """Seconds as hours, or as minutes where that says more."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
