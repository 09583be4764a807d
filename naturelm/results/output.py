"""An output directory as its writer has it: begin or continue it, publish days, change what is published.

When all segments of a day are committed, its rows are merged into one file per table, `recordings` last, and the
staged files go. Names and contents are deterministic, so every step may be repeated after a crash at any moment.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

from naturelm.errors import NaturelmError
from naturelm.ids import split_segment_id
from naturelm.recordings import Recording
from naturelm.results.analysis import Analysis, differences, read_analysis, write_analysis
from naturelm.results.days import (
    Parts,
    PublishedRecording,
    merge_recordings,
    parts_of,
    published_recordings,
    redescribed,
    with_ids,
    without_segments,
)
from naturelm.results.layout import ANALYSIS, RUNS
from naturelm.results.published import PUBLISH_ORDER, PublishedFiles
from naturelm.results.schemas import RECORDINGS, SCHEMA_VERSION, TABLES
from naturelm.results.staging import StagedFiles
from naturelm.segments import Day
from naturelm.storage import StorePath, location


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

    Attributes
    ----------
    analysis : Analysis
        What the directory holds.
    staged : StagedFiles
    published : PublishedFiles
    incomplete : collection of str
        Recordings that will still lack segments when this run's are published.

    Raises
    ------
    NaturelmError
        The directory is a file, cannot be written, or holds another analysis.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | StorePath,
        settings: dict[str, Any],
        config: dict[str, Any],
        segment_windows: int,
    ) -> None:
        self.directory = directory = location(directory)
        self.staged = StagedFiles(directory)
        self.published = PublishedFiles(directory)
        self.incomplete: Collection[str] = frozenset()
        try:
            if directory.exists() and not directory.is_dir():
                raise NaturelmError(f"{directory}: is a file; give --out a directory")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / RUNS).mkdir(exist_ok=True)
            self.staged.create()
            if not (directory / ANALYSIS).exists():
                write_analysis(directory, Analysis(settings, segment_windows, SCHEMA_VERSION, config))
            self.analysis = read_analysis(directory)
            self._analysis_hash = self.analysis.hash
        except OSError as error:
            raise NaturelmError(
                f"{directory}: cannot be written ({error.strerror}); give --out a writable directory"
            ) from None
        self._check_same(settings)

    def _check_same(self, settings: dict[str, Any]) -> None:
        if self.analysis.schema_version != SCHEMA_VERSION:
            raise NaturelmError(
                f"{self.directory}: holds tables of schema version {self.analysis.schema_version}, and this program "
                f"writes version {SCHEMA_VERSION}; give another --out"
            )
        differing = list(differences(self.analysis.settings, settings))
        if differing:
            raise NaturelmError(
                f"{self.directory}: holds another analysis, which differs in {'; '.join(differing)}; "
                "give another --out or the same settings"
            )

    def recover(self, published: Iterable[PublishedRecording]) -> set[str]:
        """Clear what a crash left behind, and return the ids of the segments that stay staged.

        Half-written files and segments go, and so do staged segments that are published: a crash came between
        their publishing and this clean-up.
        """
        parts = {recording.recording_id: recording.parts for recording in published}
        self.staged.clear()
        staged = self.staged.ids()
        over = set()
        for segment_id in staged:
            recording_id, first_window = split_segment_id(segment_id)
            if recording_id in parts:
                done = parts[recording_id]
                if done is None or first_window in done:
                    over.add(segment_id)
        self.staged.remove(over)
        return staged - over

    def staged_recordings(self, segment_ids: Iterable[str]) -> dict[str, PublishedRecording]:
        """What staged rows say of their recordings, by recording id: one segment of each is read."""
        one_of = {split_segment_id(name)[0]: name for name in segment_ids}
        found = [
            published_recordings(Day(row["station"], row["date"].isoformat() if row["date"] else ""), table)[
                0
            ]
            for table in self.staged.read(RECORDINGS, one_of.values())
            for row in table.select(["station", "date"]).to_pylist()
        ]
        return {recording.recording_id: recording for recording in found}

    def publish(self, day: Day, segment_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Merge a day's staged segments into its published files.

        Recordings that were published before keep their rows, except those staged again. Of a recording that
        is published in parts, the other parts' rows stay.

        Returns
        -------
        list of dict
            The `recordings` rows that this adds.
        """
        staged = sorted(segment_ids)
        segments: dict[str, set[int]] = defaultdict(set)
        for segment_id in staged:
            recording_id, first_window = split_segment_id(segment_id)
            segments[recording_id].add(first_window)
        before = self.published.read(RECORDINGS, day)
        partial = set(parts_of(before))
        for name in PUBLISH_ORDER:
            tables = self.staged.read(name, staged)
            if name == RECORDINGS:
                rows: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
                for segment_id, table in zip(staged, tables, strict=True):
                    recording_id, first_window = split_segment_id(segment_id)
                    (rows[recording_id][first_window],) = table.drop_columns(["station", "date"]).to_pylist()
                new, parts = merge_recordings(before, rows, self.incomplete)
                self._write(name, day, new, parts)
                added = with_ids(new, segments).to_pylist()
                continue
            new = pa.concat_tables([table.drop_columns(["station", "date"]) for table in tables])
            old = self.published.read(name, day)
            if old is not None:
                kept = without_segments(
                    old, segments, partial, (self.analysis.hop_s, self.analysis.segment_windows)
                )
                new = pa.concat_tables([kept, new.cast(TABLES[name])])
            self._write(name, day, new)
        self.staged.remove(staged)
        return added

    # --- changing what is published

    def carry_over(self, source: Day, moves: Mapping[str, Recording]) -> None:
        """Write a day's rows of recordings anew, as those of what the recordings are now.

        Where they belong to another day the old rows stay: `drop` them after.

        Parameters
        ----------
        moves : mapping of str to Recording
            By the id that the rows have.
        """
        by_day: dict[Day, dict[str, Recording]] = defaultdict(dict)
        for recording_id, new in moves.items():
            by_day[Day.of(new)][recording_id] = new
        all_parts = parts_of(self.published.read(RECORDINGS, source))
        for day, arriving in sorted(by_day.items()):
            parts = parts_of(self.published.read(RECORDINGS, day))
            for recording_id, new in arriving.items():
                own = all_parts.get(recording_id)
                if day == source:
                    parts.pop(recording_id, None)
                if own is not None:
                    parts[new.recording_id] = own
            for name in PUBLISH_ORDER:
                there = self.published.read(name, source)
                if there is None:
                    continue
                rows = redescribed(name, with_ids(there, arriving), arriving)
                here = there if day == source else self.published.read(name, day)
                if here is not None:
                    # Those that a crash in the middle has carried over already are not there twice.
                    replaced = set(rows["recording_id"].to_pylist()) | (
                        set(arriving) if day == source else set()
                    )
                    rows = pa.concat_tables([with_ids(here, replaced, inverted=True), rows])
                self._write(name, day, rows, parts)

    def drop(self, day: Day, recording_ids: Collection[str]) -> None:
        """Take a day's rows of recordings away; a day without recordings goes."""
        for name in PUBLISH_ORDER:
            old = self.published.read(name, day)
            if old is None:
                continue
            parts = {key: own for key, own in parts_of(old).items() if key not in recording_ids}
            self._write(name, day, with_ids(old, recording_ids, inverted=True), parts)
        left = self.published.read(RECORDINGS, day)
        if left is not None and not left.num_rows:
            self.published.remove(day)

    def _write(self, table: str, day: Day, rows: pa.Table, parts: Parts | None = None) -> None:
        self.published.write(table, day, rows, self._analysis_hash, parts)
