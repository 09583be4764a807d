"""Ending early: at a time, on a signal, on a disk that is full."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time

import numpy as np
import pytest
import soundfile

from naturelm.archive import stopping
from naturelm.archive.stopping import Stop, parse_until, signals_ask
from naturelm.errors import NaturelmError, RunStopped
from naturelm.results.layout import writes_to
from tests.archive.stub_model import ASLEEP, SLEEP_S
from tests.paths import REPO


@pytest.fixture(autouse=True)
def default_signals():
    """A shell starts background jobs with SIGINT ignored, and nohup ignores SIGHUP: here neither is."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "now", "utc"),
    [
        ("07:00", "2026-05-20T20:00", "2026-05-21T05:00"),
        ("7:00", "2026-05-20T06:59", "2026-05-20T05:00"),
        ("07:00", "2026-05-20T07:00", "2026-05-21T05:00"),
        # Summer time begins and ends in these nights: seven o'clock is seven o'clock.
        ("07:00", "2026-03-28T20:00", "2026-03-29T05:00"),
        ("07:00", "2026-10-24T20:00", "2026-10-25T06:00"),
        ("2026-05-22T06:30", "2026-05-20T20:00", "2026-05-22T04:30"),
        ("2026-05-22T06:30+00:00", "2026-05-20T20:00", "2026-05-22T06:30"),
    ],
)
def test_until_is_the_next_such_time_on_this_machines_clock(berlin, text, now, utc):
    wanted = parse_until(text, dt.datetime.fromisoformat(now))
    assert wanted.astimezone(dt.UTC) == dt.datetime.fromisoformat(utc).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("soon", "is not a valid time"), ("25:00", "is not a valid time"), ("2020-01-01T07:00", "is over")],
)
def test_until_that_is_no_time_to_come_is_refused(text, expected):
    with pytest.raises(NaturelmError, match=f"--until '{text}': {expected}"):
        parse_until(text, dt.datetime(2026, 5, 20, 20))


def test_run_ends_so_much_before_the_time_as_what_is_in_flight_may_take():
    stop = Stop(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60))
    assert not stop.asked()
    assert not stop.asked(in_flight_s=30)
    assert stop.asked(in_flight_s=58)
    assert stop.in_time
    assert (stop.reason or "").startswith("until ")
    # Once asked it stays so.
    assert stop.asked()


def test_first_signal_asks_and_the_second_interrupts():
    stop, reported = Stop(), []
    before = signal.getsignal(signal.SIGINT)
    with signals_ask(stop, reported.append):
        stop.has_begun = True
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked()
        assert stop.reason == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while not reported and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "Ctrl-C again stops at once" in reported[0]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_run_that_does_not_finish_in_time_after_a_signal_is_interrupted(number, monkeypatch):
    monkeypatch.setattr(stopping, "_PATIENCE_S", 0.2)
    stop, reported = Stop(), []
    began = time.monotonic()
    with signals_ask(stop, reported.append):
        stop.has_begun = True
        os.kill(os.getpid(), number)
        assert stop.reason == signal.Signals(number).name
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(30)  # a system call, as a model's work would be
    assert 0.2 <= time.monotonic() - began < 10
    assert "committed if they finish within" in reported[0]


def test_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with signals_ask(stop, print):
            stop.has_begun = True
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked()
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_closed_terminal_stops_the_run_in_good_order(tmp_path):
    """The terminal of a run that a person started is closed: SIGHUP comes, and nothing can be printed any more."""
    for name in ("a", "b", "c", "d", "e", "f"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(330 * 2_000, np.int16), 2_000)
    out, asleep = tmp_path / "out", tmp_path / "asleep"
    controller, terminal = pty.openpty()
    driver = [sys.executable, "-m", "tests.archive.fault_driver", "stub"]
    process = subprocess.Popen(
        [*driver, str(tmp_path), "--out", str(out), "--workers", "0"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env=os.environ | {SLEEP_S: "1", ASLEEP: str(asleep), "PYTHONPATH": str(REPO)},
        cwd=REPO,
    )
    os.close(terminal)
    deadline = time.monotonic() + 60
    while not asleep.exists() and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            if select.select([controller], [], [], 0.05)[0]:
                os.read(controller, 65536)
    assert asleep.exists()
    os.close(controller)
    assert process.wait(timeout=40) == 129
    assert not (out / "_lock.json").exists()
    [record] = (out / "_runs").glob("*.json")
    outcome = json.loads(record.read_text())
    assert outcome["status"] == "interrupted"
    assert outcome["counts"]["segments"] >= 1


def test_signal_before_the_work_interrupts_at_once():
    stop = Stop()
    with signals_ask(stop, print), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_left_alone_outside_the_main_thread():
    failed: list[BaseException] = []

    def inside() -> None:
        try:
            with signals_ask(Stop(), print):
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert failed == []


def test_full_disk_is_told_with_its_remedy(tmp_path):
    with (
        pytest.raises(RunStopped, match=r"No space left on device.*free some space and run the same command"),
        writes_to(tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
