"""A run keeps the kind of weights that its directory began with, and refuses a model that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from naturelm.archive import fitting
from naturelm.config.loading import load_archive_config
from naturelm.errors import NaturelmError
from naturelm.models.sizes import Room
from naturelm.results.analysis import read_analysis
from naturelm.synthetic.nights import make_night
from tests.archive.runs import SETTINGS, run


def _with(out: Path, weights: str) -> str:
    config = load_archive_config(None, SETTINGS | {"model": {"weights": weights}})
    return fitting.fitted_to(out, config).model.weights


def test_a_second_run_keeps_the_weights_of_the_first(tmp_path: Path) -> None:
    make_night(tmp_path / "night", seed=3)
    out = tmp_path / "out"
    assert _with(out, "auto") == "auto"
    config = load_archive_config(None, SETTINGS | {"model": {"weights": "int8"}})
    run([tmp_path / "night"], out, config)
    assert read_analysis(out).settings["model"]["weights"] == "int8"
    assert _with(out, "auto") == "int8"
    auto = load_archive_config(None, SETTINGS)
    assert run([tmp_path / "night"], out, auto).segments == 0
    with pytest.raises(NaturelmError, match=r"model.weights \('int8' there, 'bf16' now\)"):
        run([tmp_path / "night"], out, load_archive_config(None, SETTINGS | {"model": {"weights": "bf16"}}))


def test_a_model_that_does_not_fit_is_refused_before_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "room_here", lambda device=None: Room(8e9, False, True))
    config = load_archive_config(None, SETTINGS | {"model": {"name": "naturelm-8b"}})
    with pytest.raises(NaturelmError, match=r"naturelm-8b needs about .* 8.0 GB are free"):
        run([tmp_path / "no such directory"], tmp_path / "out", config)


def test_as_many_workers_as_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "read_gpus", tuple)
    monkeypatch.setattr(fitting, "usable_cores", lambda: 4)
    monkeypatch.setattr(fitting, "available_bytes", lambda: 24e9)
    large = load_archive_config(None, {"model": {"name": "naturelm-8b", "weights": "int8"}}).model
    assert fitting.workers_here(large) == 2
    assert fitting.workers_here(load_archive_config(None, {}).model) == 4


def test_what_a_large_model_takes_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "room_here", lambda device=None: Room(16e9, False, True))
    settings = load_archive_config(None, {"model": {"name": "naturelm-8b", "weights": "int8"}}).model
    line = fitting.memory_line(settings)
    assert line is not None
    assert line.startswith("model: naturelm-8b with weights int8, about 11.")
    assert "16.0 GB are free" in line
    assert fitting.memory_line(load_archive_config(None, {}).model) is None
