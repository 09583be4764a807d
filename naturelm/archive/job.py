"""The archive job: scan, plan, answer, commit, publish, record."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from naturelm.archive.attempts import MakeAsk
from naturelm.archive.figures import Counts
from naturelm.archive.fitting import fitted_to, memory_line, workers_here
from naturelm.archive.harvests import open_outputs, wanted_sets
from naturelm.archive.pace import Pace, begins_here, worth_starting_ray
from naturelm.archive.plan import check_limits
from naturelm.archive.progress import Progress
from naturelm.archive.scan import Changes, scan_archive, settle
from naturelm.archive.stages import Ask, Embed
from naturelm.archive.stopping import Stop
from naturelm.archive.work import Todo
from naturelm.archive.writer import Committer, VectorCommitter
from naturelm.config.archive import ArchiveConfig, closed_lists
from naturelm.errors import NaturelmError, RunStopped
from naturelm.models.presets import check_local, known_weights, resolve
from naturelm.recordings import Recording
from naturelm.results.analysis import check_begun
from naturelm.results.layout import writes_to
from naturelm.results.lock import Lock
from naturelm.results.rows import AnsweredSegment, unread
from naturelm.results.run_records import UPDATE_EVERY_S, RunRecord
from naturelm.results.table_sets import VECTORS
from naturelm.segments import Read
from naturelm.storage import Location

# So many first segments distinguish a broken model from a broken segment.
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
    embed_only: bool = False,
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
    embed_only : bool
        Run the encoder alone: no queries, and no answers.

    Raises
    ------
    NaturelmError
        A path is missing, there are no recordings, the model is unknown, or `out` cannot be used or is in use.
    RunStopped
        The run cannot continue. What it did is kept.
    """
    began = time.monotonic()
    stop = stop or Stop()
    lock = Lock(out, progress.say, lambda: stop.ask("another run has taken the output directory"))
    check_begun(out)
    lock.check()
    # Names are checked first and weights are fetched last: a mistake is reported before anything slow begins.
    check_local(resolve(config.model.name), config.windows.length_s)
    config = fitted_to(out, config)
    scan = scan_archive(paths, out, config)
    if not embed_only:
        _check_label_lists(scan.recordings, config)
    model = known_weights(config.model.name)
    sets = wanted_sets(config, embed_only)
    outputs = open_outputs(out, config, model.revision or "", sets)
    with lock:
        with writes_to(out):
            settled = [
                settle(scan, output, config, retry_failed=retry_failed, prune=prune) for output in outputs
            ]
            changes, first = settled[0]
            due = [segment for _, todo in settled for segment in todo.due]
            with_answers = {segment.id for segment in first.due} if not embed_only else set()
            # Segments that lack embeddings only need the encoder.
            rest = [] if embed_only else _reads_without(settled[1:], with_answers, config)
            reads = first.reads(config.selection)
            if not beyond_limits:
                check_limits(out, config, outputs[0].analysis.hash, due, [*reads, *rest], embed_only)
            run = RunRecord(out, paths, scan.recordings, config, outputs[0].analysis.hash)
        counts = Counts(recordings=Counter({"done before": min(todo.done_before for _, todo in settled)}))
        silent = {segment.id: unread(segment) for segment in due if not segment.window_count}
        committers: list[Committer] = []
        for (_, todo), output, tables in zip(settled, outputs, sets, strict=True):
            arguments = (
                output,
                config,
                model.name,
                [*todo.due, *todo.staged],
                {segment.id for segment in todo.staged},
                counts,
            )
            committers.append(
                VectorCommitter(*arguments, also_answered=with_answers)
                if tables is VECTORS
                else Committer(*arguments)
            )
        memory = memory_line(config.model)
        for line in [
            *([] if memory is None else [memory]),
            *scan.notices(),
            *([] if embed_only else closed_lists(config)),
            *changes.sentences(prune),
        ]:
            progress.say(line)
        progress.also(lambda figures: run.progress(figures.as_json()), UPDATE_EVERY_S)
        sound_s = sum(read.sound_s for read in [*reads, *rest])
        progress.start(sound_s, len(scan.recordings), counts.recordings["done before"])
        stop.has_begun = True
        try:
            results = chain(
                silent.values(),
                _results(reads, config, progress, stop, Embed if embed_only else make_ask),
                _results(rest, config, progress, stop, Embed),
            )
            for answered in _unless_all_crash(results):
                for committer in committers:
                    if committer.lacks(answered.segment):
                        committer.commit(answered)
                progress.update(counts)
            for committer in committers:
                committer.finish()
        finally:
            for committer in committers:
                committer.close()
            progress.stop(counts)
            counts.wall_s = time.monotonic() - began
            counts.left = len(set().union(*(committer.missing for committer in committers)))
            try:
                outcome = run.finish(counts.as_json(), complete=not counts.left)
            except OSError as error:
                progress.say(f"{out}: the run's record cannot be written ({error.strerror})")
            else:
                progress.emit("end", **outcome)
    return counts


def _reads_without(
    settled: Sequence[tuple[Changes, Todo]], ids: Collection[str], config: ArchiveConfig
) -> list[Read]:
    """What is to be read for embeddings alone."""
    return [
        read
        for _, todo in settled
        for read in replace(todo, due=[segment for segment in todo.due if segment.id not in ids]).reads(
            config.selection
        )
    ]


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
    reads: Sequence[Read],
    config: ArchiveConfig,
    progress: Progress,
    stop: Stop,
    make_ask: MakeAsk,
) -> Iterator[AnsweredSegment]:
    if not reads:
        return
    left: Sequence[Read] = reads
    if begins_here(config.job):
        from naturelm.archive.backends.local import answer_here

        pace = Pace(
            reads, math.inf if config.job.workers == 0 else worth_starting_ray(workers_here(config.model))
        )
        for answered in answer_here(reads, config, stop, make_ask, pace.is_too_slow):
            pace.saw(answered)
            yield answered
        left = pace.left
        if not pace.reason or not left:
            return
        progress.say(pace.reason)
    from naturelm.archive.backends.ray import answer_on_ray

    yield from answer_on_ray(left, config, progress, stop, make_ask)


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
