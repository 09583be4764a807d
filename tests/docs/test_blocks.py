"""Code blocks in the README and the documentation run, or are marked console.

`sh` and `python` run, page by page and in order, in a directory with the demo's night and its results. `sql` is
queried. `yaml`, `csv` and `json` are read by what reads them in the program. A `text` block after a command is what the
command prints. In `console` blocks, whose commands need what a test does not have, commands and options exist.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.config.label_lists import read_label_list
from naturelm.config.loading import load_archive_config
from naturelm.recordings.stations import read_stations
from naturelm.synthetic.nights import make_night
from naturelm.tables.query import open_tables
from tests.docs.blocks import PAGES, Block, blocks, name
from tests.paths import REPO

LANGUAGES = {"sh", "python", "sql", "yaml", "csv", "json", "text", "console"}
# Guides to writing code show modules, not programs.
EXAMPLE_CODE = "docs/contributing/"
# These pages make their own results.
FROM_THE_START = {"README.md", "docs/getting-started.md"}


@pytest.fixture(scope="session")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `demo/night` and its results, `night`."""
    directory = tmp_path_factory.mktemp("processed")
    make_night(directory / "demo/night")
    arguments = [str(directory / "demo/night"), "--out", str(directory / "night"), "--workers", "0"]
    done = CliRunner().invoke(main, ["process", *arguments])
    assert done.exit_code == 0, done.output
    return directory


@pytest.fixture
def workplace(processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current directory; examples and settings are there as in a clone."""
    directory = tmp_path / "clone"
    shutil.copytree(processed, directory)
    for folder in ("examples", "configs"):
        (directory / folder).symlink_to(REPO / folder)
    monkeypatch.chdir(directory)
    return directory


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_names_its_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{name(page)}:{block.line}: {block.language or 'no language'}"
        if block.language == "console":
            assert block.text.lstrip().startswith(("$ ", "> ", ">>> ")), (
                f"{name(page)}:{block.line}: no prompt"
            )


RUNNABLE = [
    page
    for page in PAGES
    if {block.language for block in blocks(page)} & {"sh", "python", "sql"}
    and not name(page).startswith(EXAMPLE_CODE)
]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_blocks_run_in_order(page: Path, workplace: Path) -> None:
    if name(page) in FROM_THE_START:
        shutil.rmtree(workplace / "night")
    printed = ""
    for block in blocks(page):
        where = f"{name(page)}:{block.line}"
        if block.language == "sh":
            printed = "".join(run(line, where) for line in commands(block))
        elif block.language == "python":
            with redirect_stdout(io.StringIO()) as output:
                exec(compile(block.text, where, "exec"), {"__name__": "__main__"})
            printed = output.getvalue()
            assert printed.strip(), f"{where}: prints nothing"
        elif block.language == "sql":
            open_tables("night", locked=True).sql(block.text).fetchall()
            printed = ""
        elif block.language == "text" and printed:
            assert_printed(block, printed, where)
            printed = ""


def run(line: str, where: str) -> str:
    """Run one command as a reader would type it; what it prints."""
    if line.startswith("naturelm ") and not re.search(r"[|<>] ", line.replace("<>", "")):
        arguments = shlex.split(line)[1:]
        # Starting Ray takes longer than all other commands of a page together; `make demo` does it.
        if arguments[0] in ("process", "plan") and "--workers" not in arguments:
            arguments += ["--workers", "0"]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, f"{where}: {line}\n{done.output}"
        return done.output
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPO),
    }
    result = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{where}: {line}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def commands(block: Block) -> list[str]:
    """The commands of a block that a test has not done already: installing, and `make demo`."""
    return [line for line in block.text.splitlines() if not line.startswith(("make ", "source "))]


def assert_printed(block: Block, printed: str, where: str) -> None:
    """The lines of a block are among those printed, numbers and spaces aside; `…` leaves lines out."""
    lines = {without_numbers(line) for line in printed.splitlines()}
    for line in block.text.splitlines():
        assert line == "…" or without_numbers(line) in lines, f"{where}: not printed: {line}\n{printed}"


def without_numbers(line: str) -> str:
    return " ".join(re.sub(r"\d+(\.\d+)?", "0", line).split())


def test_other_output_is_not_taken_for_what_was_printed() -> None:
    block = Block("text", "Owl 0.99\n…\nWolf 0.5\n", 1)
    assert_printed(block, "Owl   0.97\nFrog 1.0\nWolf 0.3\n", "here")
    with pytest.raises(AssertionError, match="not printed: Wolf"):
        assert_printed(block, "Owl   0.97\nWolves 0.3\n", "here")


DATA_BLOCKS = [
    pytest.param(block, id=f"{name(page)}:{block.line}")
    for page in PAGES
    for block in blocks(page)
    if block.language in ("yaml", "csv", "json")
]


@pytest.mark.parametrize("block", DATA_BLOCKS)
def test_data_is_read_by_the_program(block: Block, tmp_path: Path) -> None:
    path = tmp_path / f"example.{block.language}"
    path.write_text(block.text, encoding="utf-8")
    if block.language == "json":
        assert json.loads(block.text)
    elif block.language == "csv":
        read = read_stations if "latitude" in block.text.splitlines()[0] else read_label_list
        assert read(path)
    else:
        # The list that an example names may be any.
        (tmp_path / "valley.csv").write_text("station,label\n,Wren\nA17,Dipper\n", encoding="utf-8")
        assert load_archive_config(path).queries


def typed_commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            if block.language not in ("console", "sh"):
                continue
            text = block.text.replace("\\\n", " ")
            for line in text.splitlines():
                for command in re.findall(r"(?:^|[$;|] |-- )((?:naturelm|python jobs/\w+\.py) [^|]*)", line):
                    yield f"{name(page)}:{block.line}", command


JOBS = {"process_archive.py": "process", "train.py": "train"}


@pytest.mark.parametrize(("where", "line"), sorted(set(typed_commands())))
def test_commands_and_their_options_exist(where: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "python":
        words = ["naturelm", JOBS[Path(words[1]).name], *words[2:]]
    command: click.Command = main
    context = click.Context(main, **main.context_settings)
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(context, rest[0])
        if inner is None:
            # `naturelm train CONFIG` is `naturelm train run CONFIG`.
            inner = command.get_command(context, "run")
            assert inner is not None, f"{where}: {line}"
        else:
            rest = rest[1:]
        command, context = inner, click.Context(inner, parent=context)
    known = {
        option
        for parameter in command.get_params(context)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    used = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert used <= known, f"{where}: {line}"
