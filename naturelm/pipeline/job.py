"""The archive job: scan, plan, answer, commit, publish, record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from naturelm.config import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.models.presets import ModelSource, fetch, resolve
from naturelm.pipeline.commit import Output
from naturelm.pipeline.committer import Committer
from naturelm.pipeline.counts import Counts
from naturelm.pipeline.plan import Read, cut_segments, group_reads
from naturelm.pipeline.progress import Progress
from naturelm.pipeline.rows import AnsweredSegment, unread
from naturelm.pipeline.run_record import RunRecord
from naturelm.recordings import Recording, scan


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
    _check_label_lists(recordings, config)
    model = _known_weights(config.model.name)
    output = Output(
        out, config.analysis(model.revision or ""), config.model_dump(mode="json"), segment_windows
    )
    run = RunRecord(out, paths, recordings, config, output.analysis_hash)

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

    committer = Committer(output, config, model.name, segments, staged, counts)
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


def _check_label_lists(recordings: Sequence[Recording], config: ArchiveConfig) -> None:
    stations = sorted({recording.station for recording in recordings})
    for query in config.queries:
        if query.kind != "classification":
            continue
        without = [station for station in stations if not query.labels_at(station)]
        if without:
            named = ", ".join(repr(station) for station in without[:5]) + (" …" if len(without) > 5 else "")
            raise NaturelmError(
                f"query {query.id!r}: the labels_file has no labels for {len(without)} of {len(stations)} "
                f"stations ({named}); add rows for them, or rows without a station"
            )


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
