"""Things that go wrong at night, done for real to a run: used by `test_faults` and `tests.measure.faults`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.archive.stub_model import SLEEP_S
from tests.paths import REPO

PATIENCE_S = 120.0


def start(
    model: str,
    archive: Path,
    out: Path,
    *options: str,
    sleep_s: float = 0.0,
    prefix: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a driver as a terminal does: in a separate process group."""
    command = [sys.executable, "-m", "tests.archive.fault_driver", model, str(archive), "--out", str(out)]
    return subprocess.Popen(
        [*prefix, *command, *options],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO), SLEEP_S: str(sleep_s)} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def committed(out: Path) -> int:
    """Segments that are staged, and files that are published."""
    return len(list(out.glob("_staging/answers/*.parquet"))) + len(list(out.glob("answers/**/*.parquet")))


def wait_until(holds: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something to hold, while a process runs.

    Raises
    ------
    AssertionError
        The process ended first, or it takes too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the run was over before:\n{process.communicate()[0]}")
        if time.monotonic() > deadline:
            raise AssertionError("waited too long")
        time.sleep(0.01)


def wait_for_output(process: subprocess.Popen[str], words: str) -> None:
    """Wait until a process prints some words; the output up to them is consumed.

    Raises
    ------
    AssertionError
        It ended without printing them.
    """
    output = []
    for line in process.stdout or ():
        output.append(line)
        if words in line:
            return
    raise AssertionError(f"the run was over before:\n{''.join(output)}")


def wait_for_exit(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output."""
    output = process.communicate(timeout=PATIENCE_S)[0]
    return process.returncode, output


def descendants(pid: int, needle: str, direct_only: bool = False) -> list[int]:
    """Processes below one whose command line contains some text; `direct_only`: children, not their children."""
    children: dict[int, list[int]] = {}
    lines: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            lines[int(entry.name)] = (
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], list(children.get(pid, ()))
    while waiting:
        one = waiting.pop()
        if not direct_only:
            waiting += children.get(one, ())
        if needle in lines.get(one, ""):
            found.append(one)
    return found


def kill_one(pid: int, needle: str, number: int = signal.SIGKILL, direct_only: bool = False) -> bool:
    """Send a signal to one process below `pid`; False where there is none."""
    for found in descendants(pid, needle, direct_only):
        try:
            os.kill(found, number)
        except ProcessLookupError:
            continue
        return True
    return False
