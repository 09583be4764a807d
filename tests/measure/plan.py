"""Time and memory of planning, resuming and publishing archives of many recordings, with a model that answers at once.

.venv/bin/python -m tests.measure.plan /tmp/measure_plan 1000 10000 100000

Recordings are sparse WAV files of 100 minutes: they have sizes, headers and contents of their own and take a disk block
each. A window is 5 minutes here, so that a segment of 10 minutes has two answers and not 120: the work is that of ten
segments for each recording. Each step is a process of its own. The last thousand recordings are committed as the job
does it: half of them, an interruption, and the rest. The days before them are written at once, as earlier runs would
have left them.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from naturelm.archive.figures import Counts
from naturelm.archive.scan import new_segment_windows, scan_archive, settle
from naturelm.archive.work import Todo
from naturelm.archive.writer import Committer
from naturelm.config.loading import load_archive_config
from naturelm.models.answer import Answer
from naturelm.recordings import Recording
from naturelm.results.output import Output
from naturelm.results.rows import AnsweredSegment, segment_tables
from naturelm.results.scans import Manifests
from naturelm.results.schemas import TABLES
from naturelm.segments import Day, Segment, cut_segments
from naturelm.tables.query import open_tables

STEPS = ("scan", "rescan", "todo", "fill", "half", "resume", "again", "query")
RATE_HZ, SECONDS = 8000, 6000
CONFIG = load_archive_config(
    None,
    {
        "queries": [{"id": "species", "prompt": "Which species?"}],
        "windows": {"length_s": 300.0, "hop_s": 300.0},
        "selection": {"order": "oldest"},
    },
)
HEARD = Answer(text="Owl", token_ids=(1,), score=0.5, token_scores=(0.5,), token_ends=(3,))


def make(archive: Path, count: int) -> None:
    """Ten recordings a day at each of as many stations as it takes to have a hundred days."""
    data = RATE_HZ * SECONDS * 2
    header = struct.pack("<4sI4s", b"RIFF", 36 + data, b"WAVE")
    header += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    header += struct.pack("<4sI", b"data", data)
    for number in range(count):
        station, rest = divmod(number, 1000)
        day, hour = divmod(rest, 10)
        start = datetime(2024, 3, 1) + timedelta(days=day, hours=2 * hour)
        path = archive / f"S{station:03}" / f"{start:%Y%m%d}" / f"{start:%Y%m%d_%H%M%S}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(header + struct.pack("<q", number))
            file.truncate(len(header) + data)


def step(name: str, archive: Path, out: Path) -> dict[str, Any]:
    """Do one step and say what it was."""
    if name == "query":
        answers, segments = (
            open_tables(out)
            .sql("SELECT count(*), count(DISTINCT (recording_id, start_s)) FROM answers")
            .fetchall()[0]
        )
        return {"answers": answers, "windows": segments}
    if name in ("scan", "rescan"):
        scan = scan_archive([archive], out, CONFIG)
        Manifests(out).write(
            scan.own, scan.recordings, scan.scope, CONFIG.windows, new_segment_windows(CONFIG)
        )
        return {"recordings": len(scan.recordings)}
    if name == "todo":
        _, todo = _begin(archive, out)
        reads = todo.reads(CONFIG.selection)
        return {
            "reads": len(reads),
            "segments": len(todo.due),
            "windows": sum(s.window_count for s in todo.due),
        }
    return _fill(archive, out) if name == "fill" else _run(archive, out, half=name == "half")


def _begin(archive: Path, out: Path) -> tuple[Output, Todo]:
    scan = scan_archive([archive], out, CONFIG)
    output = Output(out, CONFIG.analysis("r"), CONFIG.model_dump(mode="json"), new_segment_windows(CONFIG))
    return output, settle(scan, output, CONFIG, retry_failed=False, prune=False)[1]


def _fill(archive: Path, out: Path) -> dict[str, Any]:
    """Put the rows of all days but the last hundred where earlier runs would have left them."""
    output, todo = _begin(archive, out)
    days: dict[Day, dict[str, Recording]] = defaultdict(dict)
    for segment in todo.due:
        days[segment.day][segment.recording.recording_id] = segment.recording
    for day in sorted(days)[:-100]:
        # A recording in one piece has the rows of its ten segments.
        whole = [cut_segments(recording, CONFIG.windows, 20)[0] for recording in days[day].values()]
        tables = [segment_tables(_answer(segment), CONFIG.queries, "stub") for segment in whole]
        for name in TABLES:
            rows = pa.concat_tables([table[name].drop_columns(["station", "date"]) for table in tables])
            output.published.write(name, day, rows, output.analysis.hash)
    return {"days": max(0, len(days) - 100)}


def _run(archive: Path, out: Path, half: bool) -> dict[str, Any]:
    began = time.monotonic()
    output, todo = _begin(archive, out)
    due = [segment for read in todo.reads(CONFIG.selection) for segment in read.segments]
    staged = {segment.id for segment in todo.staged}
    committer = Committer(output, CONFIG, "stub", [*todo.due, *todo.staged], staged, Counts())
    ready_s = time.monotonic() - began
    # A stop in the middle of a day: of the last one some segments stay staged.
    for segment in due[: len(due) // 2 + 7] if half else due:
        committer.commit(_answer(segment))
    committer.finish()
    committer.close()
    return {"due": len(due), "staged": len(staged), "s_until_work": round(ready_s, 1)}


def _answer(segment: Segment) -> AnsweredSegment:
    windows = tuple(segment.windows(segment.recording.duration_s or 0.0, CONFIG.windows))
    decoded_s = segment.own_end_s - segment.start_s
    return AnsweredSegment(segment, windows, ((HEARD,),) * len(windows), decoded_s, "ok", None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("counts", type=int, nargs="*")
    parser.add_argument("--step", choices=STEPS)
    given = parser.parse_args()
    archive, out = given.directory / "archive", given.directory / "out"
    if given.step:
        began = time.monotonic()
        measured = step(given.step, archive, out)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = spent.ru_utime + spent.ru_stime
        measured |= {"s": round(time.monotonic() - began, 1), "cpu_s": round(cpu_s, 1)}
        measured |= {"peak_mb": round(spent.ru_maxrss / 1024)}
        print(json.dumps(measured))
        return
    for count in given.counts:
        shutil.rmtree(given.directory, ignore_errors=True)
        make(archive, count)
        for name in STEPS:
            command = [
                sys.executable,
                "-m",
                "tests.measure.plan",
                str(given.directory),
                "--step",
                name,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            print(count, name, done.stdout.strip() or done.stderr, flush=True)
        manifest = next((out / "_plans").iterdir()).stat().st_size
        print(count, "manifest", json.dumps({"bytes": manifest}), flush=True)


if __name__ == "__main__":
    main()
