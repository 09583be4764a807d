"""The job before its work: scan the archive, settle what changed in it, find what is to be done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from naturelm.archive.selection import check_selection
from naturelm.archive.survey import copied
from naturelm.archive.work import Todo, find_todo
from naturelm.config.archive import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.ids import split_segment_id
from naturelm.recordings import LeftOut, Recording, find_audio, probe_all
from naturelm.recordings.discovery import OutsideLink
from naturelm.recordings.name_patterns import apply_pattern
from naturelm.recordings.station_names import BY_PATTERN, Placement, overlaps, place_stations
from naturelm.recordings.stations import Stations, read_stations
from naturelm.results.damage import DamagedFile, described, find_damage
from naturelm.results.days import PublishedRecording
from naturelm.results.layout import is_output
from naturelm.results.output import Output
from naturelm.results.scans import Manifests, Scope, Seen, place_of
from naturelm.storage import Location
from naturelm.text import counted, suggestion

_LINKS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Scan:
    """What is on the disk.

    Attributes
    ----------
    own : list of Recording
        As the files say.
    recordings : list of Recording
        The same with what the pattern for names and the stations file say.
    scope : Scope
        Where the scan looked.
    stations : Stations, optional
        What the stations file says.
    left_out : list of LeftOut
        What else is there.
    undated : int
        Recordings that the selection leaves out because their start time is not known.
    placement : Placement
        How the stations of `own` were found.
    links : list of OutsideLink
        Links that were followed out of the archive.
    """

    own: list[Recording]
    recordings: list[Recording]
    scope: Scope
    stations: Stations | None
    left_out: list[LeftOut]
    undated: int
    placement: Placement
    links: list[OutsideLink]

    def station_sources(self) -> dict[str, tuple[str, ...]]:
        """By station: how it was found, in a few words for each way."""
        sources: dict[str, set[str]] = defaultdict(set)
        for placed, recording in zip(self.placement.recordings, self.recordings, strict=True):
            if recording.station == placed.station:
                sources[recording.station].update(self.placement.sources[placed.station])
            else:
                sources[recording.station].add(BY_PATTERN)
        return {station: tuple(sorted(found)) for station, found in sources.items()}

    def notices(self) -> list[str]:
        """One sentence for each kind of thing that was left out or ignored."""
        lines = [f"left out: {kind.sentence}" for kind in self.left_out]
        lines += [f"followed link: {link.sentence}" for link in self.links[:_LINKS_SHOWN]]
        if len(self.links) > _LINKS_SHOWN:
            lines.append(f"followed links: {len(self.links) - _LINKS_SHOWN} more lead out of the archive")
        copies = copied(self.recordings)
        if copies:
            first, second = copies[0]
            lines.append(
                f"{counted(len(copies), 'recording')} with the same content as another one, such as {second.path} "
                f"and {first.path}"
            )
        if self.undated:
            lines.append(
                f"left out by --dates or --hours: {counted(self.undated, 'recording')} without a known start time; "
                "--include-undated processes them"
            )
        for station, pairs in sorted(overlaps(self.recordings).items()):
            first, second = pairs[0]
            lines.append(
                f"station {station!r}: {counted(len(pairs), 'overlap')} of recordings in time, such as {second.path} "
                f"with {first.path}; if two recorders share this name, give --station-from"
            )
        if self.stations is None:
            return lines
        if self.stations.ignored_columns:
            lines.append(f"stations file: ignored columns: {', '.join(self.stations.ignored_columns)}")
        here = {recording.station for recording in self.recordings}
        unmatched = [name for name in self.stations.names if name not in here]
        if unmatched:
            lines.append(
                f"stations file: {counted(len(unmatched), 'station')} without recordings here, such as "
                f"{unmatched[0]!r}; {suggestion(unmatched[0], here)}"
            )
        return lines


def new_segment_windows(config: ArchiveConfig) -> int:
    """Windows a segment, for an output directory that is begun now."""
    return max(1, round(config.job.segment_minutes * 60 / config.windows.hop_s))


def scan_archive(paths: Sequence[Location], out: Location, config: ArchiveConfig) -> Scan:
    """Find the recordings and read their headers, as far as no earlier scan for `out` has.

    Raises
    ------
    NaturelmError
        A path is missing, there are no recordings, the pattern for names or the stations file cannot be used, or a
        station, date or hour of the selection matches nothing.
    """
    stations = read_stations(Path(config.stations_file)) if config.stations_file else None
    manifests = Manifests(out)
    found = find_audio(paths, manifests.roots(), is_output)
    own = probe_all(
        found.files,
        known=manifests.known({file.root for file in found.files}),
        min_sample_rate_hz=config.recordings.min_sample_rate_hz,
    )
    if not own:
        where = ", ".join(str(path) for path in paths)
        raise NaturelmError(
            f"{where}: no recordings found; give a directory or file with WAV, FLAC, MP3 or the like"
        )
    placement = place_stations(own, config.recordings.station, manifests.divisions())
    recordings = placement.recordings
    if config.recordings.name_pattern is not None:
        recordings = apply_pattern(recordings, config.recordings.name_pattern)
        if config.recordings.station != "auto":
            recordings = [
                replace(recording, station=placed.station)
                if recording.station != placed.station
                else recording
                for recording, placed in zip(recordings, placement.recordings, strict=True)
            ]
    if stations is not None:
        recordings = [stations.describe(recording) for recording in recordings]
        _check_stations_file(config, stations, recordings)
    undated = check_selection(recordings, config.selection, config.windows)
    return Scan(
        own, recordings, Scope.of(paths, own), stations, found.left_out, undated, placement, found.links
    )


def _check_stations_file(config: ArchiveConfig, stations: Stations, recordings: Sequence[Recording]) -> None:
    here = {recording.station for recording in recordings}
    if not here & {*stations.names}:
        name = stations.names[0]
        raise NaturelmError(
            f"{config.stations_file}: no recording is from any of its stations, such as {name!r}; "
            f"{suggestion(name, here)}"
        )


def compare_scan(scan: Scan, published: Sequence[PublishedRecording], out: Location) -> Changes:
    """What has changed in the archive since its rows were published."""
    here = {recording.recording_id for recording in scan.recordings}
    missing = {old.recording_id for old in published} - here
    return find_changes(published, scan.recordings, Manifests(out).last_seen(missing), scan.scope)


def settle(
    scan: Scan, output: Output, config: ArchiveConfig, *, retry_failed: bool, prune: bool
) -> tuple[Changes, Todo]:
    """Bring what is published and staged in line with the archive, write the manifest, find what is to be done."""
    damaged = find_damage(output.directory, output.tables)
    # Before anything reads them.
    again, lost = output.repair(damaged, {recording.recording_id for recording in scan.recordings})
    output.recover()
    output.discard(_outdated(scan, output, prune) | (output.failed_staged() if retry_failed else set()))
    published = output.published.recordings()
    changes = compare_scan(scan, published, output.directory)
    changes.damage = damage_sentences(damaged, again, lost)
    dropped = [*changes.stale, *(changes.vanished if prune else [])]
    if changes.moves or dropped:
        output.change(changes.moves, dropped)
        published = output.published.recordings()
    # Of recordings that are tried again, staged segments take the place of published ones.
    staged = output.unstage_published(old for old in published if not (retry_failed and old.has_failed))
    Manifests(output.directory).write(
        scan.own,
        scan.recordings,
        scan.scope,
        scan.placement.divisions,
        config.windows,
        output.analysis.segment_windows,
    )
    todo = find_todo(
        [recording for recording in scan.recordings if recording.recording_id not in changes.kept_out],
        published,
        staged,
        config.windows,
        output.analysis.segment_windows,
        config.selection,
        retry_failed,
    )
    output.incomplete = todo.incomplete
    return changes, todo


def _outdated(scan: Scan, output: Output, prune: bool) -> set[str]:
    """Staged segments that would not be staged now: of files with other names, contents, times or places."""
    staged = output.staged.ids()
    recordings = output.staged_recordings(staged)
    changes = compare_scan(scan, list(recordings.values()), output.directory)
    over = {old.recording_id for old, _ in changes.moves}
    over |= {old.recording_id for old in [*changes.stale, *(changes.vanished if prune else [])]}
    return {segment_id for segment_id in staged if split_segment_id(segment_id)[0] in over}


@dataclass(slots=True)
class Changes:
    """What to do with published rows.

    Attributes
    ----------
    moves : list of (PublishedRecording, Recording)
        Rows that stay true, of a recording that has another path, station or time now.
    stale : list of PublishedRecording
        Rows of files that were replaced, and second copies that a crash left behind.
    vanished : list of PublishedRecording
        Rows of files that are no longer there.
    kept_out : set of str
        Ids of scanned recordings that cannot be read now and were read before: their rows stay as they are.
    damage : list of str
        One sentence for each thing about published files that are missing or cannot be read.
    """

    moves: list[tuple[PublishedRecording, Recording]] = field(default_factory=list)
    stale: list[PublishedRecording] = field(default_factory=list)
    vanished: list[PublishedRecording] = field(default_factory=list)
    kept_out: set[str] = field(default_factory=set)
    damage: list[str] = field(default_factory=list)

    def sentences(self, prune: bool) -> list[str]:
        """One sentence for each kind of change."""
        renamed = sum(old.recording_id != new.recording_id for old, new in self.moves)
        kinds = [
            (renamed, "renamed", "the rows are kept under the new names"),
            (len(self.moves) - renamed, "with another station, path or time", "the rows are updated"),
            (len(self.stale), "replaced by other files", "the rows are dropped"),
            (
                len(self.vanished),
                "no longer there",
                "the rows are " + ("dropped" if prune else "kept; --prune drops them"),
            ),
            (len(self.kept_out), "now unreadable", "the rows stay as they are"),
        ]
        return [
            *self.damage,
            *(f"{counted(number, 'recording')} {what}: {effect}" for number, what, effect in kinds if number),
        ]


def damage_sentences(damaged: Sequence[DamagedFile], again: int, lost: int) -> list[str]:
    """What was found about published files, and what becomes of their recordings."""
    if not damaged:
        return []
    lines = [f"{described(damaged)}: {counted(again, 'recording')} of these days to process again"]
    if lost:
        lines.append(
            f"{counted(lost, 'recording')} with lost rows not found here: give their directory too, or restore the "
            "files from a backup"
        )
    return lines


def find_changes(
    published: Sequence[PublishedRecording],
    recordings: Sequence[Recording],
    seen: Mapping[str, Seen],
    scope: Scope,
) -> Changes:
    """Compare published rows with a scan.

    Parameters
    ----------
    published : sequence of PublishedRecording
        All that the output directory holds.
    recordings : sequence of Recording
        The scan.
    seen : mapping of str to Seen
        Where published recordings that the scan did not find were when last seen.
    scope : Scope
        Where the scan looked; what lies elsewhere is left alone.
    """
    changes = Changes()
    by_id = {recording.recording_id: recording for recording in recordings}
    current = {
        old.recording_id
        for old in published
        if old.recording_id in by_id and old.describes(by_id[old.recording_id])
    }
    moved: set[str] = set()
    gone: list[PublishedRecording] = []
    for old in published:
        recording = by_id.get(old.recording_id)
        if recording is None:
            gone.append(old)
        elif not old.describes(recording):
            if old.recording_id in current or old.recording_id in moved:
                changes.stale.append(old)
            else:
                moved.add(old.recording_id)
                changes.moves.append((old, recording))
    _sort_out(gone, recordings, current | moved, seen, scope, changes)
    return changes


def _sort_out(
    gone: Iterable[PublishedRecording],
    recordings: Sequence[Recording],
    published: set[str],
    seen: Mapping[str, Seen],
    scope: Scope,
    changes: Changes,
) -> None:
    """Say of published recordings that the scan did not find whether they were renamed, replaced or vanished."""
    by_place = {place_of(recording.root, recording.path): recording for recording in recordings}
    by_content: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        if recording.content is not None:
            by_content[recording.content].append(recording)
    for old in gone:
        last = seen.get(old.recording_id)
        if last is None or not scope.holds(last.root, last.path):
            continue
        there = by_place.get(place_of(last.root, last.path))
        if there is not None and there.content is None and last.content is not None:
            changes.kept_out.add(there.recording_id)
        elif there is None and not last.is_gone():
            continue
        else:
            same = by_content.get(last.content or "", [])
            if there in same:
                # Found below another root than before.
                same = [there]
            target = next((r for r in same if r.recording_id not in published), None)
            if target is not None:
                published.add(target.recording_id)
                changes.moves.append((old, target))
            elif there is not None or same:
                changes.stale.append(old)
            else:
                changes.vanished.append(old)
