"""What a run reports while it works: a display on a terminal, plain lines elsewhere, a log file, JSON for machines."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from naturelm.archive.figures import Figures, Meter
from naturelm.errors import NaturelmError
from naturelm.machine import Gpu, read_gpus
from naturelm.text import duration, printable

if TYPE_CHECKING:
    from naturelm.archive.figures import Counts

_LINE_EVERY_S = 15.0
_JSON_EVERY_S = 5.0
_GPUS_EVERY_S = 10.0
_LOOK_EVERY_S = 0.2
_STARTING = "starting workers and loading the model"

Listener = Callable[[Figures], None]


class _Terminal(io.TextIOBase):
    """Standard error; when the terminal is closed, writing stops and the run continues."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_gone = False

    def write(self, text: str) -> int:
        if not self._is_gone:
            try:
                self._stream.write(text)
            except (OSError, ValueError):  # ValueError: the stream was closed
                self._is_gone = True
        return len(text)

    def flush(self) -> None:
        if not self._is_gone:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._is_gone = True

    def isatty(self) -> bool:
        return not self._is_gone and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


class Progress:
    """Tells hours done and left, the rate, queues, GPUs, detections so far and recordings that failed.

    Figures are reported at regular times, by a separate thread, whether results come or not.

    Parameters
    ----------
    console : Console, optional
        Where people read it; standard error by default.
    log_file : Path, optional
        Plain lines with the time are added here, display or not.
    json_lines : text file, optional
        Every event as a JSON object, one per line.

    Raises
    ------
    NaturelmError
        The log file cannot be written.
    """

    def __init__(
        self,
        console: Console | None = None,
        log_file: Path | None = None,
        json_lines: IO[str] | None = None,
    ) -> None:
        self._console = console or Console(file=cast("TextIO", _Terminal(sys.stderr)))
        self._json_lines = json_lines
        self._log: IO[str] | None = None
        if log_file is not None:
            try:
                self._log = log_file.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
            except OSError as error:
                raise NaturelmError(
                    f"{log_file}: cannot be written ({error.strerror}); give --log-file another path"
                ) from None
        self._live: Live | None = None
        self._bar = Bar(
            TextColumn("{task.fields[done]} of {task.fields[total_sound]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            expand=True,
        )
        self._meter = Meter(0.0)
        self._queues: Mapping[str, int] = {}
        self._gpus: tuple[Gpu, ...] = ()
        self._cluster: Mapping[str, float] = {}
        self._looked = 0.0
        self._failures = 0
        self._listeners: list[tuple[Listener, float]] = []
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None
        self._writing = threading.Lock()
        self._reading = threading.Lock()

    def also(self, listener: Listener, every_s: float) -> None:
        """Report the figures to a function too, every so many seconds and at the end, from another thread.

        An OSError that it raises is passed over: the run meets the same trouble itself and says so.
        """
        self._listeners.append((listener, every_s))

    def start(self, total_s: float, recordings: int, done_before: int) -> None:
        """Announce the work: seconds of sound to answer, recordings found and those done by earlier runs."""
        before = f", {done_before} of them done before" if done_before else ""
        self._line(f"{recordings} recordings{before}; {duration(total_s)} of sound to answer")
        self.emit("start", recordings=recordings, done_before=done_before, total_s=round(total_s, 1))
        if not total_s:
            return
        self._meter = Meter(total_s)
        if self._console.is_terminal:
            self._task = self._bar.add_task(
                "", total=total_s, done="0", total_sound=duration(total_s), left=_STARTING
            )
            self._live = Live(get_renderable=self._display, console=self._console, refresh_per_second=2)
            self._live.start()
        else:
            self._line(_STARTING)
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def update(self, counts: Counts) -> None:
        """Take in how far the run has come."""
        for failure in counts.failures[self._failures :]:
            self._line(failure)
            self.emit("failure", text=failure)
        self._failures = len(counts.failures)
        # Often called: summing up thousands of labels each time would take the driver's time.
        if time.monotonic() - self._looked >= _LOOK_EVERY_S:
            self._meter.saw(counts)
            self._looked = time.monotonic()

    def show_queues(self, depths: Mapping[str, int]) -> None:
        """Show how much waits for each stage: as of this call, not of now."""
        self._queues = depths

    def show_cluster(self, cluster: Mapping[str, float]) -> None:
        """Show what the run has to work with; see `Figures.cluster`."""
        self._cluster = cluster

    def say(self, line: str) -> None:
        """Print one line, above the display where there is one."""
        self._line(line)
        self.emit("message", text=line)

    def emit(self, event: str, **values: Any) -> None:
        """Write one event for machines, where they listen."""
        if self._json_lines is None:
            return
        stamp = dt.datetime.now().astimezone().isoformat(timespec="seconds")
        line = json.dumps({"time": stamp, "event": event} | values, ensure_ascii=True)
        try:
            with self._writing:
                self._json_lines.write(line + "\n")
                self._json_lines.flush()
        except OSError as error:
            # Nobody reads any more; the run continues.
            self._json_lines = None
            self._line(f"no more JSON lines are written ({error.strerror})")

    def stop(self, counts: Counts | None = None) -> None:
        """Remove the display, and report the last figures."""
        if counts is not None:
            self.update(counts)
            self._meter.saw(counts)
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
            self._ticker = None
            self._tell_figures()
            self._tell_listeners([listener for listener, _ in self._listeners])
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def figures(self) -> Figures:
        """How far the run has come."""
        # Asked by the display's thread and by this class's own.
        with self._reading:
            return self._meter.read(self._queues, self._gpus, self._cluster)

    def _tick(self) -> None:
        due = {
            "gpus": 0.0,
            "line": time.monotonic() + _LINE_EVERY_S,
            "json": time.monotonic() + _JSON_EVERY_S,
        }
        reported_at = [time.monotonic()] * len(self._listeners)
        while not self._ended.wait(0.5):
            now = time.monotonic()
            if now >= due["gpus"]:
                due["gpus"] = now + _GPUS_EVERY_S
                self._gpus = read_gpus()
            if now >= due["json"]:
                due["json"] = now + _JSON_EVERY_S
                self.emit("progress", **self.figures.as_json())
            if now >= due["line"]:
                due["line"] = now + _LINE_EVERY_S
                self._tell_line()
            late = [
                number
                for number, (_, every_s) in enumerate(self._listeners)
                if now - reported_at[number] >= every_s
            ]
            self._tell_listeners([self._listeners[number][0] for number in late])
            for number in late:
                reported_at[number] = now

    def _tell_figures(self) -> None:
        self.emit("progress", **self.figures.as_json())
        self._tell_line()

    def _tell_line(self) -> None:
        line = str(self.figures)
        if self._live is None:
            self._print(line)
        self._write_log(line)

    def _tell_listeners(self, listeners: list[Listener]) -> None:
        for listener in listeners:
            try:
                listener(self.figures)
            except OSError:
                continue

    def _display(self) -> Group:
        figures = self.figures
        unit = 3600 if figures.total_s >= 3600 else 60
        left = figures.left or ("" if figures.segments else _STARTING)
        self._bar.update(
            self._task, completed=figures.sound_s, done=f"{figures.sound_s / unit:.1f}", left=left
        )
        return Group(self._bar, Text(printable(figures.rates), overflow="ellipsis", no_wrap=True))

    def _line(self, line: str) -> None:
        self._print(line)
        self._write_log(line)

    def _print(self, line: str) -> None:
        self._console.print(escape(printable(line)), highlight=False, soft_wrap=True)

    def _write_log(self, line: str) -> None:
        if self._log is None:
            return
        stamp = dt.datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            with self._writing:
                self._log.write(f"{stamp} {printable(line)}\n")
        except OSError as error:
            # The run continues without its log.
            name, self._log = self._log.name, None
            self._print(f"{name}: the log ends here ({error.strerror})")
