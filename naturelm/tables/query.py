"""Results as SQL: a DuckDB connection with one view per table, published and staged rows together."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from naturelm.errors import NaturelmError
from naturelm.results.layout import check_results
from naturelm.results.rows import reduce_recordings
from naturelm.results.schemas import PARTITION, RECORDINGS, TABLES
from naturelm.storage import Location, location
from naturelm.tables.errors import told, told_batches
from naturelm.tables.events import create_events
from naturelm.tables.files import PREFIX, ResultFiles
from naturelm.tables.labels import create_labels
from naturelm.tables.reviews import create_reviews

MEMORY_LIMIT = "1GB"
"""What DuckDB may hold in memory; larger sorts and groupings go through files in the temporary directory."""

_MAX_THREADS = 8  # Each thread needs its share of the memory limit.


def open_tables(directory: str | Location, *, locked: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the results of `naturelm process` as a DuckDB connection.

    Parameters
    ----------
    directory : str, Path or StorePath
        What `--out` named, a path or a URL. A run may still be writing there: what is committed when it is
        opened is seen.
    locked : bool
        Refuse SQL any access to files, to the network and to the connection's settings.

    Returns
    -------
    duckdb.DuckDBPyConnection
        With the views `recordings`, `answers`, `detections`, `captions`, `labels`, `events`,
        `reviews`, `decisions` and `reviewed_labels` and the table function `events_of(gap_s, min_score)`.
        `.sql(query)` gives `.arrow()`, `.df()`, `.pl()` and `.fetchall()`. Times are shown in UTC.

    Raises
    ------
    NaturelmError
        The directory holds no results, or a file in it is damaged.
    """
    directory = location(directory)
    if isinstance(directory, Path):
        directory = directory.absolute()
    check_results(directory)
    with told():
        connection = _open_files(directory)
        create_labels(connection)
        create_events(connection)
        create_reviews(connection, directory)
    if locked:
        connection.execute("SET python_enable_replacements = false")
        connection.execute(f"SET allowed_directories = ['{PREFIX}']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    return connection


def select(connection: duckdb.DuckDBPyConnection, sql: str, batch_rows: int) -> pa.RecordBatchReader:
    """Ask one question; the answer streams in batches.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        From `open_tables(directory, locked=True)`: the lock is what keeps SQL from other files.
    sql : str
        One SELECT, or what DuckDB reads as one (FROM …, WITH …, PIVOT …, DESCRIBE …, SUMMARIZE …).
    batch_rows : int
        Rows in a batch.

    Raises
    ------
    NaturelmError
        The SQL is wrong, is more than one statement, or would change something.
    """
    with told("the SQL"):
        statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise NaturelmError(f"the SQL holds {len(statements)} statements; give one SELECT")
    # A PIVOT is several statements to DuckDB.
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.MULTI):
        raise NaturelmError(
            f"the SQL is of type {statements[0].type.name}; results are read-only, give one SELECT"
        )
    with told("the SQL"):
        reader = connection.sql(sql).to_arrow_reader(batch_rows)
    return told_batches(reader, "the SQL")


