"""What people say of detections: one Parquet file and row per decision. Detections themselves never change."""

from __future__ import annotations

import datetime as dt
import math
import unicodedata
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pyarrow as pa

from naturelm.errors import NaturelmError
from naturelm.results.layout import REVIEWS
from naturelm.results.parquet import read_table, write_table
from naturelm.results.schemas import REVIEWS_SCHEMA
from naturelm.storage import Location, list_files, location

if TYPE_CHECKING:
    import duckdb

Decision = Literal["agree", "disagree", "relabel"]

MAX_LABEL_CHARACTERS = 200

# A detection's newest decision is the one that counts.
_VIEWS = """
    CREATE OR REPLACE TEMP VIEW decisions AS
    SELECT * FROM reviews QUALIFY row_number() OVER (
        PARTITION BY recording_id, start_s, query, label ORDER BY reviewed_time DESC) = 1;
    CREATE OR REPLACE TEMP VIEW reviewed_labels AS
    SELECT coalesce(labels.name, decisions.label) AS label,
           count(*) AS reviewed, count(*) FILTER (decision = 'agree') AS agreed
    FROM decisions LEFT JOIN labels USING (label) GROUP BY ALL"""


@dataclass(frozen=True, slots=True)
class Review:
    """A decision about a detection.

    Attributes
    ----------
    recording_id, start_s, end_s, query, label
        The detection, as its row names it.
    decision : {"agree", "disagree", "relabel"}
        `relabel`: something else is audible, `new_label`.
    reviewer : str
        Who decided; may be empty.
    new_label : str or None
        Only where `decision` is `relabel`.
    """

    recording_id: str
    start_s: float
    end_s: float
    query: str
    label: str
    decision: Decision
    reviewer: str
    new_label: str | None = None

    def __post_init__(self) -> None:
        for what in ("new_label", "reviewer"):
            text = getattr(self, what)
            if text is not None and not isinstance(text, str):
                raise NaturelmError(f"{what} is {type(text).__name__}; give text")
            if any(unicodedata.category(character) in ("Cc", "Cs") for character in text or ""):
                raise NaturelmError(f"{what} {text!r} contains control characters; give plain text")
        if self.decision not in get_args(Decision):
            raise NaturelmError(f"decision is {self.decision!r}; give agree, disagree or relabel")
        if (self.decision == "relabel") != bool(self.new_label and self.new_label.strip()):
            raise NaturelmError(
                f"decision is {self.decision} with new label {self.new_label!r}; relabel needs one"
            )
        if len(self.new_label or "") > MAX_LABEL_CHARACTERS or len(self.reviewer) > MAX_LABEL_CHARACTERS:
            raise NaturelmError(
                f"label or reviewer has more than {MAX_LABEL_CHARACTERS} characters; give a shorter one"
            )


def append_review(directory: Path, review: Review) -> Path:
    """Append a decision to the `reviews` table of a results directory; returns the file written.

    Several people may review at once: every decision is a separate file, renamed into place when it is whole.

    Raises
    ------
    NaturelmError
        The table cannot be written.
    """
    now = dt.datetime.now(dt.UTC)
    folder = directory / REVIEWS
    path = folder / f"{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:8]}.parquet"
    try:
        folder.mkdir(exist_ok=True)
        row = asdict(review) | {"reviewed_time": now}
        write_table(path, pa.Table.from_pylist([row], schema=REVIEWS_SCHEMA))
    except OSError as error:
        raise NaturelmError(
            f"{folder}: cannot be written ({error.strerror}); check its permissions"
        ) from None
    return path


def read_reviews(directory: str | Location) -> pa.Table:
    """All decisions of a results directory, oldest first; empty where there are none."""
    files = list_files(location(directory) / REVIEWS)
    tables = [
        read_table(file.location, remedy="restore it from a backup, or delete it")
        for file in files
        if file.location.suffix == ".parquet"
    ]
    return pa.concat_tables([REVIEWS_SCHEMA.empty_table(), *tables]).sort_by("reviewed_time")


def create_reviews(connection: duckdb.DuckDBPyConnection, directory: str | Location) -> None:
    """Add the views `reviews`, `decisions` and `reviewed_labels` to a connection with `labels`.

    `reviews` has one row per decision; `decisions` the newest one of each detection; `reviewed_labels`, per label,
    how many detections are `reviewed` and how many reviewers `agreed` with.
    """
    connection.register(REVIEWS, read_reviews(directory))
    connection.execute(_VIEWS)


def precision_interval(agreed: int, reviewed: int) -> tuple[float, float]:
    """95 % interval of a precision of which `agreed` out of `reviewed` were right (Wilson 1927)."""
    z = 1.96
    share = agreed / reviewed
    centre = share + z * z / (2 * reviewed)
    half = z * math.sqrt(share * (1 - share) / reviewed + z * z / (4 * reviewed * reviewed))
    scale = 1 + z * z / reviewed
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
