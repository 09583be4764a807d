"""What processing an archive will take: `naturelm plan`, which changes no table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from naturelm.config import ArchiveConfig
from naturelm.models.presets import known_weights, resolve
from naturelm.pipeline.changes import Changes
from naturelm.pipeline.commit import ANALYSIS, Output
from naturelm.pipeline.estimate import Disk, Rate, disk_needed, earlier_rate, try_out
from naturelm.pipeline.manifest import Manifests
from naturelm.pipeline.published import PublishedRecording
from naturelm.pipeline.scanning import Scan, compare, new_segment_windows, scan_archive
from naturelm.pipeline.todo import Todo, find_todo
from naturelm.storage import Location


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
    """

    scan: Scan
    changes: Changes
    todo: Todo
    rate: Rate | None
    disk: Disk
    manifest: str

    @property
    def windows(self) -> int:
        return sum(segment.window_count for segment in self.todo.due)

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
    resolve(config.model.name)
    scan = scan_archive(paths, out, config)
    published: list[PublishedRecording] = []
    staged: set[str] = set()
    rate = None
    segment_windows = new_segment_windows(config)
    # A directory that no run has begun belongs to no analysis, and planning must not give it one.
    if (out / ANALYSIS).exists():
        model = known_weights(config.model.name)
        output = Output(
            out, config.analysis(model.revision or ""), config.model_dump(mode="json"), segment_windows
        )
        published, staged, segment_windows = output.published(), output.staged(), output.segment_windows
        rate = earlier_rate(out, output.analysis_hash)
    changes = compare(scan, published, out)
    manifest = Manifests(out).write(scan.own, scan.recordings, scan.scope, config.windows, segment_windows)
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
    return Forecast(scan, changes, todo, rate, disk_needed(out, todo.due, len(config.queries)), manifest)
