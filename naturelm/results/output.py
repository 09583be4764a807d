"""An output directory as its writer has it: begun or continued, days published, published rows changed.

When all segments of a day are committed, its rows are merged into one file per table, `recordings` last: from then on
they are the ones that count (see `visible`), and the staged files go. Names and contents are deterministic, so every
step may be repeated after a crash at any moment.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from naturelm.errors import NaturelmError
from naturelm.ids import split_segment_id
from naturelm.recordings import Recording
from naturelm.results.analysis import (
    Analysis,
    check_same,
    check_version,
    encoder_metadata,
    read_analysis,
    write_analysis,
)
from naturelm.results.damage import DamagedFile, affected
from naturelm.results.days import (
    Parts,
    PublishedRecording,
    Segments,
    drop_recordings,
    merge_recordings,
    only_listed,
    parts_of,
    published_recordings,
    redescribed,
    with_ids,
    without_segments,
)
from naturelm.results.layout import PLANS, RUNS, holds_results
from naturelm.results.parquet import remove_all
from naturelm.results.published import PublishedFiles
from naturelm.results.schemas import RECORDINGS, published_metadata, table_columns
from naturelm.results.staging import StagedFiles
from naturelm.results.statuses import NOT_FAILED
from naturelm.results.table_sets import WORDS, TableSet
from naturelm.results.visible import (
    listed_segments,
    pending_segments,
    read_withdrawn,
    write_withdrawn,
)
from naturelm.segments import Day
from naturelm.storage import TEMPORARY, StorePath, list_files, location


class Output:
    """An output directory, which holds one analysis.

    Parameters
    ----------
    directory : Path or str or StorePath
        A directory, made where it is missing, or the URL of a place in an object store.
    settings : dict
        What determines the rows (`ArchiveConfig.analysis`).
    config : dict
        The whole resolved configuration, written beside the tables.
    segment_windows : int
        Windows a segment; a directory keeps the number it was begun with.
    tables : TableSet
        Which of the directory's tables.

    Attributes
    ----------
    analysis : Analysis
        What the directory holds.
    tables : TableSet
    staged : StagedFiles
    published : PublishedFiles
    incomplete : collection of str
        Recordings that will still lack segments when this run's are published.

    Raises
    ------
    NaturelmError
        The directory is a file, cannot be written, or holds another analysis or tables of another schema version.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | StorePath,
        settings: dict[str, Any],
        config: dict[str, Any],
        segment_windows: int,
        tables: TableSet = WORDS,
    ) -> None:
        self.directory = directory = location(directory)
        self.tables = tables
        self._home = home = tables.home(directory)
        self._order = tables.publishing_order
        self.staged = StagedFiles(directory, tables)
        self.published = PublishedFiles(directory, tables)
        self.incomplete: Collection[str] = frozenset()
        try:
            if directory.exists() and not directory.is_dir():
                raise NaturelmError(f"{directory}: is a file; give --out a directory")
            if holds_results(home):
                check_version(home)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / RUNS).mkdir(exist_ok=True)
            self.staged.create()
            if not holds_results(home):
                columns = table_columns(tables.schemas)
                write_analysis(home, Analysis(settings, segment_windows, config, columns))
            self.analysis = read_analysis(home)
        except OSError as error:
            raise NaturelmError(
                f"{directory}: cannot be written ({error.strerror}); give --out a writable directory"
            ) from None
        check_same(directory, self.analysis, settings)
        self._metadata = published_metadata(self.analysis.hash) | encoder_metadata(self.analysis)
        self._cut = (self.analysis.hop_s, self.analysis.segment_windows)

    # --- what a crash left behind

    def recover(self) -> None:
        """Remove what a crash left behind: half-written files and segments, and published rows that do not count."""
        self.staged.clear()
        if not isinstance(self.directory, StorePath):
            remove_all(
                file.location
                for folder in (RUNS, PLANS)
                for file in list_files(self.directory / folder)
                if file.relative_path.endswith(TEMPORARY)
            )
        self._remove_withdrawn()

    def repair(self, damaged: Sequence[DamagedFile], recording_ids: Collection[str]) -> tuple[int, int]:
        """Remove published rows of which some are lost, so that their recordings are processed again.

        Parameters
        ----------
        damaged : sequence of DamagedFile
            Files that are missing, or cannot be read and go.
        recording_ids : collection of str
            Recordings that can be processed again; rows of others stay.

        Returns
        -------
        (int, int)
            How many recordings are to be processed again, and how many have lost rows and cannot be.
        """
        remove_all(file.place for file in damaged if not file.is_missing)
        if not damaged:
            return 0, 0
        lost = affected(self.published.recordings(), damaged, self.directory, self.tables)
        again = [recording for recording in lost if recording.recording_id in recording_ids]
        self.change([], again)
        return len(again), len(lost) - len(again)

    def unstage_published(self, published: Iterable[PublishedRecording]) -> set[str]:
        """Remove staged segments that these recordings have published; returns the ids of those that stay.

        A crash came between their publishing and their removal.
        """
        staged = self.staged.ids()
        pending = pending_segments(staged, listed_segments(published))
        self.staged.remove(staged - pending)
        return pending

    def staged_recordings(self, segment_ids: Iterable[str]) -> dict[str, PublishedRecording]:
        """What staged rows say of their recordings, by recording id: one segment of each is read."""
        one_of = {split_segment_id(name)[0]: name for name in segment_ids}
        tables = self.staged.read(RECORDINGS, one_of.values())
        found = (recording for table in tables for recording in published_recordings(table))
        return {recording.recording_id: recording for recording in found}

    def failed_staged(self) -> set[str]:
        """Ids of staged segments for which another attempt may change something."""
        ids = sorted(self.staged.ids())
        tables = self.staged.read(RECORDINGS, ids)
        return {
            segment_id
            for segment_id, table in zip(ids, tables, strict=True)
            if table["status"][0].as_py() not in NOT_FAILED
        }

    # --- publishing

    def publish(self, day: Day, segment_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Merge a day's staged segments into its published files.

        Recordings that were published before keep their rows, except segments that are staged again. Of a recording
        that is published in parts, the other parts' rows stay.

        Returns
        -------
        list of dict
            The `recordings` rows that this adds.
        """
        staged = sorted(segment_ids)
        segments = _by_recording(staged)
        self._withdraw_retried(day, segments)
        before = self.published.read(RECORDINGS, day)
        partial = parts_of(before)
        replaced = {key: firsts if key in partial else None for key, firsts in segments.items()}
        for name in self._order:
            tables = self.staged.read(name, staged)
            if name == RECORDINGS:
                rows: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
                for segment_id, table in zip(staged, tables, strict=True):
                    recording_id, first_window = split_segment_id(segment_id)
                    (rows[recording_id][first_window],) = table.to_pylist()
                new, parts = merge_recordings(before, rows, self.incomplete)
                self._write(name, day, new, parts)
                added = with_ids(new, segments).to_pylist()
                continue
            old = self.published.read(name, day)
            kept = [] if old is None else [without_segments(old, replaced, self._cut)]
            self._write(name, day, _joined([*kept, *tables]))
        self.staged.remove(staged)
        return added

    def _withdraw_retried(self, day: Day, segments: Mapping[str, Collection[int]]) -> None:
        """Remove the published rows of segments that were done again, so that the staged ones count."""
        before = self.published.read(RECORDINGS, day)
        if before is None:
            return
        again: dict[str, Collection[int] | None] = {}
        for recording in published_recordings(with_ids(before, segments)):
            firsts = segments[recording.recording_id]
            if recording.parts is None:
                again[recording.recording_id] = None
            elif both := recording.parts.keys() & firsts:
                again[recording.recording_id] = both
        if again:
            write_withdrawn(self._home, {day: again})
            self._remove_withdrawn()

    # --- changing what is published

    def change(
        self, moves: Iterable[tuple[PublishedRecording, Recording]], dropped: Iterable[PublishedRecording]
    ) -> None:
        """Write rows of recordings again, as those of what the recordings are now, and remove rows of others.

        All of it takes effect at one moment, except where a recording keeps its id and its day: then table by table.

        Parameters
        ----------
        moves : iterable of (PublishedRecording, Recording)
            A recording as its rows have it, and as it is now.
        dropped : iterable of PublishedRecording
            Recordings whose rows go.
        """
        moves, dropped = list(moves), list(dropped)
        if not moves and not dropped:
            return
        arriving: dict[Day, dict[str, None]] = defaultdict(dict)
        leaving: dict[Day, dict[str, None]] = defaultdict(dict)
        by_days: dict[tuple[Day, Day], dict[str, Recording]] = defaultdict(dict)
        for old in dropped:
            leaving[old.day][old.recording_id] = None
        for old, new in moves:
            day = Day.of(new)
            by_days[old.day, day][old.recording_id] = new
            if (old.day, old.recording_id) != (day, new.recording_id):
                arriving[day][new.recording_id] = None
                leaving[old.day][old.recording_id] = None
        # A second copy that is there already is replaced by what arrives.
        for day, recordings in arriving.items():
            for key in recordings.keys() & leaving.get(day, {}).keys():
                del leaving[day][key]
        write_withdrawn(self._home, arriving)
        for source, day in sorted(by_days):
            self._carry_over(source, day, by_days[source, day])
        write_withdrawn(self._home, leaving)
        self._remove_withdrawn()

    def _carry_over(self, source: Day, target: Day, moves: Mapping[str, Recording]) -> None:
        """Write rows of a day as those of what the recordings are now, beside the old ones.

        Parameters
        ----------
        moves : mapping of str to Recording
            By the id that the rows have.
        """
        listed = self.published.read(RECORDINGS, source)
        if listed is None:
            return
        of_source = parts_of(listed)
        parts = parts_of(self.published.read(RECORDINGS, target))
        new_ids = {recording.recording_id for recording in moves.values()}
        parts = {key: own for key, own in parts.items() if key not in new_ids}
        parts |= {new.recording_id: of_source[key] for key, new in moves.items() if key in of_source}
        for name in self._order:
            rows = self.published.read(name, source)
            if rows is None:
                continue
            rows = with_ids(rows, moves)
            if name != RECORDINGS:
                # Not what a crash in the middle of publishing left of other segments.
                rows = only_listed(rows, of_source, self._cut)
            arriving = redescribed(name, rows, moves)
            there = self.published.read(name, target)
            kept = [] if there is None else [with_ids(there, new_ids, inverted=True)]
            self._write(name, target, _joined([*kept, arriving]), parts)

    def discard(self, segment_ids: Collection[str]) -> None:
        """Remove staged segments, and what a crash in the middle of publishing has published of them."""
        ids = sorted(segment_ids)
        by_day: dict[Day, list[str]] = defaultdict(list)
        for segment_id, table in zip(ids, self.staged.read(RECORDINGS, ids), strict=True):
            by_day[Day.on(table["station"][0].as_py(), table["date"][0].as_py())].append(segment_id)
        for day, of_day in by_day.items():
            listed = self.published.read(RECORDINGS, day)
            unlisted = pending_segments(
                of_day, {} if listed is None else listed_segments(published_recordings(listed))
            )
            segments = _by_recording(unlisted)
            for name in self._order[:-1]:
                rows = self.published.read(name, day)
                if rows is not None:
                    kept = without_segments(rows, segments, self._cut)
                    if kept.num_rows < rows.num_rows:
                        self._write(name, day, kept)
        self.staged.remove(ids)

    def _remove_withdrawn(self) -> None:
        """Remove the published rows that do not count."""
        withdrawn = read_withdrawn(self._home)
        for day, segments in sorted(withdrawn.items()):
            self._remove_rows(day, segments)
        if withdrawn:
            write_withdrawn(self._home, {})

    def _remove_rows(self, day: Day, segments: Segments) -> None:
        """Remove a day's rows of segments; a day without recordings goes."""
        left = 0
        for name in self._order:
            rows = self.published.read(name, day)
            if rows is None:
                continue
            if name == RECORDINGS:
                rows, parts = drop_recordings(rows, segments)
                left = rows.num_rows
                self._write(name, day, rows, parts)
            else:
                self._write(name, day, without_segments(rows, segments, self._cut))
        if not left:
            self.published.remove(day)

    def _write(self, table: str, day: Day, rows: pa.Table, parts: Parts | None = None) -> None:
        self.published.write(table, day, rows, self._metadata, parts)


def _by_recording(segment_ids: Iterable[str]) -> dict[str, set[int]]:
    """First windows of segments by recording."""
    segments: dict[str, set[int]] = defaultdict(set)
    for segment_id in segment_ids:
        recording_id, first_window = split_segment_id(segment_id)
        segments[recording_id].add(first_window)
    return segments


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Rows of all tables; those without any have no width of vectors."""
    tables = [table for table in tables if table.num_rows] or tables[:1]
    return pa.concat_tables([table.replace_schema_metadata() for table in tables])
