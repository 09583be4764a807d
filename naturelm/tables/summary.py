"""Detections counted by label and hour, date or station, beside the hours that were analysed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import duckdb

from naturelm.tables.quality import marked_recordings
from naturelm.tables.row_formats import aligned
from naturelm.text import printable

By = Literal["hour", "date", "station", "label"]
Clock = Literal["local", "utc"]

UNKNOWN = "unknown"
_LABELS_SHOWN = 40
_FAILURES_SHOWN = 20
_NAME_WIDTH = 30

# Hours may overlap their bucket's edges: a recording's sound is shared out among the hours it touches.
_EFFORT = """
WITH spans AS (
    SELECT {time} AS begins, to_microseconds((decoded_s * 1e6)::BIGINT) AS lasts, decoded_s, station
    FROM recordings WHERE windows > 0
),
pieces AS (
    SELECT station, begins, begins + lasts AS ends,
        unnest(generate_series(date_trunc('hour', begins), begins + lasts, INTERVAL 1 HOUR)) AS hour
    FROM spans WHERE begins IS NOT NULL
    UNION ALL
    SELECT station, TIMESTAMP 'epoch', TIMESTAMP 'epoch' + lasts, NULL FROM spans WHERE begins IS NULL
)
SELECT {bucket} AS bucket,
    sum(epoch(CASE
        WHEN hour IS NULL THEN ends - begins
        ELSE greatest(least(ends, hour + INTERVAL 1 HOUR) - greatest(begins, hour), INTERVAL 0 SECOND)
    END)) / 3600 AS hours
FROM pieces GROUP BY bucket HAVING hours > 0 ORDER BY bucket
"""

_COUNTS = """
SELECT name, label_key, bucket, sum(spelled)::BIGINT AS detections
FROM (
    SELECT label, {bucket} AS bucket, count(*) AS spelled
    FROM detections
    WHERE coalesce(score, 0) >= $min_score
    GROUP BY ALL
)
JOIN labels USING (label)
GROUP BY ALL
"""

_LABELS = """
SELECT
    name AS label,
    label_key,
    count(*) AS detections,
    count(DISTINCT recording_id) AS recordings,
    count(DISTINCT station) AS stations,
    min({time}) AS first,
    max({time}) AS last,
    avg(score) AS mean_score,
    max(score) AS best_score
FROM detections JOIN labels USING (label)
WHERE coalesce(score, 0) >= $min_score
GROUP BY ALL
ORDER BY detections DESC, label
"""

_TIME = {"local": "start_local", "utc": "start_time AT TIME ZONE 'UTC'"}
_EFFORT_BUCKET = {"hour": "hour(hour)", "date": "hour::DATE", "station": "station", "label": "NULL"}
_COUNT_BUCKET = {"hour": "hour({time})", "date": "({time})::DATE", "station": "station"}


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How often a label was detected.

    Attributes
    ----------
    label : str
        Its most frequent spelling.
    detections : int
        Windows in which it was detected, once per query.
    counts : dict
        The same by bucket (hour "00" to "23", date or station; "unknown"); empty for `by="label"`.
    details : dict
        For `by="label"`: recordings, stations, first, last, mean_score, best_score.
    """

    label: str
    label_key: str
    detections: int
    counts: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """What was recorded and what was detected.

    Attributes
    ----------
    by, clock, min_score
        As requested.
    statuses : dict
        Per status, the number of recordings and their hours of decoded sound.
    failures : list of dict
        Path, status and error of every recording that is not `ok`.
    marked : list of dict
        Path and marks of every recording whose sound or clock is doubtful, see `quality`.
    effort_hours : dict
        Hours analysed per bucket. A bucket that is missing here was not recorded; one that is here and in no
        label's counts was silent.
    labels : list of LabelCount
        Most frequent first.
    """

    by: By
    clock: Clock
    min_score: float
    statuses: dict[str, tuple[int, float]]
    failures: list[dict[str, str]]
    marked: list[dict[str, str]]
    effort_hours: dict[str, float]
    labels: list[LabelCount]

    def as_json(self) -> dict[str, Any]:
        """JSON-serialisable."""
        statuses = {
            status: {"recordings": count, "hours": hours} for status, (count, hours) in self.statuses.items()
        }
        return asdict(self) | {"statuses": statuses}


