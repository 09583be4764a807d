"""One driver at a time, and a dead one's lock is no obstacle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from naturelm.errors import NaturelmError
from naturelm.results import lock as lock_module
from naturelm.results.layout import LOCK
from naturelm.results.lock import Holder, Lock, read_lock


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(lock_module, "_BEAT_S", 0.05)
    monkeypatch.setattr(lock_module, "_LOOK_S", 0.02)
    monkeypatch.setattr(lock_module, "_SILENCE_S", 0.4)
    monkeypatch.setattr(lock_module, "_SETTLE_S", 0.05)


def silent(line: str) -> None:
    pass


def write(directory, holder: Holder) -> None:
    (directory / LOCK).write_text(json.dumps(asdict(holder)))


def elsewhere() -> Holder:
    return replace(Holder.me(), host="otherhost", machine="another boot", token="theirs")


def test_second_run_is_refused_with_who_holds_the_lock_and_may_start_after_the_first(tmp_path):
    with Lock(tmp_path, silent):
        for attempt in (Lock(tmp_path, silent).check, Lock(tmp_path, silent).acquire):
            with pytest.raises(NaturelmError, match=rf"another run is writing there, process {os.getpid()} "):
                attempt()
        assert read_lock(tmp_path) is not None
    assert not (tmp_path / LOCK).exists()
    with Lock(tmp_path, silent):
        pass


def test_lock_of_a_killed_process_on_this_machine_is_taken_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_SILENCE_S", 60.0)
    code = (
        "import sys, time; from pathlib import Path; from naturelm.results.lock import Lock\n"
        "Lock(Path(sys.argv[1]), print).acquire(); print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    with pytest.raises(NaturelmError, match=f"process {process.pid} "):
        Lock(tmp_path, silent).acquire()
    process.kill()
    process.wait()
    began = time.monotonic()
    with Lock(tmp_path, silent):
        assert time.monotonic() - began < 30
        holder = read_lock(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()


def test_process_that_has_a_dead_ones_number_is_another(tmp_path):
    write(tmp_path, replace(Holder.me(), born=1, token="theirs"))
    with Lock(tmp_path, silent):
        pass


@pytest.mark.parametrize("heartbeat", ["1970-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
def test_silent_lock_of_another_machine_is_taken_whatever_its_clock_says(tmp_path, heartbeat):
    write(tmp_path, replace(elsewhere(), heartbeat=heartbeat))
    reported: list[str] = []
    with Lock(tmp_path, reported.append):
        holder = read_lock(tmp_path)
        assert holder is not None
        assert holder.token != "theirs"
    assert "a run on otherhost" in reported[0]


@pytest.mark.parametrize("heartbeat", ["1970-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
def test_beating_lock_of_another_machine_is_respected_whatever_its_clock_says(
    tmp_path, heartbeat, monkeypatch
):
    monkeypatch.setattr(lock_module, "_SILENCE_S", 60.0)
    write(tmp_path, replace(elsewhere(), heartbeat=heartbeat))
    timer = threading.Timer(0.2, lambda: write(tmp_path, replace(elsewhere(), heartbeat=heartbeat, beats=1)))
    timer.start()
    with pytest.raises(NaturelmError, match="on otherhost"):
        Lock(tmp_path, silent).acquire()
    timer.join()


def test_damaged_lock_is_watched_and_taken(tmp_path):
    (tmp_path / LOCK).write_text("{")
    with Lock(tmp_path, silent):
        assert read_lock(tmp_path) is not None


def test_run_whose_lock_was_taken_is_told_and_does_not_take_it_back(tmp_path):
    lost = threading.Event()
    with Lock(tmp_path, silent, lost.set):
        write(tmp_path, elsewhere())
        assert lost.wait(5)
    holder = read_lock(tmp_path)
    assert holder is not None
    assert holder.token == "theirs"


def test_heartbeats_are_counted(tmp_path):
    with Lock(tmp_path, silent):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            holder = read_lock(tmp_path)
            if holder is not None and holder.beats >= 3:
                break
            time.sleep(0.02)
        else:
            pytest.fail("no heartbeats")


def test_one_of_two_that_come_together_gets_the_lock(tmp_path):
    locks = [Lock(tmp_path, silent) for _ in range(8)]
    gate = threading.Barrier(len(locks))
    won: list[Lock] = []

    def take(lock: Lock) -> None:
        gate.wait()
        try:
            lock.acquire()
        except NaturelmError:
            return
        won.append(lock)

    threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].release()
