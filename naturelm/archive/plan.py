"""What processing an archive will take: `naturelm plan`, which changes no table."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from naturelm.archive.fitting import fitted_to, memory_line
from naturelm.archive.scan import (
    Changes,
    Scan,
    compare_scan,
    damage_sentences,
    new_segment_windows,
    scan_archive,
)
from naturelm.archive.selection import in_order
from naturelm.archive.work import Todo, find_todo
from naturelm.config.archive import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.machine import read_gpus, usable_cores
from naturelm.models.presets import check_local, known_weights, resolve
from naturelm.results.analysis import check_begun
from naturelm.results.damage import DamagedFile, affected, find_damage
from naturelm.results.days import PublishedRecording
from naturelm.results.layout import holds_results
from naturelm.results.output import Output
from naturelm.results.run_records import hardware, read_records
from naturelm.results.scans import Manifests
from naturelm.results.visible import committed
from naturelm.segments import Read, Segment
from naturelm.storage import Location
from naturelm.text import file_size


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a scan found and what is to be done.

    Attributes
    ----------
    scan : Scan
    changes : Changes
        What `naturelm process` will do with rows that are published.
    todo : Todo
    rate : Rate, optional
        None where nothing is known of it.
    disk : Disk
    manifest : str
        Name of the manifest that was written.
    memory : str, optional
        What the model takes, in words; None where that is little, or not known.
    """

    scan: Scan
    changes: Changes
    todo: Todo
    rate: Rate | None
    disk: Disk
    manifest: str
    memory: str | None = None

    @property
    def windows(self) -> int:
        return sum(segment.window_count for segment in self.todo.due)

    @property
    def warnings(self) -> list[str]:
        """What `process` begins only with `--yes`."""
        return beyond_limits(self.disk, self.windows, self.rate)

    @property
    def sound_s(self) -> float:
        return sum(segment.own_end_s - segment.start_s for segment in self.todo.due if segment.window_count)


def forecast(paths: Sequence[Location], out: Location, config: ArchiveConfig, *, trial: bool) -> Forecast:
    """Scan an archive, write the manifest, and say what `process` will find to do.

    Raises
    ------
    NaturelmError
        As `process_archive`.
    """
    check_begun(out)
    check_local(resolve(config.model.name), config.windows.length_s)
    config = fitted_to(out, config)
    scan = scan_archive(paths, out, config)
    published: list[PublishedRecording] = []
    staged: set[str] = set()
    damaged: list[DamagedFile] = []
    rate = None
    segment_windows = new_segment_windows(config)
    # A directory that no run has begun belongs to no analysis, and planning must not give it one.
    if holds_results(out):
        model = known_weights(config.model.name)
        output = Output(
            out, config.analysis(model.revision or ""), config.model_dump(mode="json"), segment_windows
        )
        damaged = find_damage(out)
        published, staged = committed(out, {file.place for file in damaged})
        segment_windows = output.analysis.segment_windows
        rate = earlier_rate(out, output.analysis.hash)
    here = {recording.recording_id for recording in scan.recordings}
    lost = affected(published, damaged, out)
    again = {old.recording_id for old in lost if old.recording_id in here}
    published = [old for old in published if old.recording_id not in again]
    changes = compare_scan(scan, published, out)
    changes.damage = damage_sentences(damaged, len(again), len(lost) - len(again))
    manifest = Manifests(out).write(
        scan.own, scan.recordings, scan.scope, scan.placement.divisions, config.windows, segment_windows
    )
    # Rows that are carried over need no work, rows of replaced files do.
    carried = {new.recording_id for old, new in changes.moves if old.recording_id != new.recording_id}
    todo = find_todo(
        [r for r in scan.recordings if r.recording_id not in changes.kept_out | carried],
        published,
        staged,
        config.windows,
        segment_windows,
        config.selection,
    )
    reads = todo.reads(config.selection)
    if rate is None and trial and reads:
        rate = try_out(reads, config)
    return Forecast(
        scan,
        changes,
        todo,
        rate,
        disk_needed(out, todo.due, len(config.queries), config.embeddings.pooling is not None),
        manifest,
        memory_line(config.model),
    )


TRIAL_S = 30.0
MONTH_S = 30 * 86400.0
# More windows than a month holds at one a second are worth a trial before a run begins.
_MANY_WINDOWS = int(MONTH_S)
# Runs that were over sooner were all start-up.
_LEAST_WINDOWS = 100
_LEAST_S = 30.0
_TRIAL_WINDOWS = 32
# Measured on the station day of docs/benchmarks/2026-11-21-plan.md: published bytes for each window and query, those
# of a day that holds none, and a staged segment's on a file system of 4 KiB blocks.
_BYTES_PER_ANSWER = 70.0
_BYTES_PER_VECTOR = 1600
_BYTES_PER_DAY = 17_000.0
_BYTES_PER_STAGED_SEGMENT = 4 * 8192