def summarise(
    connection: duckdb.DuckDBPyConnection, by: By = "hour", min_score: float = 0.0, clock: Clock = "local"
) -> Summary:
    """Count detections by label, and by hour of day, date or station.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        From `naturelm.open_tables`.
    by : {"hour", "date", "station", "label"}
        What the counts are split by; "label": not at all, with scores and first and last times instead.
    min_score : float
        Detections with a lower score are left out.
    clock : {"local", "utc"}
        Hours and dates by the recorder's clock or in UTC; "unknown" where that is not known.
    """
    statuses = {
        status: (count, hours)
        for status, count, hours in connection.sql(
            "SELECT status, count(*), coalesce(sum(decoded_s), 0) / 3600 FROM recordings "
            "GROUP BY status ORDER BY status <> 'ok', status"
        ).fetchall()
    }
    failures = [
        {"path": path, "status": status, "error": error or ""}
        for path, status, error in connection.sql(
            "SELECT path, status, error FROM recordings WHERE status <> 'ok' ORDER BY path, recording_id"
        ).fetchall()
    ]
    effort = connection.sql(_EFFORT.format(time=_TIME[clock], bucket=_EFFORT_BUCKET[by])).fetchall()
    return Summary(
        by,
        clock,
        min_score,
        statuses,
        failures,
        marked_recordings(connection),
        {"all" if by == "label" else _bucket(bucket, by): hours for bucket, hours in effort},
        _details(connection, min_score, clock)
        if by == "label"
        else _counts(connection, by, min_score, clock),
    )


def _counts(
    connection: duckdb.DuckDBPyConnection, by: By, min_score: float, clock: Clock
) -> list[LabelCount]:
    bucket_sql = _COUNT_BUCKET[by].format(time=_TIME[clock])
    counts: dict[tuple[str, str], dict[str, int]] = {}
    rows = connection.sql(_COUNTS.format(bucket=bucket_sql), params={"min_score": min_score}).fetchall()
    for name, key, bucket, detections in sorted(rows, key=lambda row: (row[1], row[2] is None, row[2])):
        counts.setdefault((name, key), {})[_bucket(bucket, by)] = detections
    labels = [LabelCount(name, key, sum(of.values()), of) for (name, key), of in counts.items()]
    return sorted(labels, key=lambda label: (-label.detections, label.label))


def _details(connection: duckdb.DuckDBPyConnection, min_score: float, clock: Clock) -> list[LabelCount]:
    relation = connection.sql(_LABELS.format(time=_TIME[clock]), params={"min_score": min_score})
    labels = []
    for values in relation.fetchall():
        row = dict(zip(relation.columns, values, strict=True))
        name, key, detections = row.pop("label"), row.pop("label_key"), row.pop("detections")
        for time in ("first", "last"):
            row[time] = row[time] and row[time].isoformat(sep=" ")
        labels.append(LabelCount(name, key, detections, details=row))
    return labels


def _bucket(value: int | str | dt.date | None, by: By) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:02d}" if by == "hour" else str(value)


def lines(summary: Summary, width: int) -> Iterator[str]:
    """A summary in words, in lines of about `width` characters."""
    yield from _status_lines(summary)
    yield ""
    yield from _label_lines(summary) if summary.by == "label" else _bucket_lines(summary, width)


