"""The archive job: scan, plan, answer, commit, publish, record."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from naturelm import __version__
from naturelm.config import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.models.presets import ModelSource, fetch, resolve
from naturelm.pipeline.commit import RUNS, Output, write_whole
from naturelm.pipeline.plan import Day, Read, Segment, cut_segments, group_reads
from naturelm.pipeline.progress import Progress
from naturelm.pipeline.rows import AnsweredSegment, segment_tables, unread
from naturelm.recordings import Recording, scan
from naturelm.schemas import ANSWERS, CAPTIONS, DETECTIONS, SCHEMA_VERSION

_COMMIT_THREADS = 4
_VERSIONS_OF = ("torch", "transformers", "peft", "ray", "pyarrow", "soundfile", "soxr")


@dataclass(slots=True)
class Counts:
    """What a run did.

    Attributes
    ----------
    recordings : Counter
        Recordings of the archive by status, those of earlier runs included under "done before".
    segments, windows : int
        Committed by this run.
    sound_s : float
        Seconds of sound in those segments.
    answers, captions : int
        Rows written.
    detections : Counter
        Rows written, by label.
    failures : list of str
        One sentence for each recording that is not `ok`.
    wall_s : float
        Seconds the run took.
    """

    recordings: Counter[str] = field(default_factory=Counter)
    segments: int = 0
    windows: int = 0
    sound_s: float = 0.0
    answers: int = 0
    captions: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def times_real_time(self) -> float:
        return self.sound_s / self.wall_s if self.wall_s > 0 else 0.0


def process_archive(paths: Sequence[Path], out: Path, config: ArchiveConfig, progress: Progress) -> Counts:
    """Run the model over an archive and write its tables; what `out` already holds is not done again.

    Parameters
    ----------
    paths : sequence of Path
        Directories and recordings.
    out : Path
        Output directory; it holds one analysis.
    config : ArchiveConfig
        Model, queries, windows and the rest.
    progress : Progress
        Told what happens.

    Raises
    ------
    NaturelmError
        A path is missing, there are no recordings, the model is unknown, or `out` cannot be used.
    """
    began = time.monotonic()
    # Names are checked first and weights are fetched last: a mistake is told before anything slow begins.
    resolve(config.model.name)
    segment_windows = max(1, round(config.job.segment_minutes * 60 / config.windows.hop_s))
    recordings = _scan(paths)
    model = _known_weights(config.model.name)
    output = Output(
        out, config.analysis(model.revision or ""), config.model_dump(mode="json"), segment_windows
    )
    run = _RunRecord(out, paths, recordings, config, output.analysis_hash)

    published = output.published()
    staged = output.recover(published)
    counts = Counts(recordings=Counter({"done before": sum(r.recording_id in published for r in recordings)}))
    segments = [
        segment
        for recording in recordings
        if recording.recording_id not in published
        for segment in cut_segments(recording, config.windows, output.segment_windows)
    ]
    reads = group_reads((segment for segment in segments if segment.window_count), staged)
    silent = [unread(s) for s in segments if not s.window_count and s.id not in staged]

    committer = _Committer(output, config, model.name, segments, staged, counts)
    progress.start(sum(read.sound_s for read in reads), len(recordings), counts.recordings["done before"])
    complete = False
    try:
        for answered in _results(silent, reads, config):
            committer.commit(answered)
            progress.update(counts)
        committer.finish()
        complete = True
    finally:
        committer.close()
        progress.stop()
        counts.wall_s = time.monotonic() - began
        run.finish(counts, complete)
    return counts


def _scan(paths: Sequence[Path]) -> list[Recording]:
    recordings = scan(paths)
    if not recordings:
        where = ", ".join(str(path) for path in paths)
        raise NaturelmError(
            f"{where}: no recordings found; give a directory or file with WAV, FLAC, MP3 or the like"
        )
    return recordings


def _known_weights(name: str) -> ModelSource:
    """The model's source, its weights on this machine: only they tell which analysis this is."""
    source = resolve(name)
    if source.revision is None:
        fetch(source)
        source = resolve(name)
    return source


def _results(
    silent: Iterable[AnsweredSegment], reads: Sequence[Read], config: ArchiveConfig
) -> Iterator[AnsweredSegment]:
    yield from silent
    if not reads:
        return
    if config.job.workers == 0:
        from naturelm.pipeline.local import answer_here

        yield from answer_here(reads, config)
    else:
        from naturelm.pipeline.ray_adapter import answer_on_ray

        yield from answer_on_ray(reads, config)


