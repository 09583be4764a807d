"""Stages segments as they come, and publishes whole days."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from naturelm.archive.figures import Counts
from naturelm.config.archive import ArchiveConfig
from naturelm.results.layout import writes_to
from naturelm.results.output import Output
from naturelm.results.rows import AnsweredSegment, segment_tables, vector_tables
from naturelm.results.schemas import ANSWERS, CAPTIONS, DETECTIONS, EMBEDDINGS
from naturelm.results.statuses import UNREACHABLE
from naturelm.segments import Day, Segment

_COMMIT_THREADS = 4


class Committer:
    """Stages segments as they come, and publishes a day when its last segment is staged.

    What it cannot write ends the run with `RunStopped`.
    """

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
        if answered.status == UNREACHABLE:
            self._counts.unreachable += 1
            self._counts.failures.append(f"{answered.segment.recording.path}: {answered.error}")
            return
        with writes_to(self._output.directory):
            self._waiting[self._pool.submit(self._stage, answered)] = answered
            # Results must not pile up faster than the disk takes them.
            while len(self._waiting) > 4 * _COMMIT_THREADS:
                self._settle(next(iter(self._waiting)))
            for done in [future for future in self._waiting if future.done()]:
                self._settle(done)

    def finish(self) -> None:
        with writes_to(self._output.directory):
            while self._waiting:
                self._settle(next(iter(self._waiting)))
            # Days that an earlier run staged whole and did not come to publish.
            for day in [day for day, missing in self._missing.items() if not missing]:
                self._publish(day)

    def close(self) -> None:
        """Wait for what is being written; what has not begun is left to a later run."""
        self._pool.shutdown(cancel_futures=True)

    def lacks(self, segment: Segment) -> bool:
        """Whether a segment is this committer's and not committed."""
        return segment.id in self._missing.get(segment.day, ())

    @property
    def missing(self) -> set[str]:
        """Ids of segments that are not committed."""
        return set().union(*self._missing.values())

    def _stage(self, answered: AnsweredSegment) -> dict[str, Any]:
        tables = segment_tables(answered, self._queries, self._model)
        self._output.staged.write(answered.segment.id, tables)
        return {
            "answers": tables[ANSWERS].num_rows,
            "captions": tables[CAPTIONS].num_rows,
            "labels": tables[DETECTIONS]["label"].to_pylist(),
        }

    def _settle(self, future: Future[dict[str, Any]]) -> None:
        answered = self._waiting.pop(future)
        rows = future.result()
        segment = answered.segment
        self._count(answered, rows)
        missing = self._missing[segment.day]
        missing.discard(segment.id)
        if not missing:
            self._publish(segment.day)

    def _count(self, answered: AnsweredSegment, rows: dict[str, Any]) -> None:
        count_segment(self._counts, answered)
        self._counts.answers += rows["answers"]
        self._counts.captions += rows["captions"]
        self._counts.detections.update(rows["labels"])

    def _publish(self, day: Day) -> None:
        del self._missing[day]
        self._count_recordings(self._output.publish(day, self._all[day]))

    def _count_recordings(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._counts.recordings[row["status"]] += 1
            if row["status"] != "ok":
                self._counts.failures.append(f"{row['path']}: {row['status']} ({row['error']})")


class VectorCommitter(Committer):
    """A `Committer` of embeddings; those of segments that also have answers are counted there.

    Parameters
    ----------
    also_answered : collection of str
        Ids of segments that another committer counts.
    """

    def __init__(self, *arguments: Any, also_answered: Collection[str]) -> None:
        super().__init__(*arguments)
        self._also_answered = also_answered

    def _stage(self, answered: AnsweredSegment) -> dict[str, Any]:
        tables = vector_tables(answered)
        self._output.staged.write(answered.segment.id, tables)
        return {"embeddings": tables[EMBEDDINGS].num_rows}

    def _count(self, answered: AnsweredSegment, rows: dict[str, Any]) -> None:
        self._counts.embeddings += rows["embeddings"]
        if answered.segment.id not in self._also_answered:
            count_segment(self._counts, answered)

    def _count_recordings(self, rows: list[dict[str, Any]]) -> None:
        if not self._also_answered:
            super()._count_recordings(rows)


def count_segment(counts: Counts, answered: AnsweredSegment) -> None:
    """Count a segment that was committed."""
    counts.segments += 1
    counts.windows += len(answered.windows)
    counts.gated += sum(answered.gated)
    counts.sound_s += answered.decoded_s
