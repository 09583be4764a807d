"""Ending a run early and in good order: on Ctrl-C, at a given time, or when it cannot continue."""

from __future__ import annotations

import datetime as dt
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from naturelm.errors import NaturelmError
from naturelm.machine import signal_main_thread

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
# Publishing the last day, and leaving Ray.
_LAST_S = 5.0
# How long SIGTERM and SIGHUP wait for segments in progress.
_PATIENCE_S = 12.0


class Stop:
    """Whether a run is to end early, and why.

    Parameters
    ----------
    until : datetime, optional
        With time zone: the run is to be over by then.
    """

    def __init__(self, until: dt.datetime | None = None) -> None:
        self._until = until
        self._asked = threading.Event()
        self.reason: str | None = None
        """What ended the run early; None where nothing did."""
        self.in_time = False
        """Whether that was the given time: the run did what was requested."""
        self.has_begun = False
        """Whether there may be work in flight. Before, Ctrl-C ends the run at once."""

    def ask(self, reason: str) -> None:
        """End the run: begin nothing more, commit what is in flight."""
        if not self._asked.is_set():
            self.reason = reason
            self._asked.set()

    def asked(self, in_flight_s: float = 0.0) -> bool:
        """Whether to begin nothing more.

        Parameters
        ----------
        in_flight_s : float
            Seconds that what has begun may still take: the run ends so much before the given time.
        """
        if self._until is not None and not self._asked.is_set():
            # The wall clock, read each time: it may be set during the run.
            left_s = (self._until - dt.datetime.now(dt.UTC)).total_seconds()
            if left_s <= in_flight_s + _LAST_S:
                self.in_time = True
                self.ask(f"until {self._until.astimezone():%H:%M}")
        return self._asked.is_set()


def parse_until(text: str, now: dt.datetime) -> dt.datetime:
    """Read a local time of the day, its next occurrence, or an ISO date and time.

    Parameters
    ----------
    text : str
        `07:00`, `2026-05-21T07:00` or `2026-05-21T07:00+02:00`.
    now : datetime
        This machine's clock, without zone.

    Raises
    ------
    NaturelmError
        The text is neither, or the time is over.
    """
    clock = _CLOCK.fullmatch(text.strip())
    if clock:
        wanted = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        # A day later by the clock, whatever happens to summer time that night.
        return (wanted if wanted > now else wanted + dt.timedelta(days=1)).astimezone()
    try:
        wanted = dt.datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        raise NaturelmError(
            f"--until {text!r}: is not a valid time; give one like 07:00 or 2026-05-21T07:00"
        ) from None
    if wanted <= now.astimezone():
        raise NaturelmError(f"--until {text!r}: is over; give a time to come")
    return wanted


@contextmanager
def signals_ask(stop: Stop, report: Callable[[str], None]) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGHUP end the run in good order, and a second of them at once.

    The second raises KeyboardInterrupt, and so does time: what sent SIGTERM or SIGHUP (a batch system, a terminal that
    was closed) waits only so long before it kills. A signal that is ignored when the run starts (SIGHUP, by `nohup`)
    stays ignored. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.reason is not None or not stop.has_begun:
            raise KeyboardInterrupt
        stop.ask(signal.Signals(number).name)
        # In a thread: the one that was interrupted may hold the locks that reporting needs.
        if number == signal.SIGINT:
            sentence = "stopping: segments in progress are finished and committed; Ctrl-C again stops at once"
        else:
            sentence = (
                f"stopping: segments in progress are committed if they finish within {_PATIENCE_S:.0f} s"
            )
            deadline = threading.Timer(_PATIENCE_S, signal_main_thread, [number])
            deadline.daemon = True
            deadlines.append(deadline)
            deadline.start()
        threading.Thread(target=report, args=(sentence,)).start()

    deadlines: list[threading.Timer] = []
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for deadline in deadlines:
            deadline.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
