"""The examples and job scripts run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.pipeline.runs import run

REPO = Path(__file__).parents[1]


def output_of(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=REPO
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo_night_is_made_and_most_planted_sounds_are_found(tmp_path):
    night, tables = tmp_path / "night", tmp_path / "tables"
    made = output_of("examples/01_make_night.py", night).splitlines()
    assert all(Path(line).is_file() for line in made)
    run([night], tables)
    *rows, last = output_of("examples/02_planted_and_found.py", night, tables).splitlines()
    planted = (night / "planted.csv").read_text().splitlines()[1:]
    assert len(rows) == 1 + len(planted)
    found, of = int(last.split()[0]), int(last.split()[2])
    assert of == len(planted)
    assert found >= 0.7 * of


def test_job_script_takes_what_process_takes():
    help_text = output_of("jobs/process_archive.py", "--help")
    assert "PATH..." in help_text
    assert "--address" in help_text