def _open_files(directory: Location) -> duckdb.DuckDBPyConnection:
    """A connection with the views of the tables."""
    for _ in range(3):
        connection = duckdb.connect(
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": min(os.cpu_count() or 1, _MAX_THREADS),
                # DuckDB makes it when it needs it and removes it again.
                "temp_directory": str(Path(tempfile.gettempdir()) / f"naturelm-{uuid.uuid4().hex}"),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        connection.execute("SET TimeZone = 'UTC'")
        # It would come between the rows on standard output.
        connection.execute("SET enable_progress_bar = false")
        files = ResultFiles(directory)
        connection.register_filesystem(files)
        try:
            _create_tables(connection, files)
        except duckdb.Error as error:
            if "FileNotFoundError" not in str(error):
                raise
            # A day was published, and its staged files removed, while they were looked up.
            continue
        return connection
    raise NaturelmError(f"{directory}: a committed segment lacks a staged file; run naturelm process again")


def columns(table: str) -> list[str]:
    """A view's columns in order: the schema's, with `station` and `date` after `path` (or the id)."""
    names = TABLES[table].names
    after = names.index("path" if "path" in names else "recording_id") + 1
    return [*names[:after], *PARTITION.names, *names[after:]]


def _create_tables(connection: duckdb.DuckDBPyConnection, files: ResultFiles) -> None:
    pending = _pending_segments(connection, files)
    files.stage(pending)
    # Not in the schema `main`: these are for the views alone.
    connection.execute("CREATE SCHEMA staged")
    ids = pa.array(sorted({_recording_of(segment) for segment in pending}), pa.string())
    _create_table(connection, "staged.pending", pa.table({"recording_id": ids}))
    for name in TABLES:
        # Quoted: `window` is a keyword.
        selected = ", ".join(f'"{column}"' for column in columns(name))
        view = f"CREATE VIEW {name} AS SELECT {selected} FROM {_published(name, files)}"
        if pending:
            # A crash amid publishing leaves rows in both places; until `recordings`, the last table to be
            # published, holds the recording, its staged rows are the ones that count.
            view += f"""
                WHERE recording_id NOT IN (FROM staged.pending)
                UNION ALL
                SELECT {selected} FROM {_staged(connection, name)}"""
        connection.execute(view)


def _pending_segments(connection: duckdb.DuckDBPyConnection, files: ResultFiles) -> list[str]:
    """The committed segments of recordings that are not published yet."""
    if not files.segments:
        return []
    ids = connection.sql(f"SELECT DISTINCT recording_id FROM {_published(RECORDINGS, files)}").fetchall()
    done = {recording for (recording,) in ids}
    return [segment for segment in sorted(files.segments) if _recording_of(segment) not in done]


def _recording_of(segment_id: str) -> str:
    return segment_id.rsplit("-", 1)[0]


def _published(name: str, files: ResultFiles) -> str:
    """A FROM clause for a table's published rows."""
    if not files.has(f"published/{name}"):
        empty = pa.schema([*TABLES[name], *PARTITION]).empty_table()
        nulls = ", ".join(f'NULL::{kind} AS "{column}"' for column, kind in _duckdb_types(empty).items())
        return f"(SELECT {nulls} WHERE false)"
    # Types are told, not guessed: station "001" is text.
    return (
        f"read_parquet('{PREFIX}published/{name}/*', hive_partitioning = true, "
        "hive_types = {'station': VARCHAR, 'date': DATE})"
    )


def _staged(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """A FROM clause for a table's staged rows; those of `recordings`, a row per segment, are reduced."""
    source = f"read_parquet('{PREFIX}staged/{name}/*', hive_partitioning = false, filename = true)"
    if name == RECORDINGS:
        parts: dict[str, list[dict[str, Any]]] = {}
        for row in connection.sql(f"FROM {source} ORDER BY filename").to_arrow_table().to_pylist():
            parts.setdefault(row["recording_id"], []).append(row)
        schema = pa.schema([*TABLES[RECORDINGS], *PARTITION])
        reduced = pa.Table.from_pylist([reduce_recordings(rows) for rows in parts.values()], schema=schema)
        _create_table(connection, "staged.recordings", reduced)
        source = "staged.recordings"
    # Staged files say "" for an unknown station.
    return f"(SELECT * REPLACE (nullif(station, '') AS station) FROM {source})"


def _create_table(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    connection.register("rows_of_python", rows)
    connection.execute(f"CREATE TABLE {name} AS FROM rows_of_python")
    connection.unregister("rows_of_python")


def _duckdb_types(empty: pa.Table) -> dict[str, str]:
    relation = duckdb.from_arrow(empty)
    return dict(zip(relation.columns, map(str, relation.types), strict=True))
