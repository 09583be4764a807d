"""On Windows the reading verbs, the app and `process --workers 0` work: tried without what Windows lacks.

`tests/as_on_windows` takes POSIX modules, functions and signals away from this package in a process of its own and in
the decoders that it starts. `make types` looks for the same statically, for the whole package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from naturelm.synthetic.nights import make_night
from naturelm.tables.export import FORMATS
from tests.paths import REPO

# Runs command lines one after the other in one process, and prints what became of each.
DRIVER = """
import io, json, sys, traceback
from contextlib import redirect_stdout
from naturelm.cli import main
for line in json.loads(sys.argv[1]):
    try:
        with redirect_stdout(io.StringIO()) as printed:
            code = main(line, standalone_mode=False) or 0
        print(json.dumps([line, code, printed.getvalue()]))
    except BaseException:
        print(json.dumps([line, 1, traceback.format_exc()]))
"""

READING = [
    ["plan", "night", "--out", "tables", "--workers", "0", "--no-trial"],
    ["status", "tables"],
    ["query", "tables", "SELECT path, label FROM detections ORDER BY path, start_s"],
    ["summary", "tables"],
    ["events", "tables"],
    ["clips", "tables", "--out", "clips", "--top", "1", "--spectrogram"],
    ["report", "tables", "--out", "report.html"],
    ["models"],
    *(["export", "tables", "--format", name, "--out", f"out-{name}"] for name in FORMATS),
]
APP = """
from pathlib import Path
from naturelm.app.ask import Asker
from naturelm.app.explore import Results
from naturelm.app.server import build_app
print(type(build_app(Asker("pocket", None), Results(Path("tables"), None))).__name__)
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a night of two recordings."""
    directory = tmp_path_factory.mktemp("windows")
    for path in make_night(directory / "night"):
        if path.name not in ("20260514_213000.WAV", "SMA00307_20260515_004500.flac"):
            path.unlink()
    return directory


def python(code: str, workplace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    search_path = os.pathsep.join(map(str, (REPO / "tests/as_on_windows", REPO)))
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": search_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import fcntl",
        "import resource",
        "from os import sysconf",
        "import os; os.sched_getaffinity(0)",
        "import signal; signal.SIGKILL",
        "import signal; signal.signal(signal.Signals(1), signal.SIG_DFL)",
        "import select; select.poll()",
        "import os; os.open('.', os.O_RDONLY)",
        "import os; os.kill(1, 0)",
    ],
)
def test_what_windows_lacks_is_taken_from_this_package_and_from_no_other(
    statement: str, tmp_path: Path
) -> None:
    code = "exec({!r}, {{'__name__': {!r}, '__builtins__': __builtins__}})"
    assert python(code.format(statement, "naturelm.example"), tmp_path).returncode == 1
    if "SIGKILL" in statement or "import fcntl" in statement:
        assert python(code.format(statement, "torch.example"), tmp_path).returncode == 0


@pytest.mark.slow
def test_an_archive_is_processed_and_read(workplace: Path) -> None:
    lines = [["process", "night", "--out", "tables", "--workers", "0"], *READING]
    done = python(DRIVER, workplace, json.dumps(lines))
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line for line, _, _ in results] == lines, done.stderr
    for line, code, printed in results:
        assert code == 0, f"{line}\n{printed}\n{done.stderr}"
    printed = {line[0]: text for line, _, text in results}
    assert "Owl" in printed["query"]
    assert "complete" in printed["status"]
    assert (workplace / "report.html").is_file()
    assert (workplace / "clips/clips.csv").is_file()


@pytest.mark.slow
def test_the_app_is_built(workplace: Path) -> None:
    if not (workplace / "tables").exists():
        python(DRIVER, workplace, json.dumps([["process", "night", "--out", "tables", "--workers", "0"]]))
    done = python(APP, workplace)
    assert done.stdout.split() == ["FastAPI"], done.stderr
