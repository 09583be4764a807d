"""The README is true: its commands and snippets run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPO

README = (REPO / "README.md").read_text(encoding="utf-8")
COMMANDS = {"naturelm", "source"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A directory where `make demo` has made its night."""
    directory = tmp_path_factory.mktemp("readme")
    subprocess.run(
        [sys.executable, REPO / "examples/01_make_night.py", "demo/night"], cwd=directory, check=True
    )
    return directory


def run(command: list[str] | str, workplace: Path, **options) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=workplace, env=environment, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_first_block_is_two_make_targets():
    commands = blocks("sh")[0].splitlines()
    assert commands == ["make demo", "make test"]
    makefile = (REPO / "Makefile").read_text()
    for command in commands:
        assert f"\n{command.removeprefix('make ')}: " in makefile


@pytest.mark.slow
@pytest.mark.ray
def test_commands_and_snippets_run_in_order(workplace):
    """One after the other, in one directory, as a reader would type them."""
    ran = 0
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", README, flags=re.DOTALL)[1:]:
        if language == "python":
            assert run([sys.executable, "-c", block], workplace).strip()
        else:
            lines = [line for line in block.splitlines() if not line.startswith("source ")]
            for line in lines:
                assert line.split()[0] in COMMANDS
                run(line, workplace, shell=True)
        ran += 1
    assert ran >= 6
    assert (workplace / "report.html").is_file()


def test_every_link_to_a_file_of_the_repo_leads_somewhere():
    for path in [REPO / "README.md", *REPO.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path}: {link}"
