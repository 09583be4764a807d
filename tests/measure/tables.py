"""Time and peak memory of the commands that read results, over a large synthetic directory.

    python -m tests.measure.tables DIRECTORY [RECORDINGS]

The directory is made where it is missing: 5,000 recordings of 2,000 detections each. Every command runs in a
process of its own; memory is that process's highest resident size.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.tables.make_tables import write_large

COUNT = "SELECT label, count(*) AS n, max(score) FROM detections GROUP BY label ORDER BY n DESC"
COMMANDS = {
    "query, one day": ["query", "{}", "SELECT count(*) FROM detections WHERE date = '2026-02-01'"],
    "query, count by label": ["query", "{}", COUNT],
    "query, every row to CSV": [
        "query",
        "{}",
        "FROM detections",
        "--format",
        "csv",
        "--out",
        "{out}/rows.csv",
    ],
    "query, sort every row": ["query", "{}", "FROM detections ORDER BY score DESC, start_local"],
    "summary": ["summary", "{}"],
    "summary --by label": ["summary", "{}", "--by", "label"],
    "events to Parquet": ["events", "{}", "--format", "parquet", "--out", "{out}/events.parquet"],
    "export raven, per recording": ["export", "{}", "--format", "raven", "--out", "{out}/raven"],
    "export raven, combined": ["export", "{}", "--format", "raven", "--out", "{out}/raven.txt"],
    "export birdnet-parquet": [
        "export",
        "{}",
        "--format",
        "birdnet-parquet",
        "--out",
        "{out}/birdnet.parquet",
    ],
    "export camtrap-dp": ["export", "{}", "--format", "camtrap-dp", "--out", "{out}/camtrap"],
}


def measure(arguments: list[str], log: Path) -> tuple[int, float, float, float]:
    """Run a command; its exit code, seconds by the clock and of processor, and peak MB."""
    started = time.monotonic()
    command = [sys.executable, "-c", "from naturelm.cli import main; main()", *arguments]
    pid = os.posix_spawn(
        sys.executable,
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)],
    )
    _, status, usage = os.wait4(pid, 0)
    clock_s = time.monotonic() - started
    return os.waitstatus_to_exitcode(status), clock_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    directory = Path(sys.argv[1])
    if not directory.exists():
        write_large(directory, int(sys.argv[2]) if len(sys.argv) > 2 else 5_000)
    with tempfile.TemporaryDirectory() as out:
        for name, arguments in COMMANDS.items():
            filled = [argument.format(directory, out=out) for argument in arguments]
            code, clock_s, processor_s, peak_mb = measure(filled, Path(out) / "log.txt")
            print(f"| {name} | {clock_s:.1f} | {processor_s:.1f} | {peak_mb:.0f} | {code} |", flush=True)


if __name__ == "__main__":
    main()
