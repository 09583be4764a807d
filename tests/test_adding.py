"""The pages on adding something are true: what they say is done here to a copy of the package, and works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPO


def blocks(page: str) -> list[str]:
    """The Python of a page, block by block."""
    text = (REPO / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


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
