"""Readers see exactly what is committed, each segment once, whatever partial and interrupted runs came before."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from naturelm.archive import writer
from naturelm.cli import main
from naturelm.config.archive import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.ids import split_segment_id
from naturelm.recordings import find_audio, probe_all
from naturelm.results import parquet
from naturelm.results.visible import committed
from naturelm.segments import cut_segments
from naturelm.tables.query import open_tables
from naturelm.tables.summary import summarise
from tests.archive import stub_runs
from tests.archive.stub_runs import record

# Four segments each, the last one of a single window; the first one of these starts before four o'clock.
NAMES = ("A/20240501_035940.wav", "A/20240501_041000.wav", "B/20240502_040000.wav", "B/notes.wav")
LATER = ("A/20240501_050000.wav", "C/20240503_040000.wav", "A/20240502_035940.wav")
SELECTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"hours": "03:00-04:00"},
    {"hours": "04:00-04:05"},
    {"dates": "2024-05-01"},
    {"dates": "2024-05-02..2024-05-03"},
    {"sample": 0.3},
    {"sample": 0.6},
)


class PowerCut(BaseException):
    """The machine is gone: nothing that comes after it reaches the disk."""


@dataclass(frozen=True)
class Run:
    """A run; `cut_after` is the number of changes of files that reach the disk, None for all."""

    selection: int = 0
    retry_failed: bool = False
    prune: bool = False
    failing: frozenset[int] = frozenset()
    limit: int | None = None
    cut_after: int | None = None


@dataclass(frozen=True)
class Arrives:
    which: int


@dataclass(frozen=True)
class Goes:
    which: int


RUNS = st.builds(
    Run,
    selection=st.integers(0, len(SELECTIONS) - 1),
    retry_failed=st.booleans(),
    prune=st.booleans(),
    failing=st.frozensets(st.integers(0, len(NAMES) - 1), max_size=2),
    limit=st.none() | st.integers(0, 9),
    cut_after=st.none() | st.integers(0, 120),
)
STEPS = st.lists(
    RUNS
    | st.builds(Arrives, st.integers(0, len(LATER) - 1))
    | st.builds(Goes, st.integers(0, len(NAMES) - 2)),
    min_size=1,
    max_size=6,
)

# A recording and the first window of a segment.
Place = tuple[str, int]


@dataclass
class World:
    """An archive, the results of runs over it, and what is committed there: whether each segment was answered.

    A segment that is done again shows one of its outcomes, and the last one when the run comes to its end.
    """

    archive: Path
    out: Path
    paths: dict[str, str] = field(default_factory=dict)
    segments: dict[Place, range] = field(default_factory=dict)
    committed: dict[Place, list[bool]] = field(default_factory=dict)

    def add(self, name: str) -> None:
        """A recording that is there from now on."""
        if not (self.archive / name).exists():
            # Each name has its own sound: equal content would be a recording that moved.
            record(self.archive / name, seed=crc32(name.encode()))

    def remove(self, name: str) -> None:
        (self.archive / name).unlink(missing_ok=True)

    def run(self, step: Run) -> None:
        config = stub_runs.settings(selection=SELECTIONS[step.selection])
        self._note_recordings(config)
        here = {path.relative_to(self.archive).as_posix() for path in self.archive.rglob("*.wav")}
        failing = {NAMES[which] for which in step.failing}
        arrived: list[Place] = []
        # They are uncommitted before they are processed again.
        retried = self._failed_staged() if step.retry_failed else set()
        cut = False
        try:
            with _disk(step.cut_after, arrived):
                stub_runs.process(
                    self.archive,
                    self.out,
                    config,
                    prune=step.prune,
                    retry_failed=step.retry_failed,
                    limit=step.limit,
                    failing=failing,
                )
        except PowerCut:
            cut = True
        except NaturelmError as error:
            if "nothing is within" not in str(error):
                raise
            # It is refused before anything is changed.
            return
        for recording_id, first in arrived:
            place = self.paths[recording_id], first
            outcome = place[0] not in failing
            if cut or step.limit is not None:
                self.committed.setdefault(place, []).append(outcome)
            else:
                self.committed[place] = [outcome]
        for place in retried - {(self.paths[key], first) for key, first in arrived}:
            if place not in self._failed_staged():
                del self.committed[place]
        if not step.prune:
            return
        for place in [place for place in self.committed if place[0] not in here]:
            # A cut comes before these rows go, or after.
            if not cut or place not in self._seen():
                del self.committed[place]

    def check(self) -> None:
        """Compare what `query`, `summary` and `status` say with what is committed."""
        if not (self.out / "analysis.yaml").exists():
            assert not self.committed
            return
        tables = open_tables(self.out)
        answers = tables.sql('SELECT recording_id, "window", query FROM answers').fetchall()
        assert max(Counter(answers).values(), default=1) == 1, "a row is there twice"
        seen = {(self.paths[key], window) for key, window, _ in answers}
        rows = {
            row[0]: row[1:]
            for row in tables.sql("SELECT path, status, windows, decoded_s FROM recordings").fetchall()
        }
        assert len(rows) == tables.sql("SELECT count(*) FROM recordings").fetchall()[0][0]
        assert set(rows) == {path for path, _ in self.committed}
        expected: set[Place] = set()
        for path in rows:
            worst, windows, decoded_s = "ok", 0, 0.0
            for place, outcomes in self.committed.items():
                if place[0] != path:
                    continue
                own = self.segments[place]
                answered = any((path, window) in seen for window in own)
                assert answered in outcomes, f"{place} is not what was committed"
                if not answered:
                    worst = "timeout"
                    continue
                expected |= {(path, window) for window in own}
                windows += len(own)
                decoded_s += _own_seconds(own)
            status, counted, seconds = rows[path]
            assert (status, counted, seconds) == (worst, windows, pytest.approx(decoded_s)), path
        assert seen == expected
        detections = tables.sql("SELECT count(*) FROM detections").fetchall()[0][0]
        captions = tables.sql("SELECT count(*) FROM captions").fetchall()[0][0]
        assert detections == captions == len(answers) / 2
        self._check_verbs(tables, {path: row[0] for path, row in rows.items()}, detections)

    def _check_verbs(self, tables: Any, statuses: dict[str, str], detections: int) -> None:
        found = summarise(tables, by="label")
        assert sum(label.detections for label in found.labels) == detections
        assert {name: count for name, (count, _) in found.statuses.items()} == Counter(statuses.values())
        (self.out / "_runs").mkdir(exist_ok=True)
        began = "2026-01-01T00:00:00+00:00"
        run = {"status": "complete", "started": began, "host": "here", "pid": 1, "finished": began}
        (self.out / "_runs/20260101T000000.000000Z.json").write_text(json.dumps(run))
        done = CliRunner().invoke(main, ["status", str(self.out), "--format", "json"])
        assert done.exit_code == 0, done.output
        counts = json.loads(done.stdout)["recordings"]
        assert {name: of["recordings"] for name, of in counts.items()} == Counter(statuses.values())

    def _failed_staged(self) -> set[Place]:
        if not (self.out / "analysis.yaml").exists():
            return set()
        _, pending = committed(self.out)
        places = {(self.paths[key], first) for key, first in map(split_segment_id, pending)}
        return {place for place in places if False in self.committed.get(place, ())}

    def _seen(self) -> set[Place]:
        """Segments of which `query` shows windows, and all of recordings that have rows without any."""
        tables = open_tables(self.out)
        windows = tables.sql(
            'SELECT DISTINCT path, "window" FROM answers JOIN recordings USING (recording_id)'
        )
        shown = set(windows.fetchall())
        silent = {
            path for (path,) in tables.sql("SELECT path FROM recordings WHERE status <> 'ok'").fetchall()
        }
        return {
            place
            for place, own in self.segments.items()
            if place[0] in silent or any((place[0], window) in shown for window in own)
        }

    def _note_recordings(self, config: ArchiveConfig) -> None:
        for recording in probe_all(find_audio([self.archive]).files):
            self.paths[recording.recording_id] = recording.path
            for segment in cut_segments(recording, config.windows, 2):
                first = segment.first_window
                self.segments[recording.path, first] = range(first, first + segment.window_count)


def _own_seconds(windows: range) -> float:
    return min(65.0, 10.0 * windows.stop) - 10.0 * windows.start


@contextmanager
def _disk(cut_after: int | None, arrived: list[Place]) -> Iterator[None]:
    """Count changes of files; note segments as they are committed; and let none through after the last one."""
    changes = 0
    replace, unlink = os.replace, Path.unlink

    def change() -> None:
        nonlocal changes
        changes += 1
        if cut_after is not None and changes > cut_after:
            raise PowerCut

    def counted_replace(source: Any, target: Any) -> None:
        change()
        replace(source, target)
        if Path(target).parent.name == "answers" and Path(target).parents[1].name == "_staging":
            arrived.append(split_segment_id(Path(target).stem))

    def counted_unlink(path: Path, missing_ok: bool = False) -> None:
        change()
        unlink(path, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", counted_replace)
        patch.setattr(Path, "unlink", counted_unlink)
        # One after the other, so that the same steps always do the same.
        patch.setattr(parquet, "_THREADS", 1)
        patch.setattr(writer, "_COMMIT_THREADS", 1)
        yield


# Many random examples take minutes.
@pytest.mark.timeout(1800)
@given(STEPS)
def test_query_shows_exactly_the_committed_segments_each_once(steps):
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory) / "archive", Path(directory) / "out")
        for name in NAMES:
            world.add(name)
        for step in steps:
            match step:
                case Arrives(which):
                    world.add(LATER[which])
                case Goes(which):
                    world.remove(NAMES[which])
                case Run():
                    world.run(step)
                    world.check()
        # Nothing that came before keeps a later run from completing the tables.
        world.run(Run(retry_failed=True, prune=True))
        world.check()
        here = {path.relative_to(world.archive).as_posix() for path in world.archive.rglob("*.wav")}
        assert set(world.committed) == {place for place in world.segments if place[0] in here}
        assert not [path for path in (world.out / "_staging").rglob("*") if path.is_file()]
        assert stub_runs.tables(world.out) == _at_once(world, Path(directory) / "fresh")


def _at_once(world: World, out: Path) -> dict[str, bytes]:
    """What one undisturbed run writes."""
    stub_runs.process(world.archive, out)
    return stub_runs.tables(out)
