"""What to listen to next: detections chosen for review, the progress through them, and how far reviewers agree."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import duckdb
import numpy as np
from numpy.typing import NDArray

from naturelm.errors import NaturelmError
from naturelm.tables.spellings import check_labels, label_key
from naturelm.text import guard, unguard

Strategy = Literal["uncertain", "stratified", "diverse", "disagree", "random"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

COLUMNS = ("station", "date", "path", "recording_id", "start_s", "end_s", "query", "label", "score")
"""Columns of a queue; recording, start, query and label name the detection, as in `reviews`."""

_TEXTS = ("station", "path", "query", "label")
_BINS = 5
# `diverse` chooses among so many of a station's detections for each that it takes.
_CANDIDATES = 40

# Of equals, which come first depends on the seed and on the detection alone.
_DRAW = "hash(recording_id, start_s, query, label, $seed)"
_ORDERS = {
    "random": _DRAW,
    "diverse": _DRAW,
    "disagree": _DRAW,
    "uncertain": f"abs(score - 0.5), {_DRAW}",
    "stratified": "place, bin",
}


def choose_queue(
    tables: duckdb.DuckDBPyConnection,
    strategy: str,
    labels: Sequence[str] = (),
    per_station: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Choose detections without a decision, so many of each station.

    Parameters
    ----------
    tables : DuckDB connection
        As `open_tables` gives it.
    strategy : str
        ``random``; ``uncertain``, scores nearest to 0.5; ``stratified``, evenly from five bins of scores; ``diverse``,
        windows that sound as different as possible (k-centre on the embeddings); ``disagree``, windows in which one
        query or probe finds the label and another one that knows it does not.
    labels : sequence of str
        Only these, in any spelling.
    per_station : int
    seed : int
        Of what is drawn.

    Raises
    ------
    NaturelmError
        A label matches nothing, or the strategy needs what the directory does not have.
    """
    check_labels(tables, labels)
    keys = [label_key(label) for label in labels] or None
    disagreeing = ""
    if strategy == "disagree":
        disagreeing = """AND (recording_id, start_s, label_key) IN (
            SELECT (found.recording_id, found.start_s, found.label_key) FROM (
                SELECT recording_id, start_s, label_key, count(DISTINCT query) AS queries
                FROM detections JOIN labels USING (label) GROUP BY ALL) AS found
            JOIN (SELECT label_key, count(DISTINCT query) AS queries FROM detections JOIN labels USING (label)
                GROUP BY ALL) AS knowing USING (label_key)
            WHERE found.queries < knowing.queries)"""
    rank = f"row_number() OVER (PARTITION BY station ORDER BY {_ORDERS[strategy]})"
    cursor = tables.execute(
        f"""
        WITH candidates AS (
            SELECT station, date, path, recording_id, start_s, end_s, query, label, score,
                   least(floor(score * {_BINS}), {_BINS - 1}) AS bin
            FROM detections JOIN labels USING (label)
            WHERE score IS NOT NULL AND ($keys IS NULL OR list_contains($keys, label_key)) {disagreeing}
            AND NOT EXISTS (FROM decisions WHERE decisions.recording_id = detections.recording_id
                AND decisions.start_s = detections.start_s AND decisions.query = detections.query
                AND decisions.label = detections.label)
        ), placed AS (
            SELECT *, row_number() OVER (PARTITION BY station, bin ORDER BY {_DRAW}) AS place FROM candidates
        )
        SELECT {", ".join(COLUMNS)} FROM placed
        QUALIFY {rank} <= $most ORDER BY station, {rank}""",
        {
            "keys": keys,
            "seed": seed,
            "most": per_station * (_CANDIDATES if strategy == "diverse" else 1),
        },
    )
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in cursor.fetchall()]
    if not rows:
        why = "no queries or probes disagree on a label" if strategy == "disagree" else "all are reviewed"
        raise NaturelmError(f"--strategy {strategy}: there is no detection to review ({why})")
    return _diverse(tables, rows, per_station) if strategy == "diverse" else rows


