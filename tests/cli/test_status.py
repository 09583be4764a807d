"""`naturelm status`, beside a run, after it, and after a crash."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from naturelm.archive.status import newest_run
from naturelm.cli import main
from naturelm.errors import NaturelmError
from tests.archive.stub_model import SLEEP_S
from tests.archive.stub_runs import record
from tests.tables.make_tables import write_analysis


@pytest.fixture
def night(tmp_path) -> Path:
    directory = tmp_path / "night"
    for number in range(2):
        record(directory / f"{number}.wav", number, seconds=60)
    (directory / "empty.wav").touch()
    return directory


def process(night: Path, out: Path, *options: str, nap_s: float = 0.0) -> subprocess.Popen[str]:
    """`naturelm process` with a model that takes `nap_s` for a segment."""
    module = ["-m", "tests.archive.fault_driver", "stub"]
    return subprocess.Popen(
        [sys.executable, *module, str(night), "--out", str(out), "--workers", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {SLEEP_S: str(nap_s)},
    )


def status_output(out: Path, *options: str) -> str:
    result = CliRunner().invoke(main, ["status", str(out), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_run_is_told_while_it_lives_after_it_was_killed_and_when_it_is_complete(night, tmp_path) -> None:
    out = tmp_path / "out"
    run = process(night, out, nap_s=60)
    while run.poll() is None and not list(out.glob("_staging/answers/*.parquet")):
        time.sleep(0.01)
    alive = status_output(out)
    run.kill()
    run.communicate()
    assert run.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    assert f"running on {newest_run(out).host} (process {run.pid}) since" in alive
    assert "died; ran on" in status_output(out)
    assert "run the same command again to continue" in status_output(out)

    log = tmp_path / "run.log"
    again = process(night, out, "--json", "--log-file", str(log))
    lines, _ = again.communicate()
    assert again.returncode == 0
    assert "complete; ran on" in status_output(out)
    assert "recordings: 1 corrupt, 2 ok; 2.0 min of sound" in status_output(out)
    assert "empty.wav: corrupt (the file is empty)" in status_output(out)
    events = [json.loads(line) for line in lines.splitlines()]
    assert {"start", "failure", "progress"} <= {event["event"] for event in events}
    assert (events[-1]["event"], events[-1]["status"]) == ("end", "complete")
    assert "3 recordings" in log.read_text()
    machine = json.loads(status_output(out, "--format", "json"))
    assert machine["state"] == "complete"
    assert machine["recordings"]["ok"]["recordings"] == 2
    assert [row["path"] for row in machine["failures"]] == ["empty.wav"]
    assert machine["run"]["hardware"]["usable_cores"] >= 1
    assert machine["run"]["progress"]["sound_s"] == pytest.approx(
        machine["run"]["counts"]["sound_s"], abs=0.1
    )


def a_record(directory: Path, **values: object) -> Path:
    (directory / "_runs").mkdir(exist_ok=True)
    write_analysis(directory)
    now = dt.datetime.now(dt.UTC).isoformat()
    record = {"status": "running", "started": now, "host": "a-node-of-a-cluster", "pid": 1} | values
    path = directory / "_runs" / "20260101T000000.000000Z.json"
    path.write_text(json.dumps(record))
    return path


def test_run_on_another_machine_is_running_while_it_gives_signs_of_life(tmp_path) -> None:
    a_record(tmp_path)
    assert newest_run(tmp_path).state == "running"
    old = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).isoformat()
    a_record(tmp_path, updated=old)
    assert newest_run(tmp_path).state == "silent"
    assert "see whether it still runs there" in status_output(tmp_path)


def test_damaged_record_is_passed_over(tmp_path) -> None:
    a_record(tmp_path, status="complete")
    (tmp_path / "_runs" / "20260102T000000.000000Z.json").write_text('{"status": "comp')
    assert newest_run(tmp_path).state == "complete"


def test_directory_without_results_or_runs_is_told(tmp_path) -> None:
    with pytest.raises(NaturelmError, match="holds no results"):
        newest_run(tmp_path)
    a_record(tmp_path).unlink()
    with pytest.raises(NaturelmError, match="holds no run's record that can be read"):
        newest_run(tmp_path)
    result = CliRunner().invoke(main, ["status", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "holds no results" in result.output
