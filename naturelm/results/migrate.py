"""`naturelm migrate`: convert an output directory of an older schema version to the current one.

Versions 1 and 2 kept station and date in the path alone, `<table>/station=<station>/date=<date>/part-0.parquet`, and
version 1 had neither `recordings.deployment` nor `answers.gated`. Ids, windows, answers and scores stay as they are.

The new files are written beside the old ones; then `analysis.yaml` says that they are complete; then the old ones are
removed; then `analysis.yaml` has the current version. After a crash at any moment the directory is refused by
everything else, and migrating again completes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pydantic import ValidationError

from naturelm.config.archive import ArchiveConfig
from naturelm.results.analysis import (
    OLDER_VERSIONS,
    UNFINISHED,
    Analysis,
    analysis_of,
    check_version,
    read_stored,
    version_of,
    write_analysis,
)
from naturelm.results.days import parts_of
from naturelm.results.layout import split_day_file, writes_to
from naturelm.results.lock import Lock
from naturelm.results.parquet import read_table, remove_all, write_table
from naturelm.results.published import PublishedFiles
from naturelm.results.schemas import (
    ANSWERS,
    SCHEMA_VERSION,
    TABLES,
    conformed,
    published_metadata,
    table_columns,
)
from naturelm.results.staging import StagedFiles
from naturelm.results.table_sets import WORDS
from naturelm.segments import Day
from naturelm.storage import TEMPORARY, Location, StoredFile, list_files, location

_OLD_DAY_FILE = re.compile(r"station=([^/]*)/date=([^/]*)/part-0\.parquet")
_UNKNOWN = "__HIVE_DEFAULT_PARTITION__"
# The sections of a configuration that an analysis is made of.
_DETERMINING = ("model", "queries", "windows", "audio", "generation", "gate")


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` did.

    Attributes
    ----------
    version : int or str
        The schema version that it found.
    days : int
        Station-days whose published rows it converted; 0 where an interrupted migration had converted them.
    segments : int
        Committed segments that wait in `_staging`.
    unknown_files : list of str
        Files between the old ones that no version of naturelm writes; they are left where they are.
    """

    version: int | str
    days: int
    segments: int
    unknown_files: list[str]


def migrate(directory: str | Location, report: Callable[[str], None]) -> Migration | None:
    """Convert an output directory to the current schema version.

    Parameters
    ----------
    directory : str, Path or StorePath
        The output directory of `naturelm process`, a path or a URL.
    report : callable
        Receives one sentence where it takes long because another run seems to write there.

    Returns
    -------
    Migration or None
        None where the directory has the current version: nothing is changed.

    Raises
    ------
    NaturelmError
        The directory holds no results, is damaged, is of a newer version, or a run is writing into it.
    RunStopped
        The directory cannot be written.
    """
    directory = location(directory)
    version = version_of(read_stored(directory))
    if version not in (*OLDER_VERSIONS, UNFINISHED):
        check_version(directory)
        return None
    with Lock(directory, report), writes_to(directory):
        # Another one may have migrated it in the meantime.
        stored = read_stored(directory)
        version = version_of(stored)
        if version == SCHEMA_VERSION:
            return None
        analysis = analysis_of(directory, stored)
        days = 0
        if version != UNFINISHED:
            analysis = Analysis(
                _settings_now(stored), analysis.segment_windows, analysis.config, table_columns()
            )
            days = _write_published(directory, analysis.hash)
            _convert_staged(directory)
            write_analysis(directory, analysis, UNFINISHED)
        unknown_files = _remove_old(directory)
        write_analysis(directory, analysis)
    return Migration(version, days, len(StagedFiles(directory).ids()), unknown_files)


def _write_published(directory: Location, analysis_hash: str) -> int:
    """Write the published rows in their new places; returns the number of days."""
    StagedFiles(directory).create()
    # What an interrupted migration left: an older program may have changed the tables since.
    for table in TABLES:
        files = list_files(directory / table, recursive=True)
        remove_all(file.location for file in files if split_day_file(file.relative_path) is not None)
    published, metadata = PublishedFiles(directory), published_metadata(analysis_hash)
    days: set[Day] = set()
    for table in WORDS.publishing_order:
        for file in list_files(directory / table, recursive=True):
            day = _old_day(file)
            if day is not None:
                rows = read_table(file.location)
                published.write(table, day, _rows_now(table, rows, day), metadata, parts_of(rows))
                days.add(day)
    return len(days)


def _convert_staged(directory: Location) -> None:
    """Write the rows of committed segments in their places again, as the current version has them."""
    staged = StagedFiles(directory)
    for segment_id in sorted(staged.ids()):
        for table, schema in TABLES.items():
            path = staged.path(table, segment_id)
            rows = read_table(path)
            if not rows.schema.equals(schema):
                write_table(path, _rows_now(table, rows))


def _remove_old(directory: Location) -> list[str]:
    """Remove the files of an older version and their folders; returns the files that are of no version."""
    unknown = []
    for table in TABLES:
        for file in list_files(directory / table, recursive=True):
            if not file.relative_path.startswith("station="):
                continue
            if _old_day(file) is not None or file.relative_path.endswith(TEMPORARY):
                file.location.unlink(missing_ok=True)
            else:
                unknown.append(f"{table}/{file.relative_path}")
        place = directory / table
        if isinstance(place, Path):
            for folder in [*place.glob("station=*/date=*"), *place.glob("station=*")]:
                if not any(folder.iterdir()):
                    folder.rmdir()
    return unknown


def _old_day(file: StoredFile) -> Day | None:
    """The day whose published rows an older version has in this file; None for other files."""
    found = _OLD_DAY_FILE.fullmatch(file.relative_path)
    if found is None:
        return None
    station, date = ("" if name == _UNKNOWN else unquote(name) for name in found.groups())
    return Day(station, date)


def _rows_now(table: str, rows: pa.Table, day: Day | None = None) -> pa.Table:
    """Rows of an older version with the columns of the current one; the path of published rows gives the day."""
    added: dict[str, pa.Scalar] = {}
    if day is not None:
        added = {"station": pa.scalar(day.station), "date": pa.scalar(day.as_date(), pa.date32())}
    if table == ANSWERS and "gated" not in rows.schema.names:
        # Before there was a gate, the model had every window.
        added["gated"] = pa.scalar(False)
    for name, value in added.items():
        rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
    return conformed(table, rows)


def _settings_now(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the rows, with the settings that analyses have had since, at their defaults."""
    old: dict[str, Any] = dict(stored["analysis"])
    config = stored.get("config") or {}
    try:
        known = ArchiveConfig.model_validate({name: config[name] for name in _DETERMINING if name in config})
    except ValidationError:
        # Settings that no longer exist: a run with others is refused with their names.
        return old
    return _completed(old, known.analysis(old["model"]["revision"]))


def _completed(old: dict[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with what only `now` has."""
    completed = {}
    for name in [*now, *(name for name in old if name not in now)]:
        if name not in old:
            completed[name] = now[name]
        elif isinstance(old[name], dict) and isinstance(now.get(name), dict):
            completed[name] = _completed(old[name], now[name])
        else:
            completed[name] = old[name]
    return completed
