"""docs/guides/review.md is true: its commands and snippet run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from naturelm.cli import main
from tests.paths import REPO
from tests.tables.listening_night import make_listening_night

GUIDE = (REPO / "docs/guides/review.md").read_text(encoding="utf-8")


def lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("naturelm ")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with results called `night`, as the guide has it."""
    directory = tmp_path_factory.mktemp("guide")
    make_listening_night(directory).results.rename(directory / "night")
    return directory


@pytest.mark.parametrize("line", [line for line in lines() if "inference-app" not in line])
def test_commands_run(line: str, workplace: Path) -> None:
    script = [sys.executable, "-c", "from naturelm.cli import main; main()", *shlex.split(line)[1:]]
    done = subprocess.run(script, cwd=workplace, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in lines() if "inference-app" in line])
def test_commands_that_do_not_end_are_spelled_right(line: str) -> None:
    verb, *arguments = shlex.split(line)[1:]
    command = main.get_command(click.Context(main), verb)
    assert command is not None
    command.make_context(verb, arguments)


def test_snippet_runs(workplace: Path) -> None:
    [snippet] = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=workplace,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "reviewed" in done.stdout
