"""What docs/guides/querying.md and docs/guides/exports.md show runs, and answers."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.results.schemas import TABLES
from naturelm.tables.export import FORMATS
from naturelm.tables.query import open_tables, select
from naturelm.tables.row_formats import BATCH_ROWS
from tests.paths import REPO
from tests.tables.make_tables import caption, detection, recording, write_results

DOCS = REPO / "docs/guides"
QUERYING = (DOCS / "querying.md").read_text(encoding="utf-8")
EXPORTS = (DOCS / "exports.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sql\n(.*?)```", QUERYING, flags=re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A directory that holds `night`, in which every example finds something."""
    place = tmp_path_factory.mktemp("docs")
    first = recording("A/1.wav", dt.datetime(2026, 5, 1, 20))
    second = recording("B/2.wav", dt.datetime(2026, 5, 2, 2), station="B")
    broken = recording("B/3.wav", status="partial", decoded_s=30.0, error="ends early")
    found = [
        detection(first, 0, "Tawny Owl"),
        detection(first, 0, "Robin", 0.6),
        detection(second, 10, "tawny owl"),
        detection(second, 20, "Owl"),
    ]
    answer = {"window": 3, "text": "None", "prompt": "?", "tokens": 1}
    answers = [{**detection(first, 30, "None"), **answer}]
    write_results(
        place / "night", [first, second, broken], found, [caption(first, 0, "An owl hoots.")], answers
    )
    (place / "question.sql").write_text("SELECT count(*) FROM events")
    return place


def test_there_are_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("sql", EXAMPLES, ids=lambda sql: sql.split("\n")[0])
def test_example_answers(place, sql):
    reader = select(open_tables(place / "night", locked=True), sql, BATCH_ROWS)
    assert reader.read_all().num_rows > 0


@pytest.mark.parametrize("text", [QUERYING, EXPORTS], ids=["querying", "exports"])
def test_blocks_run_in_order(place, text):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if text is EXPORTS:
        export = ["export", str(place / "night"), "--format", "csv", "--out", str(place / "owls.csv")]
        assert CliRunner().invoke(main, export).exit_code == 0
    ran = 0
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL):
        commands = [[sys.executable, "-c", block]] if language == "python" else block.splitlines()
        for command in commands:
            done = subprocess.run(
                command,
                shell=isinstance(command, str),
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            ran += 1
    assert ran >= 4


def test_views_are_listed():
    (listed,) = re.findall(r"## The views\n\n(.+?)\.\n", QUERYING, flags=re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed)) == {*TABLES, "reviews", "labels", "events"}


def test_every_format_is_in_the_table():
    table = "".join(line for line in EXPORTS.splitlines() if line.startswith("| `"))
    assert all(f"`{name}`" in table for name in FORMATS)
