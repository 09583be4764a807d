"""Runs of the job without a model: scanning, settling and committing are real, answers follow from the content."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from naturelm.archive.figures import Counts
from naturelm.archive.scan import Changes, new_segment_windows, scan_archive, settle
from naturelm.archive.stages import Decode
from naturelm.archive.writer import Committer
from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load_archive_config
from naturelm.models.answer import Answer
from naturelm.results.output import Output
from naturelm.results.rows import AnsweredSegment, unread
from naturelm.segments import Segment
from naturelm.windows import Window

RATE_HZ = 1000


@dataclass(frozen=True)
class Ran:
    changes: Changes
    done: list[Segment]

    @property
    def places(self) -> list[tuple[str, int]]:
        return sorted((segment.recording.path, segment.first_window) for segment in self.done)


def settings(**sections: Any) -> ArchiveConfig:
    """Segments of two windows of ten seconds."""
    return load_archive_config(None, {"job": {"segment_minutes": 1 / 3}} | sections)


def record(path: Path, seed: int, seconds: float = 65.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE_HZ)).astype(np.float32)
    soundfile.write(path, noise, RATE_HZ)
    return path


def process(
    archive: Path | list[Path],
    out: Path,
    config: ArchiveConfig | None = None,
    *,
    prune: bool = False,
    retry_failed: bool = False,
    limit: int | None = None,
    failing: Collection[str] = (),
) -> Ran:
    """Do what a run would, or the first `limit` segments of it; recordings named `failing` time out."""
    config = config or settings()
    scan = scan_archive(archive if isinstance(archive, list) else [archive], out, config)
    output = Output(out, config.analysis("r"), config.model_dump(mode="json"), new_segment_windows(config))
    changes, todo = settle(scan, output, config, retry_failed=retry_failed, prune=prune)
    silent = [segment for segment in todo.due if not segment.window_count]
    due = silent + [part for read in todo.reads(config.selection) for part in read.segments]
    committer = Committer(
        output, config, "stub", [*todo.due, *todo.staged], {s.id for s in todo.staged}, Counts()
    )
    try:
        for segment in due[:limit]:
            committer.commit(_answer(segment, config, failing))
        if limit is None:
            committer.finish()
    finally:
        committer.close()
    return Ran(changes, due[:limit])


def _answer(segment: Segment, config: ArchiveConfig, failing: Collection[str]) -> AnsweredSegment:
    if not segment.window_count:
        return unread(segment)
    if segment.recording.path in failing:
        return AnsweredSegment(segment, (), (), 0.0, "timeout", "decoding made no progress")
    windows = tuple(segment.windows(segment.recording.duration_s or 0.0, config.windows))
    answers = _answers(segment, windows, config)
    return AnsweredSegment(segment, windows, answers, segment.own_end_s - segment.start_s, "ok", None)


def _answers(
    segment: Segment, windows: tuple[Window, ...], config: ArchiveConfig
) -> tuple[tuple[Answer, ...], ...]:
    return tuple(
        tuple(
            Answer(
                text=f"{query.id} {segment.recording.content} {window.index}",
                token_ids=(1,),
                score=0.5,
                token_scores=(0.5,),
                token_ends=(3,),
            )
            for query in config.queries
        )
        for window in windows
    )


def process_decoded(
    archive: Path, out: Path, config: ArchiveConfig | None = None, *, limit: int | None = None
) -> None:
    """As `process`, with the sound decoded: the rows hold what was measured of it."""
    config = config or settings()
    scan = scan_archive([archive], out, config)
    output = Output(out, config.analysis("r"), config.model_dump(mode="json"), new_segment_windows(config))
    _, todo = settle(scan, output, config, retry_failed=False, prune=False)
    staged = {segment.id for segment in todo.staged}
    committer = Committer(output, config, "stub", [*todo.due, *todo.staged], staged, Counts())
    decode = Decode(config)
    decoded = (part for read in todo.reads(config.selection) for part in decode(read))
    try:
        for segment in todo.due:
            if not segment.window_count:
                committer.commit(unread(segment))
        for part in islice(decoded, limit):
            committer.commit(
                AnsweredSegment(
                    segment=part.segment,
                    windows=part.windows,
                    answers=_answers(part.segment, part.windows, config),
                    decoded_s=part.decoded_s,
                    status=part.status,
                    error=part.error,
                    marks=part.marks,
                )
            )
        if limit is None:
            committer.finish()
    finally:
        committer.close()
        decode.close()


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    files = sorted(out.glob(f"{name}/**/*.parquet"))
    if not files:
        return []
    tables = [pq.read_table(path, partitioning=None).replace_schema_metadata() for path in files]
    return list(pa.concat_tables(tables).to_pylist())


def tables(out: Path) -> dict[str, bytes]:
    """The published files."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*.parquet")
        if not path.relative_to(out).parts[0].startswith("_")
    }