@dataclass(frozen=True, slots=True)
class Rate:
    """Windows per second, and where the number comes from."""

    windows_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes that the tables will take in the end, and at most before days are published; what is free.

    `free_bytes` is None in an object store.
    """

    tables_bytes: float
    staged_bytes: float
    free_bytes: int | None

    @property
    def needed_bytes(self) -> float:
        return self.tables_bytes + self.staged_bytes


def earlier_rate(out: Location, analysis_hash: str) -> Rate | None:
    """The rate of the newest run into `out` on hardware like this; None where there was none of any length."""
    here = hardware()
    for run in read_records(out):
        try:
            windows, wall_s = run["counts"]["windows"], run["counts"]["wall_s"]
            alike = run["analysis"] == analysis_hash and run["hardware"] == here
            started = run["started"]
        except (KeyError, TypeError):  # a run that was killed says nothing
            continue
        if alike and windows >= _LEAST_WINDOWS and wall_s >= _LEAST_S:
            return Rate(windows / wall_s, f"the run of {started[:16].replace('T', ' ')} UTC")
    return None


def try_out(
    reads: Sequence[Read], config: ArchiveConfig, seconds: float = TRIAL_S, embed_only: bool = False
) -> Rate | None:
    """Answer windows of recordings from all over the archive for a while, in this process.

    One process with one thread is measured and multiplied by what the job will start: as many model actors as there
    are GPUs, or cores. None where nothing could be decoded.
    """
    from naturelm.archive.stages import Ask, Decode, DecodedSegment, Embed

    decode, ask = Decode(config), (Embed if embed_only else Ask)(config, threads=1)
    windows = 0
    waiting: list[DecodedSegment] = []
    began = time.monotonic()
    try:
        for decoded in (part for read in in_order(reads, "spread") for part in decode(read)):
            waiting.append(decoded)
            if sum(len(part.windows) for part in waiting) >= _TRIAL_WINDOWS:
                windows += sum(len(answered.windows) for answered in ask(waiting))
                waiting = []
            if time.monotonic() - began >= seconds:
                break
        windows += sum(len(answered.windows) for answered in ask(waiting))
        spent_s = time.monotonic() - began
    finally:
        decode.close()
    if not windows:
        return None
    workers = config.job.workers or len(read_gpus()) or usable_cores()
    return Rate(windows / spent_s * workers, f"a trial of {spent_s:.0f} s on 1 of {workers} workers")


def disk_needed(out: Location, segments: Sequence[Segment], queries: int, vectors: bool) -> Disk:
    """Bytes that these segments' answers to so many queries will take, and their embeddings."""
    windows = sum(segment.window_count for segment in segments)
    answers = queries * windows
    days = len({segment.day for segment in segments})
    tables = answers * _BYTES_PER_ANSWER + vectors * windows * _BYTES_PER_VECTOR + days * _BYTES_PER_DAY
    free = shutil.disk_usage(out).free if isinstance(out, Path) else None
    return Disk(tables, len(segments) * _BYTES_PER_STAGED_SEGMENT, free)


def check_limits(
    out: Location,
    config: ArchiveConfig,
    analysis_hash: str,
    segments: Sequence[Segment],
    reads: Sequence[Read],
    embed_only: bool = False,
) -> None:
    """Refuse a run that would fill the disk or take longer than a month.

    Parameters
    ----------
    out : Path or StorePath
    config : ArchiveConfig
    analysis_hash : str
    segments : sequence of Segment
        All that is to be answered.
    reads : sequence of Read
        The same, as it is read.
    embed_only : bool
        As of `process_archive`.

    Raises
    ------
    NaturelmError
        It would.
    """
    windows = sum(segment.window_count for segment in segments)
    rate = earlier_rate(out, analysis_hash)
    if rate is None and windows > _MANY_WINDOWS and config.job.address is None:
        rate = try_out(reads, config, embed_only=embed_only)
    disk = disk_needed(
        out,
        segments,
        0 if embed_only else len(config.queries),
        embed_only or config.embeddings.pooling is not None,
    )
    warnings = beyond_limits(disk, windows, rate)
    if warnings:
        raise NaturelmError(f"{'; '.join(warnings)}; give --yes to process all of it")


def beyond_limits(disk: Disk, windows: int, rate: Rate | None) -> list[str]:
    """One sentence for each limit that a run would exceed: the free disk space, a month of work."""
    found = []
    if disk.free_bytes is not None and disk.needed_bytes > disk.free_bytes:
        found.append(
            f"the tables need about {file_size(disk.needed_bytes)}, and the disk of --out has "
            f"{file_size(disk.free_bytes)} free"
        )
    if rate is not None and windows / rate.windows_per_s > MONTH_S:
        days = windows / rate.windows_per_s / 86400
        found.append(
            f"{windows} windows take about {days:.0f} days at {rate.windows_per_s:.3g} windows/s ({rate.source})"
        )
    return found