def _status_lines(summary: Summary) -> Iterator[str]:
    rows = [["status", "recordings", "hours"]]
    rows += [[status, f"{count:,}", f"{hours:.2f}"] for status, (count, hours) in summary.statuses.items()]
    total = sum(count for count, _ in summary.statuses.values())
    rows.append(["all", f"{total:,}", f"{sum(hours for _, hours in summary.statuses.values()):.2f}"])
    yield from aligned(rows, [False, True, True])
    if summary.failures:
        yield ""
        rows = [
            [printable(failure[key]) for key in ("path", "status", "error")]
            for failure in summary.failures[:_FAILURES_SHOWN]
        ]
        yield from aligned([["not ok", "status", "error"], *rows], [False, False, False])
        yield from _left_out(len(summary.failures) - _FAILURES_SHOWN, "recordings")
    if summary.marked:
        yield ""
        rows = [[printable(row["path"]), printable(row["marks"])] for row in summary.marked[:_FAILURES_SHOWN]]
        yield from aligned([["doubtful", "marks"], *rows], [False, False])
        yield from _left_out(len(summary.marked) - _FAILURES_SHOWN, "recordings")


def _bucket_lines(summary: Summary, width: int) -> Iterator[str]:
    clock = {"local": "recorder's clock", "utc": "UTC"}[summary.clock]
    title = {"hour": f"hour ({clock})", "date": f"date ({clock})", "station": "station"}[summary.by]
    buckets = list(summary.effort_hours)
    buckets += sorted({bucket for label in summary.labels for bucket in label.counts} - set(buckets))
    if summary.by == "hour":
        known = [f"{hour:02d}" for hour in range(24)]
        buckets = known + [bucket for bucket in buckets if bucket not in known]
    rows = [
        [title, *map(printable, buckets), "all"],
        [
            "hours analysed",
            *map(_hours, map(summary.effort_hours.get, buckets)),
            _hours(sum(summary.effort_hours.values())),
        ],
    ]
    for label in summary.labels[:_LABELS_SHOWN]:
        counts = [
            str(label.counts.get(bucket, 0))
            if bucket in summary.effort_hours or bucket in label.counts
            else "-"
            for bucket in buckets
        ]
        rows.append([_name(label.label), *counts, str(label.detections)])
    for columns in _blocks(rows, width):
        yield from aligned(
            [[row[column] for column in columns] for row in rows], [False] + [True] * (len(columns) - 1)
        )
        yield ""
    yield from _left_out(len(summary.labels) - _LABELS_SHOWN, "labels")
    yield "Counts are windows in which the label was detected; 0: silent, -: not recorded."


def _label_lines(summary: Summary) -> Iterator[str]:
    rows = [["label", "detections", "recordings", "stations", "mean score", "best score", "first", "last"]]
    for label in summary.labels[:_LABELS_SHOWN]:
        of = label.details
        scores = ["" if of[key] is None else f"{of[key]:.4f}" for key in ("mean_score", "best_score")]
        times = [(of[key] or "")[:19] for key in ("first", "last")]
        rows.append(
            [
                _name(label.label),
                f"{label.detections:,}",
                f"{of['recordings']:,}",
                f"{of['stations']:,}",
                *scores,
                *times,
            ]
        )
    yield from aligned(rows, [False, *[True] * 5, False, False])
    yield from _left_out(len(summary.labels) - _LABELS_SHOWN, "labels")
    yield f"In {_hours(sum(summary.effort_hours.values()))} hours analysed."


def _blocks(rows: list[list[str]], width: int) -> Iterator[list[int]]:
    """Columns side by side in a width: the first in every block, the others in turn."""
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]))]
    block, used = [0], widths[0]
    for column in range(1, len(widths)):
        if used + widths[column] > width + 2 and len(block) > 1:
            yield block
            block, used = [0], widths[0]
        block.append(column)
        used += widths[column]
    yield block


def _name(label: str) -> str:
    name = printable(label)
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + "…"


def _hours(hours: float | None) -> str:
    if hours is None:
        return "-"
    return f"{hours:.2f}" if hours < 10 else f"{hours:.1f}" if hours < 100 else f"{hours:.0f}"


def _left_out(count: int, what: str) -> Iterator[str]:
    if count > 0:
        yield f"({count:,} more {what}; --format json lists all)"
