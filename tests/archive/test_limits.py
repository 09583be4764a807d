"""Runs that the disk or a month does not hold are refused until they are confirmed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.errors import NaturelmError
from tests.archive.runs import CONFIG, run, table


def write_noise(path: Path, seconds: int = 25) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).standard_normal(seconds * 8000)
    soundfile.write(path, 0.1 * noise, 8000)


@pytest.fixture
def archive(tmp_path):
    for night in (20, 21):
        write_noise(tmp_path / f"archive/S1/S1_201905{night}_220000.wav")
    return tmp_path / "archive"


def process(*arguments: object):
    return CliRunner().invoke(main, ["process", *map(str, arguments), "--workers", "0"])


def test_run_that_the_disk_does_not_hold_asks_for_yes(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
    refused = process(archive, "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "and the disk of --out has 20 kB free; give --yes" in refused.output
    assert not list((tmp_path / "out").glob("answers/**/*.parquet"))
    planned = CliRunner().invoke(main, ["plan", str(archive), "--out", str(tmp_path / "out"), "--no-trial"])
    assert planned.exit_code == 0
    assert "has 20 kB free; naturelm process begins only with --yes" in planned.output
    taken = process(archive, "--out", tmp_path / "out", "--yes")
    assert taken.exit_code == 0, taken.output
    assert table(tmp_path / "out", "answers").num_rows > 0


def test_run_of_more_than_a_month_asks_for_yes(archive, tmp_path):
    out = tmp_path / "out"
    run([archive], out, CONFIG)
    (record,) = (out / "_runs").glob("*.json")
    content = json.loads(record.read_text())
    # The same machine answered a hundred windows in a year.
    content["counts"] |= {"windows": 100, "wall_s": 365 * 86400.0}
    record.write_text(json.dumps(content))
    for night in range(22, 31):
        write_noise(archive / f"S1/S1_201905{night}_220000.wav")
    with pytest.raises(
        NaturelmError, match=r"27 windows take about 99 days at 3\.17e-06 windows/s .* give --yes"
    ):
        run([archive], out, CONFIG)
