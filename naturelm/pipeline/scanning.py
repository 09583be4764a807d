"""The job before its work: scan the archive, settle what changed in it, find what is to be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from naturelm.config import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.ids import split_segment_id
from naturelm.pipeline.changes import Changes, apply, find_changes
from naturelm.pipeline.commit import Output
from naturelm.pipeline.manifest import Manifests, Scope
from naturelm.pipeline.published import PublishedRecording
from naturelm.pipeline.todo import Todo, find_todo
from naturelm.recordings import Recording, scan
from naturelm.recordings.stations import Stations, read_stations
from naturelm.storage import Location


@dataclass(frozen=True, slots=True)
class Scan:
    """What is on the disk.

    Attributes
    ----------
    own : list of Recording
        As the files say.
    recordings : list of Recording
        The same with what the stations file says.
    scope : Scope
        Where the scan looked.
    stations : Stations, optional
        What the stations file says.
    """

    own: list[Recording]
    recordings: list[Recording]
    scope: Scope
    stations: Stations | None


def new_segment_windows(config: ArchiveConfig) -> int:
    """Windows a segment, for an output directory that is begun now."""
    return max(1, round(config.job.segment_minutes * 60 / config.windows.hop_s))


def scan_archive(paths: Sequence[Location], out: Location, config: ArchiveConfig) -> Scan:
    """Find the recordings and read their headers, as far as no earlier scan for `out` has.

    Raises
    ------
    NaturelmError
        A path is missing, there are no recordings, or the stations file cannot be used.
    """
    stations = read_stations(Path(config.stations_file)) if config.stations_file else None
    own = scan(paths, known=Manifests(out).known(paths))
    if not own:
        where = ", ".join(str(path) for path in paths)
        raise NaturelmError(
            f"{where}: no recordings found; give a directory or file with WAV, FLAC, MP3 or the like"
        )
    recordings = own if stations is None else [stations.describe(recording) for recording in own]
    return Scan(own, recordings, Scope.of(paths, own), stations)


def compare(scan: Scan, published: Sequence[PublishedRecording], out: Location) -> Changes:
    """What has changed in the archive since its rows were published."""
    here = {recording.recording_id for recording in scan.recordings}
    missing = {old.recording_id for old in published} - here
    return find_changes(published, scan.recordings, Manifests(out).last_seen(missing), scan.scope)


def settle(
    scan: Scan, output: Output, config: ArchiveConfig, *, retry_failed: bool, prune: bool
) -> tuple[Changes, Todo]:
    """Bring what is published and staged in line with the archive, write the manifest, find what is to be done."""
    published = output.published()
    changes = compare(scan, published, output.directory)
    apply(changes, output, prune)
    if changes.moves or changes.stale or (prune and changes.vanished):
        published = output.published()
    retried = {old.recording_id for old in published if retry_failed and old.has_failed}
    staged = output.recover(old for old in published if old.recording_id not in retried)
    outdated = _outdated(scan, output, staged, prune)
    output.unstage(outdated)
    Manifests(output.directory).write(
        scan.own, scan.recordings, scan.scope, config.windows, output.segment_windows
    )
    todo = find_todo(
        [recording for recording in scan.recordings if recording.recording_id not in changes.kept_out],
        published,
        staged - outdated,
        config.windows,
        output.segment_windows,
        config.selection,
        retry_failed,
    )
    output.incomplete = todo.incomplete
    return changes, todo


def _outdated(scan: Scan, output: Output, staged: set[str], prune: bool) -> set[str]:
    """Staged segments that would not be staged now: of files with other names, contents, times or places."""
    told = output.staged_recordings(staged)
    changes = compare(scan, list(told.values()), output.directory)
    over = {old.recording_id for old, _ in changes.moves}
    over |= {old.recording_id for old in [*changes.stale, *(changes.vanished if prune else [])]}
    return {segment_id for segment_id in staged if split_segment_id(segment_id)[0] in over}
