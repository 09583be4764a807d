from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from naturelm.config.loading import load_archive_config
from naturelm.errors import NaturelmError
from naturelm.models import presets
from tests.paths import REPO

CONFIGS = REPO / "configs/models"


def test_presets_need_no_torch():
    code = (
        "import sys; from naturelm.models import presets; presets.resolve('naturelm-8b');"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_unknown_model_is_told_with_the_known_ones():
    with pytest.raises(NaturelmError, match=r"no model 'robin'; give pocket, naturelm-8b"):
        presets.resolve("robin")


@pytest.mark.parametrize("path", ["/no/such/directory", "./no/such", "no/such/directory"])
def test_missing_directory_is_no_hub_id(path):
    with pytest.raises(NaturelmError, match="there is no model"):
        presets.resolve(path)


def test_hub_id_of_a_preset_keeps_what_is_known_of_it():
    source = presets.resolve("EarthSpeciesProject/NatureLM-audio")
    assert source.licence == presets.PRESETS["naturelm-8b"].licence
    assert not source.is_local


def test_revision_follows_weights_and_config_not_the_place(small_release: Path, tmp_path: Path):
    copy = tmp_path / "a" / "release"
    shutil.copytree(small_release, copy, copy_function=shutil.copyfile)
    shutil.copytree(small_release.parent / "llm", tmp_path / "a" / "llm")
    known = presets.resolve(copy).revision
    assert known == presets.resolve(small_release).revision
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    changed = presets.resolve(copy).revision
    assert changed != known
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "end_sym": "x"}))
    assert presets.resolve(copy).revision != changed


def test_revision_follows_the_base_llm_beside_the_checkpoint(small_release: Path, tmp_path: Path):
    shutil.copytree(small_release, tmp_path / "release")
    without = presets.resolve(tmp_path / "release").revision
    shutil.copytree(small_release.parent / "llm", tmp_path / "llm")
    assert presets.resolve(tmp_path / "release").revision != without


def test_hub_that_cannot_be_reached_is_one_quick_sentence(tmp_path: Path):
    """In a process of its own: the hub client reads its settings when it is imported."""
    code = (
        "from naturelm.models import presets\n"
        "try:\n    presets.fetch(presets.resolve('nobody/nothing-of-the-kind'))\n"
        "except presets.NaturelmError as error:\n    print(error)"
    )
    # An address where nothing listens: the connection is refused at once, as without a network.
    environment = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
        "PATH": "",
        "HOME": str(tmp_path),
    }
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.count("\n") == 1
    assert "nobody/nothing-of-the-kind is not on this machine and the hub cannot be reached" in done.stdout
    assert time.monotonic() - start < 30


def test_base_llm_that_is_not_there_is_told_with_the_remedy(tmp_path: Path):
    with pytest.raises(
        NaturelmError, match=r"no base LLM '../llm' here; give its directory or hub id with --llm"
    ):
        presets.fetch_llm("../llm", tmp_path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_model_configs_load_and_name_a_model(path):
    config = load_archive_config(path)
    assert presets.resolve(config.model.name).licence


def test_every_preset_has_a_model_config():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(presets.PRESETS)
