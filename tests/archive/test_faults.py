"""Whatever dies, fills up or goes away: after a rerun the published files are those of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from naturelm.archive.figures import Counts
from naturelm.archive.job import process_archive
from naturelm.archive.stopping import Stop
from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load_archive_config
from naturelm.errors import RunStopped
from tests.archive.faults import (
    PATIENCE_S,
    committed,
    kill_one,
    start,
    wait_for_exit,
    wait_for_output,
    wait_until,
)
from tests.archive.runs import published, quiet, staged, table
from tests.archive.stub_model import ASLEEP, FaultyAsk, StubAsk
from tests.archive.stub_runs import record

RECORDINGS = 12
# Windows so short that a call to the model takes few segments.
WINDOWS = {"length_s": 5.0, "hop_s": 2.5}
SETTINGS = "job: {workers: 0, segment_minutes: 0.5}\nwindows: {length_s: 5.0, hop_s: 2.5}\n"
IN_PROCESS = {"workers": 0, "segment_minutes": 0.5}
ON_RAY = {"workers": 1, "segment_minutes": 0.5}


def config(job: dict[str, object]) -> ArchiveConfig:
    return load_archive_config(None, {"job": job, "windows": WINDOWS, "audio": {"decode_timeout_s": 2}})


def run(archive: Path, out: Path, job: dict[str, object] | None = None, **options) -> Counts:
    return process_archive(
        [archive], out, config(job or IN_PROCESS), quiet(), **({"make_ask": StubAsk} | options)
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("archive")
    for number in range(RECORDINGS):
        record(directory / f"S{number % 3}/S_2026052{number % 2}_0{number // 2}0000.wav", number, 95.0)
    return directory


@pytest.fixture(scope="module")
def undisturbed(archive, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(archive, out).segments == 4 * RECORDINGS
    return published(out)


@pytest.fixture
def settings(tmp_path) -> list[str]:
    path = tmp_path / "archive.yaml"
    path.write_text(SETTINGS)
    return ["--config", str(path)]


# --- the driver


def test_driver_killed_three_times(archive, undisturbed, settings, tmp_path):
    out = tmp_path / "out"
    for wanted in (1, 14, 31):
        process = start("stub", archive, out, *settings, sleep_s=0.03)
        before = committed(out)
        wait_until(lambda: committed(out) >= max(wanted, before + 1), process)  # noqa: B023
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        # Its lock stays, and is no obstacle.
        assert (out / "_lock.json").exists()
    assert run(archive, out).segments < 4 * RECORDINGS
    assert published(out) == undisturbed
    assert staged(out) == []
    assert not (out / "_lock.json").exists()


@pytest.mark.slow
def test_one_signal_commits_what_is_in_flight_and_until_then_nobody_else_may_write(
    archive, undisturbed, settings, tmp_path
):
    out = tmp_path / "out"
    first = start("stub", archive, out, *settings, sleep_s=0.5)
    wait_until(lambda: committed(out), first)
    code, output = wait_for_exit(start("stub", archive, out, *settings))
    assert code == 2
    assert f"another run is writing there, process {first.pid} on" in " ".join(output.split())
    # To the whole group, as a terminal does.
    os.killpg(first.pid, signal.SIGINT)
    code, output = wait_for_exit(first)
    assert code == 130, output
    assert "run the same command again to continue" in output
    assert "Traceback" not in output
    assert not (out / "_lock.json").exists()
    done = committed(out)
    assert run(archive, out).segments <= 4 * RECORDINGS - min(done, 3)
    assert published(out) == undisturbed


def test_two_signals_stop_at_once(archive, undisturbed, settings, tmp_path):
    out, asleep = tmp_path / "out", tmp_path / "asleep"
    process = start("stub", archive, out, *settings, sleep_s=PATIENCE_S, env={ASLEEP: str(asleep)})
    wait_until(asleep.exists, process)
    os.killpg(process.pid, signal.SIGINT)
    wait_for_output(process, "Ctrl-C again stops at once")
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    returned, output = wait_for_exit(process)
    assert (returned, "Traceback" in output) == (130, False), output
    assert time.monotonic() - began < 10


def test_signal_before_anything_is_answered_leaves_all_of_it(archive, undisturbed, tmp_path):
    out, stop = tmp_path / "out", Stop()
    stop.ask("SIGINT")
    counts = run(archive, out, stop=stop)
    assert (counts.segments, counts.left) == (0, 4 * RECORDINGS)
    run(archive, out)
    assert published(out) == undisturbed


def test_run_that_is_asked_to_end_leaves_the_rest_to_the_next(archive, undisturbed, tmp_path):
    out = tmp_path / "out"
    stop = Stop()

    class Asking(StubAsk):
        def __call__(self, decoded, shrink=1):
            stop.ask("until 07:00")
            return super().__call__(decoded, shrink)

    counts = run(archive, out, make_ask=Asking, stop=stop)
    assert 0 < counts.left < 4 * RECORDINGS
    assert counts.left + counts.segments == 4 * RECORDINGS
    assert run(archive, out).segments == counts.left
    assert published(out) == undisturbed


# --- disks


def test_full_disk_stops_the_run_with_a_sentence(archive, undisturbed, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", out], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with pytest.raises(RunStopped, match=r"No space left on device.*free some space"):
            run(archive, out, beyond_limits=True)
        assert committed(out) > 0
        subprocess.run(["mount", "-o", "remount,size=32m", out], check=True)
        run(archive, out)
        assert published(out) == undisturbed
    finally:
        subprocess.run(["umount", out], check=True)


def test_archive_that_goes_away_leaves_no_false_rows(archive, undisturbed, tmp_path):
    here, away, out = tmp_path / "archive", tmp_path / "away", tmp_path / "out"
    shutil.copytree(archive, here)

    class Unplugging(StubAsk):
        def __call__(self, decoded, shrink=1):
            if here.exists():
                here.rename(away)
            return super().__call__(decoded, shrink)

    counts = run(here, out, make_ask=Unplugging)
    assert counts.unreachable == counts.left > 0
    assert counts.segments > 0
    assert any("is its disk still mounted?" in line for line in counts.failures)
    away.rename(here)
    assert run(here, out).left == 0
    assert published(out) == undisturbed


def test_archive_that_goes_away_is_exit_code_1(archive, settings, tmp_path):
    here, out = tmp_path / "archive", tmp_path / "out"
    shutil.copytree(archive, here)
    process = start("stub", here, out, *settings, sleep_s=0.05)
    wait_until(lambda: committed(out), process)
    here.rename(tmp_path / "away")
    code, output = wait_for_exit(process)
    assert code == 1, output
    assert "segments are left; run the same command again" in output


# --- decoding


class SignalDecoder(StubAsk):
    """Sends a signal to the process that decodes, once."""

    def __init__(self, number: int) -> None:
        super().__init__(config(IN_PROCESS))
        self._number: int | None = number

    def __call__(self, decoded, shrink=1):
        if self._number is not None:
            # Workers of Ray, which are further below, may have decoders of an earlier test.
            assert kill_one(os.getpid(), "naturelm.audio.isolated", self._number, direct_only=True)
            self._number = None
        return super().__call__(decoded, shrink)


def test_decoder_that_hangs_is_a_timeout_and_is_tried_again_when_asked(archive, undisturbed, tmp_path):
    stopped = SignalDecoder(signal.SIGSTOP)
    counts = run(archive, tmp_path, make_ask=lambda *_, **__: stopped)
    assert counts.recordings == {"ok": RECORDINGS - 1, "timeout": 1, "done before": 0}
    run(archive, tmp_path, retry_failed=True)
    assert published(tmp_path) == undisturbed


def test_decoder_that_is_killed_is_started_again(archive, undisturbed, tmp_path):
    killed = SignalDecoder(signal.SIGKILL)
    counts = run(archive, tmp_path, make_ask=lambda *_, **__: killed)
    assert counts.recordings == {"ok": RECORDINGS, "done before": 0}
    assert published(tmp_path) == undisturbed


# --- Ray


class Slow(StubAsk):
    # The environment of Ray's processes is that of the session.
    def __init__(self, config, threads=None) -> None:
        super().__init__(config, threads)
        self._sleep_s = 0.1


class SlowFaulty(Slow, FaultyAsk):
    """Naps and fails."""


@pytest.mark.slow
@pytest.mark.ray
def test_killed_ray_processes_need_no_help_and_a_poison_segment_is_given_up(archive, tmp_path, local_ray):
    here, out = tmp_path / "archive", tmp_path / "out"
    shutil.copytree(archive, here)
    record(here / "S0/poison.wav", 99, 25.0)
    killed: list[str] = []

    def killer() -> None:
        for needle, wanted in (("_decode", 0), ("_AskActor", 4)):
            wait_until(lambda: committed(out) >= wanted)  # noqa: B023
            wait_until(lambda: kill_one(os.getpid(), needle))  # noqa: B023
            killed.append(needle)

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    counts = run(here, out, ON_RAY, make_ask=SlowFaulty)
    thread.join(5)
    assert killed == ["_decode", "_AskActor"]
    assert counts.recordings == {"ok": RECORDINGS, "crashed": 1, "done before": 0}
    rows = {row["path"]: row for row in table(out, "recordings").to_pylist()}
    assert rows["S0/poison.wav"]["error"] == "the process of the model died on it 3 times"
    run(here, out, retry_failed=True)
    run(here, tmp_path / "undisturbed")
    assert published(out) == published(tmp_path / "undisturbed")


@pytest.mark.ray
@pytest.mark.slow
def test_stopping_on_ray_commits_what_is_in_flight(archive, undisturbed, tmp_path, local_ray):
    out = tmp_path / "out"
    stop = Stop()
    thread = threading.Thread(
        target=lambda: (wait_until(lambda: committed(out) >= 2), stop.ask("SIGINT")), daemon=True
    )
    thread.start()
    began = time.monotonic()
    counts = run(archive, out, ON_RAY, make_ask=Slow, stop=stop)
    assert time.monotonic() - began < PATIENCE_S
    assert 2 <= counts.segments < 4 * RECORDINGS
    assert counts.left == 4 * RECORDINGS - counts.segments
    run(archive, out)
    assert published(out) == undisturbed
