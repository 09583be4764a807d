"""What the *Explore* tab shows of a results directory; knows nothing of web pages but the player."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naturelm.tables.originals import locate_originals, read_excerpts
from naturelm.tables.player import PAD_S, player_html
from naturelm.tables.query import open_tables
from naturelm.tables.reviews import Decision, Review, append_review, create_reviews, precision_interval
from naturelm.text import one_line

if TYPE_CHECKING:
    import duckdb

MAX_ROWS = 500
"""Detections that are listed at once; filters choose which."""


_SEARCH = """
    SELECT detections.recording_id, path, detections.station, detections.start_s, detections.end_s,
           detections.start_local, detections.query, detections.label AS spelling, labels.name AS label,
           detections.score, detections.text, decisions.decision, decisions.new_label, count(*) OVER () AS found
    FROM detections JOIN labels USING (label)
    LEFT JOIN decisions ON decisions.recording_id = detections.recording_id
        AND decisions.start_s = detections.start_s AND decisions.query = detections.query
        AND decisions.label = detections.label
    WHERE (len($stations) = 0 OR list_contains($stations, coalesce(detections.station, '')))
        AND (len($labels) = 0 OR list_contains($labels, labels.name))
        AND ($first_date IS NULL OR CAST(detections.start_local AS DATE) >= $first_date)
        AND ($last_date IS NULL OR CAST(detections.start_local AS DATE) <= $last_date)
        AND ($all_day OR CASE WHEN $first_hour <= $last_hour
            THEN hour(detections.start_local) BETWEEN $first_hour AND $last_hour
            ELSE hour(detections.start_local) >= $first_hour OR hour(detections.start_local) <= $last_hour END)
        AND coalesce(detections.score, 0) BETWEEN $min_score AND $max_score
        AND NOT ($unreviewed AND decisions.decision IS NOT NULL)
    ORDER BY {order} LIMIT {limit}"""

ORDERS = {
    "best scores first": "detections.score DESC, path, detections.start_s, labels.name",
    "lowest scores first": "detections.score, path, detections.start_s, labels.name",
    "in order of time": "detections.start_local, path, detections.start_s, labels.name",
    "at random": "hash(detections.recording_id, detections.start_s, detections.label)",
}
"""How detections may be listed; by chance is what a fair estimate of precision needs."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the filters offer: stations and labels, both sorted; first and last local date."""

    stations: list[str]
    labels: list[str]
    first_date: dt.date | None
    last_date: dt.date | None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which detections to list.

    Attributes
    ----------
    stations, labels : tuple of str
        Any where empty.
    first_date, last_date : datetime.date or None
        Local dates, both included; detections without a known time have none.
    first_hour, last_hour : int
        Hours of the local day, 0 to 23, both included; 22 to 4 is a night.
    min_score, max_score : float
    unreviewed : bool
        Leave out what somebody has decided on.
    order : str
        A key of `ORDERS`.
    """

    stations: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    first_date: dt.date | None = None
    last_date: dt.date | None = None
    first_hour: int = 0
    last_hour: int = 23
    min_score: float = 0.0
    max_score: float = 1.0
    unreviewed: bool = False
    order: str = "best scores first"


@dataclass(frozen=True, slots=True)
class FoundDetections:
    """Listed detections as rows (dicts), and how many fit the filters altogether."""

    rows: list[dict[str, Any]]
    total: int


@dataclass(frozen=True, slots=True)
class LabelPrecision:
    """How often reviewers agreed with a label; `low` and `high` bound a 95 % interval."""

    label: str
    reviewed: int
    agreed: int
    low: float
    high: float

    @property
    def precision(self) -> float:
        return self.agreed / self.reviewed


class Results:
    """A results directory that is looked at and reviewed; may be used by several threads.

    Parameters
    ----------
    directory : Path
        A results directory.
    archive : Path, optional
        Where the original recordings lie, if not where the runs found them.

    Raises
    ------
    NaturelmError
        `directory` holds no results.
    """

    def __init__(self, directory: Path, archive: Path | None = None) -> None:
        self.directory = directory
        self._archive = archive
        self._lock = threading.Lock()
        self._tables: duckdb.DuckDBPyConnection | None = None
        with self._connection():
            pass

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._lock:
            if self._tables is None:
                self._tables = open_tables(self.directory)
            create_reviews(self._tables, self.directory)
            yield self._tables

    def refresh(self) -> None:
        """See what a running job has committed since."""
        with self._lock:
            self._tables = None

    def choices(self) -> Choices:
        with self._connection() as tables:
            stations = tables.execute(
                "SELECT DISTINCT coalesce(station, '') FROM recordings ORDER BY 1"
            ).fetchall()
            labels = tables.execute("SELECT DISTINCT name FROM labels ORDER BY lower(name), name").fetchall()
            [dates] = tables.execute(
                "SELECT min(start_local)::DATE, max(start_local)::DATE FROM detections"
            ).fetchall()
        return Choices([row[0] for row in stations], [row[0] for row in labels], *dates)

    def search(self, filters: Filters) -> FoundDetections:
        """List detections, at most `MAX_ROWS`."""
        query = _SEARCH.format(order=ORDERS[filters.order], limit=MAX_ROWS)
        with self._connection() as tables:
            cursor = tables.execute(
                query,
                {
                    "stations": list(filters.stations),
                    "labels": list(filters.labels),
                    "first_date": filters.first_date,
                    "last_date": filters.last_date,
                    "first_hour": filters.first_hour,
                    "last_hour": filters.last_hour,
                    "all_day": (filters.first_hour, filters.last_hour) == (0, 23),
                    "min_score": filters.min_score,
                    "max_score": filters.max_score,
                    "unreviewed": filters.unreviewed,
                },
            )
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return FoundDetections(rows, rows[0]["found"] if rows else 0)

    def player(self, row: dict[str, Any]) -> str | None:
        """Spectrogram and player of a listed detection as HTML; None where the original is not found.

        Raises
        ------
        NaturelmError
            The original cannot be decoded.
        """
        recording_id = row["recording_id"]
        original = locate_originals(self.directory, {recording_id: row["path"]}, self._archive).get(
            recording_id
        )
        if original is None:
            return None
        span = (row["start_s"], row["end_s"])
        excerpt = next(read_excerpts(original, [(span[0] - PAD_S, span[1] + PAD_S)]), None)
        if excerpt is None:
            return None
        name = f"{one_line(row['label'], 60)}, {one_line(row['path'], 80)}"
        return player_html(excerpt.mono(), excerpt.sample_rate_hz, excerpt.start_s, name, span)

    def review(
        self, row: dict[str, Any], decision: Decision, reviewer: str, new_label: str | None = None
    ) -> None:
        """Append a decision about a listed detection.

        Raises
        ------
        NaturelmError
            A relabelling without a label, or the table cannot be written.
        """
        append_review(
            self.directory,
            Review(
                recording_id=row["recording_id"],
                start_s=row["start_s"],
                end_s=row["end_s"],
                query=row["query"],
                label=row["spelling"],
                decision=decision,
                reviewer=reviewer.strip(),
                new_label=new_label.strip() if new_label else None,
            ),
        )

    def precisions(self) -> list[LabelPrecision]:
        """Precision of each label that somebody reviewed, most reviewed first."""
        with self._connection() as tables:
            rows = tables.execute(
                "SELECT label, reviewed, agreed FROM reviewed_labels ORDER BY reviewed DESC, label"
            ).fetchall()
        return [
            LabelPrecision(label, reviewed, agreed, *precision_interval(agreed, reviewed))
            for label, reviewed, agreed in rows
        ]
