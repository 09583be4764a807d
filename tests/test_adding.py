"""The pages on adding something are true: what they say is done here to a copy of the package, and works."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.synthetic.nights import make_night
from tests.paths import REPO


def blocks(page: str, language: str = "python") -> list[str]:
    """The code of a page, block by block."""
    text = (REPO / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def files(page: str) -> dict[str, str]:
    """Whole modules of a page: a paragraph that starts with a path, and the block after it."""
    text = (REPO / "docs" / page).read_text(encoding="utf-8")
    paragraph = r"^`(\S+\.py)`(?:[^\n]|\n(?!```))*\n```python\n(.*?)```"
    return dict(re.findall(paragraph, text, flags=re.DOTALL | re.MULTILINE))


@pytest.fixture
def copy(tmp_path) -> Path:
    """A repository with a copy of the package, without its weights, and the same tests."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(REPO / "naturelm", tmp_path / "naturelm", ignore=ignored)
    for name in ("tests", "pyproject.toml"):
        (tmp_path / name).symlink_to(REPO / name)
    return tmp_path


def python(copy: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_module_in_the_folder_is_a_format_of_the_command_and_of_the_tests(copy):
    [module] = blocks("contributing/adding-an-export.md")
    (copy / "naturelm/tables/export/json_lines.py").write_text(module, encoding="utf-8")
    assert re.search(
        r"^ *json-lines +one JSON object per detection$",
        python(copy, "-m", "naturelm.cli", "export", "--help"),
        flags=re.MULTILINE,
    )
    tested = python(
        copy, "-m", "pytest", "tests/tables/test_export.py", "-k", "json-lines", "-p", "no:cacheprovider"
    )
    assert int(re.search(r"(\d+) passed", tested)[1]) >= 5


@pytest.mark.slow
def test_a_folder_and_an_entry_are_a_model_that_is_found_and_answers_for_an_archive(copy):
    page = "contributing/adding-a-model.md"
    modules = files(page)
    assert {Path(name).name for name in modules} == {
        "__init__.py",
        "config.py",
        "model.py",
        "names.py",
        "test_bands.py",
    }
    (copy / "tests").unlink()
    for name, module in modules.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(module, encoding="utf-8")
    [entry] = [block for block in blocks(page) if block.startswith('    "bands": Family(')]
    presets = copy / "naturelm/models/presets.py"
    table = "FAMILIES: dict[str, Family] = {\n"
    assert presets.read_text(encoding="utf-8").count(table) == 1
    presets.write_text(presets.read_text(encoding="utf-8").replace(table, table + entry), encoding="utf-8")

    python(copy, "-m", "pytest", "-q", "tests/models/test_bands.py", "-p", "no:cacheprovider")

    weights = blocks(page)[-1]
    assert "save_pretrained" in weights
    python(copy, "-c", weights)
    (copy / "night").mkdir()
    sound = np.random.default_rng(0).normal(0, 0.1, 25 * 16_000)
    soundfile.write(copy / "night/OWL_20240504_210000.wav", sound, 16_000)
    [commands] = blocks(page, "sh")
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "naturelm"
        python(copy, "-m", "naturelm.cli", *arguments)
    answers = python(
        copy, "-m", "naturelm.cli", "query", "tables", "SELECT count(*) AS n FROM answers", "--format", "json"
    )
    assert json.loads(answers) == [{"n": 3 * 2}]


def insert(path: Path, anchor: str, text: str, *, before: bool = False) -> None:
    """Insert lines after, or before, the only place where `anchor` occurs."""
    content = path.read_text(encoding="utf-8")
    assert content.count(anchor) == 1, f"{path.name}: {anchor!r} occurs {content.count(anchor)} times"
    path.write_text(content.replace(anchor, text + anchor if before else anchor + text), encoding="utf-8")


def test_an_entry_is_a_recorder_whose_names_are_read(copy):
    entry, test = blocks("contributing/adding-a-recorder.md", "text")
    insert(copy / "naturelm/recordings/names.py", ')\n"""Tried in this order', entry, before=True)
    tests = (REPO / "tests/recordings/test_names.py").read_text(encoding="utf-8")
    (copy / "test_pond.py").write_text(tests, encoding="utf-8")
    insert(copy / "test_pond.py", '        ("S1087_20230501_053000+0200.wav", ', test, before=True)
    report = python(copy, "-m", "pytest", "-q", "test_pond.py", "-p", "no:cacheprovider", "-rA")
    assert len(re.findall(r"PASSED .*POND7-d10m05y24-0530\.wav", report)) == 2


@pytest.mark.slow
def test_two_lines_are_a_column_of_the_detections(copy):
    page = "contributing/adding-a-column.md"
    schema, value, meaning = blocks(page, "text")
    insert(copy / "naturelm/results/schemas.py", '            ("model", pa.string()),\n', schema)
    insert(copy / "naturelm/results/rows.py", '                    "model": model,\n', value)
    shutil.copytree(REPO / "naturelm/models/bundled", copy / "naturelm/models/bundled", dirs_exist_ok=True)
    for name in ("docs", "CONTRIBUTING.md", "configs"):
        target = copy / name
        (shutil.copytree if (REPO / name).is_dir() else shutil.copy)(REPO / name, target)
    insert(copy / "docs/reference/columns.yaml", "\ncolumns:\n", meaning)
    python(
        copy, "-m", "pytest", "-q", "tests/docs/test_reference.py", "-k", "table", "-p", "no:cacheprovider"
    )

    make_night(copy / "night")
    python(copy, "-m", "naturelm.cli", "process", "night", "--out", "tables", "--workers", "0")
    sql = "SELECT count(*) AS rows, count(answer_tokens) AS filled, min(answer_tokens) > 0 AS some FROM detections"
    [counts] = json.loads(python(copy, "-m", "naturelm.cli", "query", "tables", sql, "--format", "json"))
    assert counts["rows"] == counts["filled"] > 0
    assert counts["some"]
