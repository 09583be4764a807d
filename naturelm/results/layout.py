"""Where an output directory holds what: the names of its files and folders.

analysis.yaml                                            what determines the rows
<table>/station=<station>/date=<date>/part-0.parquet     the published rows of a day
_staging/<table>/<segment id>.parquet                    committed segments whose day is not complete
_plans/<hash>.parquet                                    what scans found
_runs/<start>.json                                       what ran
reviews/<time>.parquet                                   what people decided about detections
_lock.json                                               who writes
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote

from naturelm.errors import NaturelmError, RunStopped
from naturelm.segments import Day
from naturelm.storage import Location, StoreError

ANALYSIS = "analysis.yaml"
STAGING = "_staging"
PLANS = "_plans"
RUNS = "_runs"
REVIEWS = "reviews"
LOCK = "_lock.json"

_UNKNOWN = "__HIVE_DEFAULT_PARTITION__"
_DAY_FILE = re.compile(r"station=([^/]*)/date=([^/]*)/part-0\.parquet")
_SEGMENT_FILE = re.compile(r"([0-9a-f]{32}-\d{6,})\.parquet")


def holds_results(directory: Location) -> bool:
    """Whether a run has begun an analysis there."""
    return (directory / ANALYSIS).is_file()


def check_results(directory: Location) -> None:
    """Refuse a directory that holds no results.

    Raises
    ------
    NaturelmError
        It holds none, or it cannot be read.
    """
    try:
        found = holds_results(directory)
    except StoreError as error:
        raise NaturelmError(
            f"{directory}: cannot be read ({error.strerror}); check the URL and your credentials"
        ) from None
    if not found:
        raise NaturelmError(
            f"{directory}: holds no results (no {ANALYSIS}); give the --out directory of naturelm process"
        )


def day_path(day: Day) -> str:
    """A day's file below a table's folder."""
    station = quote(day.station, safe=" ") if day.station else _UNKNOWN
    return f"station={station}/date={day.date or _UNKNOWN}/part-0.parquet"


def day_of(path: str) -> Day | None:
    """The day whose file this is; None for files that are no day's."""
    found = _DAY_FILE.fullmatch(path)
    if found is None:
        return None
    station, date = found.groups()
    return Day("" if station == _UNKNOWN else unquote(station), "" if date == _UNKNOWN else date)


def segment_of(name: str) -> str | None:
    """The id of the segment whose staged file this is; None for files that are no segment's."""
    found = _SEGMENT_FILE.fullmatch(name)
    return found[1] if found else None


@contextmanager
def writes_to(out: Location) -> Iterator[None]:
    """Report in one sentence that the output directory cannot be written any more.

    Raises
    ------
    RunStopped
        In place of an OSError: the disk is full, or is not there any more.
    """
    try:
        yield
    except OSError as error:
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see to it"
        raise RunStopped(
            f"{out}: cannot be written ({error.strerror or error}); what was done is kept: {remedy} "
            "and run the same command again"
        ) from error
