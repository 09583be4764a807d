"""Spellings of one label, in one place: which are equal, which name to show, which say nothing.

The tables keep every label as the model wrote it. Summaries and events group by `label_key`: two spellings
are one label if `naturelm.labels.normal_form` makes them equal (Unicode NFKC, case, spaces, a last full
stop), and are shown under the spelling that occurs most often. Ways of saying "None" have no key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import duckdb
from duckdb.func import SPECIAL
from duckdb.sqltypes import VARCHAR

from naturelm.errors import NaturelmError
from naturelm.labels import normal_form, parse_labels
from naturelm.text import suggestion

_ASKS_SCIENTIFIC = re.compile(r"(?i)\b(scientific|latin|binomial|taxonomic)\b")


def label_key(label: str | None) -> str | None:
    """The form in which two spellings of one label are equal; None where a label says that nothing is there.

    Also a function in the SQL of `naturelm.open_tables`.
    """
    if label is None or not parse_labels(label):
        return None
    return normal_form(label)


def create_labels(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the function `label_key(label)` and the view `labels` to a connection with `detections`.

    The view has one row per spelling: `label`, its `label_key`, the `name` to show for that key (its most
    frequent spelling; of two equally frequent ones the first in alphabetical order) and `detections`.
    """
    connection.create_function("label_key", label_key, [VARCHAR], VARCHAR, null_handling=SPECIAL)
    # The key is computed per spelling, not per row: there are a few hundred of those, and millions of rows.
    connection.execute(
        """
        CREATE VIEW labels AS
        WITH spellings AS (
            SELECT label, label_key(label) AS label_key, detections
            FROM (SELECT label, count(*) AS detections FROM detections GROUP BY label)
        )
        SELECT
            label,
            label_key,
            first_value(label) OVER (PARTITION BY label_key ORDER BY detections DESC, label) AS name,
            detections
        FROM spellings
        WHERE label_key IS NOT NULL
        """
    )


def check_labels(connection: duckdb.DuckDBPyConnection, labels: Iterable[str]) -> None:
    """Raise NaturelmError where a label, in any spelling, is the label of no detection."""
    known = dict(connection.execute("SELECT label_key, any_value(name) FROM labels GROUP BY 1").fetchall())
    for label in labels:
        if label_key(label) not in known:
            raise NaturelmError(
                f"--label: no detection has the label {label!r}; {suggestion(label, known.values())}"
            )


def check_query_ids(query_ids: Iterable[str], known: Collection[str]) -> None:
    """Raise NaturelmError where a query is none of those that the directory's answers belong to."""
    for query_id in query_ids:
        if query_id not in known:
            raise NaturelmError(
                f"--query-id: there is no query {query_id!r} here; {suggestion(query_id, known)}"
            )


def scientific_queries(queries: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Ids of the queries that ask for scientific names, by the words of their prompts.

    Parameters
    ----------
    queries : mapping
        `Analysis.queries`. Labels of other queries count as common names: a name itself does not show it
        ("Tawny owl" has the form of a binomial).
    """
    return frozenset(
        name for name, query in queries.items() if _ASKS_SCIENTIFIC.search(str(query.get("prompt", "")))
    )
