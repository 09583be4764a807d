"""The output directory: what is committed, staging a segment, publishing a day.

A segment's rows are staged as `_staging/<table>/<segment_id>.parquet`, `answers` last: that file is the
segment's commit. When all segments of a day are committed its rows are merged into one file per table,
`<table>/station=…/date=…/part-0.parquet`, `recordings` last, and the staged files go. Names and contents
are deterministic, so every step may be repeated after a crash at any moment.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from naturelm.errors import NaturelmError
from naturelm.ids import settings_hash
from naturelm.pipeline.plan import Day
from naturelm.pipeline.rows import published_schema, reduce_recordings
from naturelm.schemas import ANSWERS, RECORDINGS, SORT_KEYS, TABLES

STAGING = "_staging"
RUNS = "_runs"
ANALYSIS = "analysis.yaml"
UNKNOWN = "__HIVE_DEFAULT_PARTITION__"
# No reader that looks for *.parquet sees a file that a crash left half written.
_TEMPORARY = ".tmp"

# `recordings` last: a recording that stands there has all its other rows published.
_PUBLISH_ORDER = [*(name for name in TABLES if name != RECORDINGS), RECORDINGS]
# `answers` last: its presence is the segment's commit.
_STAGE_ORDER = [*(name for name in TABLES if name != ANSWERS), ANSWERS]
_SEGMENT_FILE = re.compile(r"([0-9a-f]{32})-(\d{6,})\.parquet")


class Output:
    """An output directory, which holds one analysis.

    Parameters
    ----------
    directory : Path
        Made where it is missing.
    analysis : dict
        What determines the rows (`ArchiveConfig.analysis`).
    resolved : dict
        The whole resolved configuration, written beside the tables.
    segment_windows : int
        Windows a segment; a directory keeps the number it was begun with.

    Raises
    ------
    NaturelmError
        The directory is a file, cannot be written, or holds another analysis.
    """

    def __init__(
        self, directory: Path, analysis: dict[str, Any], resolved: dict[str, Any], segment_windows: int
    ) -> None:
        self.directory = directory
        self.analysis_hash = settings_hash(analysis)
        self.segment_windows = segment_windows
        try:
            if directory.exists() and not directory.is_dir():
                raise NaturelmError(f"{directory}: is a file; give --out a directory")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / RUNS).mkdir(exist_ok=True)
            for name in TABLES:
                (directory / STAGING / name).mkdir(parents=True, exist_ok=True)
            if (directory / ANALYSIS).exists():
                self._check_same_analysis(analysis)
            else:
                self._begin(analysis, resolved)
        except OSError as error:
            raise NaturelmError(
                f"{directory}: cannot be written ({error.strerror}); give --out a writable directory"
            ) from None

    def _begin(self, analysis: dict[str, Any], resolved: dict[str, Any]) -> None:
        text = yaml.safe_dump(
            {
                "hash": self.analysis_hash,
                "segment_windows": self.segment_windows,
                "analysis": analysis,
                "config": resolved,
            },
            sort_keys=False,
            allow_unicode=True,
        )
        write_whole(self.directory / ANALYSIS, text.encode())

    def _check_same_analysis(self, analysis: dict[str, Any]) -> None:
        path = self.directory / ANALYSIS
        try:
            stored = yaml.safe_load(path.read_text(encoding="utf-8"))
            stored_analysis, self.segment_windows = stored["analysis"], int(stored["segment_windows"])
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            raise NaturelmError(f"{path}: is damaged; give another --out") from None
        differing = list(_differences(stored_analysis, analysis))
        if differing:
            raise NaturelmError(
                f"{self.directory}: holds another analysis, which differs in {'; '.join(differing)}; "
                "give another --out or the same settings"
            )

    # --- what is committed

    def published(self) -> set[str]:
        """Ids of the recordings whose rows are published."""
        root = self.directory / RECORDINGS
        if not root.is_dir():
            return set()
        files = [str(path) for path in root.rglob("*.parquet")]
        table = ds.dataset(files, format="parquet", schema=TABLES[RECORDINGS]).to_table(
            columns=["recording_id"]
        )
        return set(table["recording_id"].to_pylist())

    def staged(self) -> set[str]:
        """Ids of the segments that are committed and not yet published."""
        names = (entry.name for entry in os.scandir(self.directory / STAGING / ANSWERS))
        return {name.removesuffix(".parquet") for name in names if _SEGMENT_FILE.fullmatch(name)}

    def recover(self, published: set[str]) -> set[str]:
        """Clear what a crash left behind, and return the ids of the segments that stay staged.

        Half-written files go, and so do staged segments of published recordings: a crash came between
        their publishing and this clean-up.
        """
        for path in self.directory.rglob(f"*{_TEMPORARY}"):
            path.unlink(missing_ok=True)
        staged = self.staged()
        over = {name for name in staged if name.rsplit("-", 1)[0] in published}
        self._unstage(over)
        return staged - over

    # --- committing

    def stage(self, segment_id: str, tables: dict[str, pa.Table]) -> None:
        """Commit a segment's rows."""
        for name in _STAGE_ORDER:
            write_table(self._staged_path(name, segment_id), tables[name])

    def publish(self, day: Day, segment_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Merge a day's staged segments into its published files.

        Recordings that were published before keep their rows, except those staged again.

        Returns
        -------
        list of dict
            The `recordings` rows that this adds.
        """
        staged = sorted(segment_ids)
        recordings = {name.rsplit("-", 1)[0] for name in staged}
        for name in _PUBLISH_ORDER:
            parts = [pq.read_table(self._staged_path(name, part)) for part in staged]
            new = pa.concat_tables([part.drop_columns(["station", "date"]) for part in parts])
            if name == RECORDINGS:
                new = _reduce(new)
                added = new.to_pylist()
            path = self._published_path(name, day)
            if path.exists():
                old = pq.read_table(path, partitioning=None).cast(TABLES[name])
                kept = pc.invert(pc.is_in(old["recording_id"], pa.array(sorted(recordings), pa.string())))
                new = pa.concat_tables([old.filter(kept), new.cast(TABLES[name])])
            new = new.sort_by([(key, "ascending") for key in SORT_KEYS[name]])
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(path, new.cast(published_schema(name, self.analysis_hash)))
        self._unstage(staged)
        return added

    def _unstage(self, segment_ids: Iterable[str]) -> None:
        ids = list(segment_ids)
        # `answers` first: without it the segment's other staged files count for nothing.
        for name in reversed(_STAGE_ORDER):
            for part in ids:
                self._staged_path(name, part).unlink(missing_ok=True)

    def _staged_path(self, table: str, segment_id: str) -> Path:
        return self.directory / STAGING / table / f"{segment_id}.parquet"

    def _published_path(self, table: str, day: Day) -> Path:
        station = partition_value(day.station)
        return (
            self.directory / table / f"station={station}" / f"date={day.date or UNKNOWN}" / "part-0.parquet"
        )


def partition_value(station: str) -> str:
    """A station's name as a directory name, percent-encoded as Hive does."""
    return quote(station, safe=" ") if station else UNKNOWN


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file so that it appears whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(path, sink.getvalue())


def write_whole(path: Path, content: bytes | pa.Buffer) -> None:
    """Write a file so that it appears whole or not at all, and stays after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _reduce(parts: pa.Table) -> pa.Table:
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in parts.to_pylist():
        rows[row["recording_id"]].append(row)
    return pa.Table.from_pylist(
        [reduce_recordings(same) for same in rows.values()], schema=TABLES[RECORDINGS]
    )


def _differences(stored: Any, given: Any, where: str = "") -> Iterable[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*stored, *(key for key in given if key not in stored)]:
            yield from _differences(stored.get(key), given.get(key), f"{where}.{key}" if where else str(key))
    elif stored != given:
        yield f"{where} ({_short(stored)} there, {_short(given)} now)"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
