"""What a search found, for other tools and ears: as detections for exports, as clips, as a page with players."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import duckdb
import pyarrow as pa

from naturelm.errors import NaturelmError
from naturelm.storage import Location
from naturelm.tables.clips import ClipsSummary, cut_clips
from naturelm.tables.export import raven
from naturelm.tables.export.source import ExportSource
from naturelm.tables.player import PAD_S, add_players, templates
from naturelm.tables.query import open_tables
from naturelm.text import one_line

LABEL = "similar"


def as_detections(directory: Location, found: pa.Table) -> duckdb.DuckDBPyConnection:
    """A connection in which what was found stands for the detections."""
    connection = open_tables(directory)
    connection.register("found_rows", found)
    connection.execute(
        f"""
        CREATE TEMP TABLE found AS FROM found_rows;
        CREATE TEMP VIEW detections AS SELECT station, date, recording_id, path, start_s, end_s, start_local,
            start_time, 'search' AS query, '{LABEL}' AS label, similarity AS score, NULL::VARCHAR AS text,
            NULL::VARCHAR AS model FROM found;
        CREATE TEMP VIEW labels AS SELECT '{LABEL}' AS label, '{LABEL}' AS label_key, '{LABEL}' AS name,
            (SELECT count(*) FROM found) AS detections
        """
    )
    return connection


def write_raven(directory: Location, found: pa.Table, out: Path) -> None:
    """Write Raven selection tables, as `naturelm export --format raven` does."""
    with as_detections(directory, found) as connection:
        try:
            raven.save(ExportSource(connection), out)
        except OSError as error:
            raise NaturelmError(
                f"{out}: cannot be written ({error.strerror}); give another --raven"
            ) from None


def write_found_clips(
    directory: Path, found: pa.Table, out: Path, archive: Path | None = None
) -> ClipsSummary:
    """Cut what was found out of the recordings, as `naturelm clips` does."""
    rows = [
        row | {"label": LABEL, "score": row["similarity"], "query": "search", "text": None}
        for row in found.to_pylist()
    ]
    return cut_clips(directory, rows, out, PAD_S, pictures=False, archive=archive)


def write_page(directory: Path, found: pa.Table, out: Path, query: str, archive: Path | None = None) -> None:
    """Write one HTML page with a player for each window that was found.

    Raises
    ------
    NaturelmError
        `out` cannot be written.
    """
    rows = found.to_pylist()
    add_players(
        directory,
        rows,
        lambda row: f"window at {row['start_s']:g} s, {one_line(row['path'], 80)}",
        archive,
    )
    page = (
        templates()
        .get_template("found.html.j2")
        .render(query=query, name=directory.resolve().name, rows=rows, made=dt.datetime.now(dt.UTC))
    )
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise NaturelmError(f"{out}: cannot be written ({error.strerror}); give another --page") from None
