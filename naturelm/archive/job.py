"""The archive job: scan, plan, answer, commit, publish, record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from naturelm.archive.attempts import MakeAsk
from naturelm.archive.figures import Counts
from naturelm.archive.plan import check_limits
from naturelm.archive.progress import Progress
from naturelm.archive.scan import new_segment_windows, scan_archive, settle
from naturelm.archive.stages import Ask
from naturelm.archive.stopping import Stop
from naturelm.archive.writer import Committer
from naturelm.config.archive import ArchiveConfig, closed_lists
from naturelm.errors import NaturelmError, RunStopped
from naturelm.models.presets import check_local, known_weights, resolve
from naturelm.recordings import Recording
from naturelm.results.analysis import check_begun
from naturelm.results.layout import writes_to
from naturelm.results.lock import Lock
from naturelm.results.output import Output
from naturelm.results.rows import AnsweredSegment, unread
from naturelm.results.run_records import UPDATE_EVERY_S, RunRecord
from naturelm.segments import Read
from naturelm.storage import Location

# So many of the first segments tell a broken model from a broken segment.
_ALL_CRASH = 8


def process_archive(
    paths: Sequence[Location],
    out: Location,
    config: ArchiveConfig,
    progress: Progress,
    *,
    prune: bool = False,
    retry_failed: bool = False,
    beyond_limits: bool = False,
    stop: Stop | None = None,
    make_ask: MakeAsk = Ask,
) -> Counts:
    """Run the model over an archive and write its tables; what `out` already holds is not done again.

    Parameters
    ----------
    paths : sequence of Path or StorePath
        Directories and recordings.
    out : Path or StorePath
        Output directory; it holds one analysis.
    config : ArchiveConfig
        Model, queries, windows and the rest.
    progress : Progress
        Told what happens.
    prune : bool
        Drop rows of recordings that are no longer there.
    retry_failed : bool
        Do again recordings that are neither `ok` nor `too_short`.
    beyond_limits : bool
        Begin even if the tables need more than the free disk space, or the work more than a month.
    stop : Stop, optional
        Ends the run early: what is in flight is committed.
    make_ask : callable
        What answers; another one than `Ask` simulates a model.

    Raises
    ------
    NaturelmError
        A path is missing, there are no recordings, the model is unknown, or `out` cannot be used or is in use.
    RunStopped
        The run cannot go on. What it did is kept.
    """
    began = time.monotonic()
    stop = stop or Stop()
    lock = Lock(out, progress.say, lambda: stop.ask("another run has taken the output directory"))
    check_begun(out)
    lock.check()
    # Names are checked first and weights are fetched last: a mistake is told before anything slow begins.
    check_local(resolve(config.model.name), config.windows.length_s)
    scan = scan_archive(paths, out, config)
    for kind in scan.left_out:
        progress.say(f"left out: {kind.sentence}")
    _check_label_lists(scan.recordings, config)
    model = known_weights(config.model.name)
    output = Output(
        out,
        config.analysis(model.revision or ""),
        config.model_dump(mode="json"),
        new_segment_windows(config),
    )
    with lock:
        with writes_to(out):
            changes, todo = settle(scan, output, config, retry_failed=retry_failed, prune=prune)
            reads = todo.reads(config.selection)
            if not beyond_limits:
                check_limits(out, config, output.analysis.hash, todo.due, reads)
            run = RunRecord(out, paths, scan.recordings, config, output.analysis.hash)
        counts = Counts(recordings=Counter({"done before": todo.done_before}))
        silent = [unread(segment) for segment in todo.due if not segment.window_count]
        staged = {segment.id for segment in todo.staged}
        committer = Committer(output, config, model.name, [*todo.due, *todo.staged], staged, counts)
        for line in [*scan.notices(), *closed_lists(config), *changes.sentences(prune)]:
            progress.say(line)
        progress.also(lambda figures: run.progress(figures.as_json()), UPDATE_EVERY_S)
        progress.start(sum(read.sound_s for read in reads), len(scan.recordings), todo.done_before)
        stop.has_begun = True
        try:
            for answered in _unless_all_crash(_results(silent, reads, config, progress, stop, make_ask)):
                committer.commit(answered)
                progress.update(counts)
            committer.finish()
        finally:
            committer.close()
            progress.stop(counts)
            counts.wall_s = time.monotonic() - began
            counts.left = committer.left
            try:
                outcome = run.finish(counts.as_json(), complete=not counts.left)
            except OSError as error:
                progress.say(f"{output.directory}: the run's record cannot be written ({error.strerror})")
            else:
                progress.tell("end", **outcome)
    return counts


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


def _results(
    silent: Iterable[AnsweredSegment],
    reads: Sequence[Read],
    config: ArchiveConfig,
    progress: Progress,
    stop: Stop,
    make_ask: MakeAsk,
) -> Iterator[AnsweredSegment]:
    yield from silent
    if not reads:
        return
    if config.job.workers == 0:
        from naturelm.archive.backends.local import answer_here

        yield from answer_here(reads, config, stop, make_ask)
    else:
        from naturelm.archive.backends.ray import answer_on_ray

        yield from answer_on_ray(reads, config, progress, stop, make_ask)


def _unless_all_crash(results: Iterable[AnsweredSegment]) -> Iterator[AnsweredSegment]:
    """Hold back crashed segments until one is answered: where none is, the model is at fault and not they.

    Raises
    ------
    RunStopped
        Nothing but crashed segments.
    """
    held: list[AnsweredSegment] = []
    has_answered = False
    for answered in results:
        if answered.status == "crashed" and not has_answered:
            held.append(answered)
            if len(held) == _ALL_CRASH:
                raise RunStopped(
                    f"the first {_ALL_CRASH} segments all crashed, the last one because {answered.error}; "
                    "none of them is committed: is this the model you meant, and is there memory for it?"
                )
            continue
        if answered.answers:
            has_answered = True
            yield from held
            held = []
        yield answered
    yield from held