def _diverse(
    tables: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], per_station: int
) -> list[dict[str, Any]]:
    wanted = sorted({row["recording_id"] for row in rows})
    stored = tables.execute(
        "SELECT recording_id, start_s, vector FROM embeddings WHERE list_contains($ids, recording_id)",
        {"ids": wanted},
    ).fetchall()
    vectors = {(key, start_s): np.asarray(vector, np.float32) for key, start_s, vector in stored}
    by_station: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if (row["recording_id"], row["start_s"]) in vectors:
            by_station[row["station"]].append(row)
    if not by_station:
        raise NaturelmError(
            "--strategy diverse: the detections have no embeddings; add them with naturelm embed, or give another "
            "strategy"
        )
    chosen = []
    for of_station in by_station.values():
        unit = np.stack([vectors[row["recording_id"], row["start_s"]] for row in of_station])
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        chosen += [of_station[number] for number in k_centre(unit, per_station)]
    return chosen


def k_centre(unit: NDArray[np.float32], count: int) -> list[int]:
    """Vectors of which each is as far as possible from those before it (Gonzalez 1985), beginning with the first."""
    chosen = [0]
    nearest = 1 - unit @ unit[0]
    while len(chosen) < min(count, len(unit)):
        nearest[chosen] = -1.0
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, 1 - unit @ unit[chosen[-1]])
    return chosen


def write_queue(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write a queue as CSV.

    Raises
    ------
    NaturelmError
        It cannot be written.
    """
    try:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for row in rows:
                writer.writerow(row | {name: guard(row[name]) for name in _TEXTS})
    except OSError as error:
        raise NaturelmError(f"{out}: cannot be written ({error.strerror}); give another --out") from None


_Key = tuple[str, float, str, str]


def read_queue(path: Path) -> list[_Key]:
    """The detections of a queue: recording, start, query and label.

    Raises
    ------
    NaturelmError
        The file is missing, or no queue.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                (
                    row["recording_id"],
                    float(row["start_s"]),
                    unguard(row["query"]) or "",
                    unguard(row["label"]) or "",
                )
                for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise NaturelmError(
            f"{path}: cannot be read ({error.strerror}); give a file of naturelm queue"
        ) from None
    except (KeyError, TypeError, ValueError):
        raise NaturelmError(f"{path}: is not a queue; give a file of naturelm queue") from None


@dataclass(frozen=True)
class QueueProgress:
    """How far the review of a queue has come.

    Attributes
    ----------
    total, reviewed : int
        Detections of the queue, and those with a decision.
    by_reviewer : dict of str to int
        Detections that each has decided on.
    agreements : list of (str, str, int, float, float or None)
        For two reviewers each: their names, the detections that both decided on, the share of equal decisions, and
        Cohen's kappa (None where chance alone would make them agree always).
    """

    total: int
    reviewed: int
    by_reviewer: dict[str, int]
    agreements: list[tuple[str, str, int, float, float | None]]


def queue_progress(tables: duckdb.DuckDBPyConnection, queue: Sequence[_Key]) -> QueueProgress:
    """Compare a queue with the reviews; of several decisions of one reviewer the newest counts."""
    wanted = set(queue)
    newest: dict[str, dict[_Key, str]] = defaultdict(dict)
    for key, start_s, query, label, decision, reviewer in tables.execute(
        "SELECT recording_id, start_s, query, label, decision || coalesce(': ' || new_label, ''), reviewer "
        "FROM reviews ORDER BY reviewed_time"
    ).fetchall():
        if (key, start_s, query, label) in wanted:
            newest[reviewer or "(no name)"][key, start_s, query, label] = decision
    agreements = []
    for first, second in combinations(sorted(newest), 2):
        both = sorted(newest[first].keys() & newest[second].keys())
        if both:
            pairs = [(newest[first][key], newest[second][key]) for key in both]
            agreements.append((first, second, len(both), *_agreement(pairs)))
    reviewed = set().union(*newest.values()) if newest else set()
    return QueueProgress(
        len(wanted), len(reviewed), {name: len(found) for name, found in sorted(newest.items())}, agreements
    )


def _agreement(pairs: Sequence[tuple[str, str]]) -> tuple[float, float | None]:
    equal = sum(first == second for first, second in pairs) / len(pairs)
    decisions = {decision for pair in pairs for decision in pair}
    chance = (
        sum(
            sum(first == decision for first, _ in pairs) * sum(second == decision for _, second in pairs)
            for decision in decisions
        )
        / len(pairs) ** 2
    )
    return equal, None if chance == 1 else (equal - chance) / (1 - chance)