class _Committer:
    """Stages segments as they come, and publishes a day when its last segment is staged."""

    def __init__(
        self,
        output: Output,
        config: ArchiveConfig,
        model: str,
        segments: Sequence[Segment],
        staged: set[str],
        counts: Counts,
    ) -> None:
        self._output = output
        self._queries = config.queries
        self._model = model
        self._counts = counts
        self._pool = ThreadPoolExecutor(_COMMIT_THREADS)
        self._waiting: dict[Future[dict[str, Any]], AnsweredSegment] = {}
        self._all: dict[Day, list[str]] = {}
        self._missing: dict[Day, set[str]] = {}
        for segment in segments:
            self._all.setdefault(segment.day, []).append(segment.id)
            self._missing.setdefault(segment.day, set())
            if segment.id not in staged:
                self._missing[segment.day].add(segment.id)

    def commit(self, answered: AnsweredSegment) -> None:
        self._waiting[self._pool.submit(self._stage, answered)] = answered
        # Results must not pile up faster than the disk takes them.
        while len(self._waiting) > 4 * _COMMIT_THREADS:
            self._settle(next(iter(self._waiting)))
        for done in [future for future in self._waiting if future.done()]:
            self._settle(done)

    def finish(self) -> None:
        while self._waiting:
            self._settle(next(iter(self._waiting)))
        # Days that an earlier run staged whole and did not come to publish.
        for day in [day for day, missing in self._missing.items() if not missing]:
            self._publish(day)

    def close(self) -> None:
        self._pool.shutdown()

    def _stage(self, answered: AnsweredSegment) -> dict[str, Any]:
        tables = segment_tables(answered, self._queries, self._model)
        self._output.stage(answered.segment.id, tables)
        return {
            "answers": tables[ANSWERS].num_rows,
            "captions": tables[CAPTIONS].num_rows,
            "labels": tables[DETECTIONS]["label"].to_pylist(),
        }

    def _settle(self, future: Future[dict[str, Any]]) -> None:
        answered = self._waiting.pop(future)
        rows = future.result()
        segment = answered.segment
        self._counts.segments += 1
        self._counts.windows += len(answered.windows)
        self._counts.sound_s += answered.decoded_s
        self._counts.answers += rows["answers"]
        self._counts.captions += rows["captions"]
        self._counts.detections.update(rows["labels"])
        missing = self._missing[segment.day]
        missing.discard(segment.id)
        if not missing:
            self._publish(segment.day)

    def _publish(self, day: Day) -> None:
        del self._missing[day]
        for row in self._output.publish(day, self._all[day]):
            self._counts.recordings[row["status"]] += 1
            if row["status"] != "ok":
                self._counts.failures.append(f"{row['path']}: {row['status']} ({row['error']})")


class _RunRecord:
    """`_runs/<start>.json`: what ran where, on what, and how it went."""

    def __init__(
        self,
        out: Path,
        paths: Sequence[Path],
        recordings: Sequence[Recording],
        config: ArchiveConfig,
        analysis_hash: str,
    ) -> None:
        started = dt.datetime.now(dt.UTC)
        self._path = out / RUNS / f"{started:%Y%m%dT%H%M%S.%fZ}.json"
        self._record: dict[str, Any] = {
            "status": "running",
            "started": started.isoformat(),
            "paths": [str(path) for path in paths],
            "roots": sorted({recording.root for recording in recordings}),
            "analysis": analysis_hash,
            "schema_version": SCHEMA_VERSION,
            "config": config.model_dump(mode="json"),
            "versions": {"naturelm": __version__, "python": platform.python_version(), **_versions()},
            "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        }
        self._write()

    def finish(self, counts: Counts, complete: bool) -> None:
        self._record |= {
            "status": "complete" if complete else "interrupted",
            "finished": dt.datetime.now(dt.UTC).isoformat(),
            "counts": {field.name: getattr(counts, field.name) for field in fields(counts)}
            | {"times_real_time": counts.times_real_time},
        }
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._record, indent=2, ensure_ascii=False)
        write_whole(self._path, text.encode("utf-8", "surrogateescape"))


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS_OF:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
