"""Where an output directory holds what: the names of its files and folders.

    analysis.yaml                            what determines the rows
    <table>/<station>/<date>.parquet         the published rows of a day; undated.parquet where no date is known
    _staging/<table>/<segment id>.parquet    committed segments whose day is not complete
    _staging/withdrawn.json                  published rows that do not count, while published files change
    _plans/<hash>.parquet                    what scans found
    _runs/<start>.json                       what ran
    reviews/<time>.parquet                   what people decided about detections
    probe_detections/<probe>/<station>/<date>.parquet   what probes found
    _lock.json                               who writes
    _vectors/                                analysis.yaml, staged segments and recordings of the embeddings

Readers of Parquet open `<table>` as it is, so nothing else is ever in there: unfinished files are below `_staging`.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote

from naturelm.errors import NaturelmError, RunStopped
from naturelm.storage import Location, StoreError

ANALYSIS = "analysis.yaml"
STAGING = "_staging"
WITHDRAWN = "withdrawn.json"
PLANS = "_plans"
RUNS = "_runs"
REVIEWS = "reviews"
LOCK = "_lock.json"
VECTORS_HOME = "_vectors"
PROBES = "probe_detections"
CLIPS = "clips.csv"
"""The list in a directory of clips."""

UNDATED = "undated"
MOST_FOLDER_BYTES = 100

# What ends a name that had to be cut. It occurs in no other: in a station's name it is percent-encoded.
_CUT = "~"
_HASH_BYTES = 8
# Windows keeps these names for devices, whatever follows a dot in them.
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(?![^. ])")
_DAY_FILE = re.compile(rf"([^/=._][^/=]*)/(\d{{4}}-\d\d-\d\d|{UNDATED})\.parquet")
_SEGMENT_FILE = re.compile(r"([0-9a-f]{32}-\d{6,})\.parquet")


def holds_results(directory: Location) -> bool:
    """Whether a run has begun an analysis there."""
    return (directory / ANALYSIS).is_file()


def analysis_home(directory: Location) -> Location:
    """Where the analysis of a directory lies: in it, or in `_vectors` where it holds embeddings only."""
    vectors = directory / VECTORS_HOME
    return vectors if not holds_results(directory) and holds_results(vectors) else directory


def is_output(directory: Location, names: Collection[str]) -> bool:
    """Whether this program wrote a directory, by the names in it: results, or clips with their list."""
    if ANALYSIS in names or VECTORS_HOME in names:
        return not {RUNS, STAGING, PLANS}.isdisjoint(names)
    if CLIPS not in names:
        return False
    try:
        with (directory / CLIPS).open("rb") as file:
            header = file.read(4096).partition(b"\n")[0]
    except OSError:
        return False
    return header.startswith(b"file,label,score,") and b",recording_id," in header


def check_results(directory: Location) -> None:
    """Refuse a directory that holds no results.

    Raises
    ------
    NaturelmError
        It holds none, or it cannot be read.
    """
    try:
        found = holds_results(analysis_home(directory))
    except StoreError as error:
        raise NaturelmError(
            f"{directory}: cannot be read ({error.strerror}); check the URL and your credentials"
        ) from None
    if not found:
        raise NaturelmError(
            f"{directory}: holds no results (no {ANALYSIS}); give the --out directory of naturelm process"
        )


def folder_name(station: str, taken: Collection[str] = ()) -> str:
    """The folder of a station in every table.

    It is the station's name, percent-encoded where a disk, a shell or a reader of Parquet would take it for something
    else. A name of more than `MOST_FOLDER_BYTES` is cut and ends with a hash, and so does one that differs from a
    folder that is there in upper and lower case only: the disks of Windows and macOS take these for the same.

    Parameters
    ----------
    station : str
        Any text.
    taken : collection of str
        The folders that are there. A station that has one of them keeps it.
    """
    name = _encoded(station)
    cut = name[: MOST_FOLDER_BYTES - 2 * _HASH_BYTES - len(_CUT)]
    digest = hashlib.blake2b(station.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
    hashed = f"{re.sub('%.?$', '', cut)}{_CUT}{digest}"
    if not name or len(name) > MOST_FOLDER_BYTES or hashed in taken:
        return hashed
    if name not in taken and any(name.lower() == other.lower() for other in taken):
        return hashed
    return name


def station_of(folder: str) -> str | None:
    """The station whose folder this is; None for a name that was cut, of which only the rows know the whole."""
    return None if _CUT in folder else unquote(folder)


def _encoded(station: str) -> str:
    name = quote(station, safe=" ", errors="surrogatepass").replace(_CUT, "%7E")
    # pyarrow and Spark hide what begins with `.` or `_`, Windows drops dots and spaces from the end.
    name = re.sub(r"^[._ ]|[. ]+$", lambda found: "".join(f"%{ord(char):02X}" for char in found[0]), name)
    return f"%{ord(name[0]):02X}{name[1:]}" if _DEVICE.match(name) else name


def day_file(folder: str, date: str) -> str:
    """A day's file below a table's folder."""
    return f"{folder}/{date or UNDATED}.parquet"


def split_day_file(path: str) -> tuple[str, str] | None:
    """Undo `day_file`; None for files that are no day's."""
    found = _DAY_FILE.fullmatch(path)
    return (found[1], "" if found[2] == UNDATED else found[2]) if found else None


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
