"""Results as SQL: a DuckDB connection with one view per table, published and staged rows together."""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from naturelm.errors import NaturelmError
from naturelm.results.analysis import check_version
from naturelm.results.layout import holds_results
from naturelm.results.probe_files import probe_files
from naturelm.results.schemas import DETECTIONS, RECORDINGS, TABLES
from naturelm.results.table_sets import VECTORS, WORDS, TableSet
from naturelm.results.visible import Visible, read_visible
from naturelm.segments import Day
from naturelm.storage import Location, location
from naturelm.tables.duckdb_errors import readable_batches, readable_errors
from naturelm.tables.events import create_events
from naturelm.tables.files import PREFIX, Content, ServedFiles
from naturelm.tables.reviews import create_reviews
from naturelm.tables.spellings import create_labels

MEMORY_LIMIT = "1GB"
"""What DuckDB may hold in memory; larger sorts and groupings go through files in the temporary directory."""

MAX_CELL_ITEMS = 10_000_000
"""Items of a list, or bytes of a text, in one value that `select` returns."""

# `EXPLAIN`, after blanks and comments, and what may come between it and the query.
_EXPLAIN = re.compile(r"(?is)(?:\s|--[^\n]*\n|/\*.*?\*/)*explain\b(?:\s+analyze\b)?(?:\s*\([^)]*\))?")

_WITHDRAWN = pa.schema([("recording_id", pa.string()), ("station", pa.string()), ("date", pa.date32())])
_REPLACED = pa.schema([("recording_id", pa.string()), ("first_window", pa.int64())])
# How DuckDB reads null in a Hive key.
_NO_DATE = "__HIVE_DEFAULT_PARTITION__"
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
        With the views `recordings`, `answers`, `detections`, `captions`, `probe_detections`, `embeddings`, `labels`,
        `events`,
        `reviews`, `decisions` and `reviewed_labels` and the table function `events_of(gap_s, min_score)`.
        `.sql(query)` gives `.arrow()`, `.df()`, `.pl()` and `.fetchall()`. Times are shown in UTC.

    Raises
    ------
    NaturelmError
        The directory holds no results or is of another schema version, or a file in it is damaged.
    """
    directory = location(directory)
    columns = check_version(directory)
    if isinstance(directory, Path):
        directory = directory.absolute()
    with readable_errors():
        connection = _open_files(directory, columns)
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
    """Run one query; its rows stream in batches.

    The query runs in a transaction that cannot write: `WITH a AS (INSERT … RETURNING *) FROM a` is a SELECT, too.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        From `open_tables(directory, locked=True)`: the lock is what keeps SQL from other files.
    sql : str
        One SELECT, or what DuckDB reads as one (FROM …, WITH …, PIVOT …, DESCRIBE …, SUMMARIZE …), or EXPLAIN
        and a SELECT.
    batch_rows : int
        Rows in a batch.

    Raises
    ------
    NaturelmError
        The SQL is wrong, is more than one statement, or would change something; or a value is too large to be
        shown.
    """
    statement = _statement(connection, sql)
    if statement.type == duckdb.StatementType.EXPLAIN:
        explained = _EXPLAIN.match(sql)
        _check_reads(_statement(connection, sql[explained.end() :] if explained else sql))
    else:
        _check_reads(statement)
    with readable_errors("the SQL"):
        connection.execute("BEGIN TRANSACTION READ ONLY")
        reader = connection.sql(sql).to_arrow_reader(batch_rows)
    return pa.RecordBatchReader.from_batches(reader.schema, _checked(readable_batches(reader, "the SQL")))


def _statement(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise NaturelmError("the SQL is not UTF-8 text; write it in UTF-8") from None
    with readable_errors("the SQL"):
        statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise NaturelmError(f"the SQL holds {len(statements)} statements; give one SELECT")
    return statements[0]


def _check_reads(statement: duckdb.Statement) -> None:
    # A PIVOT is several statements to DuckDB.
    if statement.type not in (duckdb.StatementType.SELECT, duckdb.StatementType.MULTI):
        raise NaturelmError(
            f"the SQL is of type {statement.type.name}; results are read-only, give one SELECT"
        )


def _checked(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The same batches; lists and texts that would take minutes and gigabytes to be shown are refused."""
    for batch in reader:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            size = _longest(column)
            if size > MAX_CELL_ITEMS:
                raise NaturelmError(
                    f"column {name!r} holds a value of {size:,} items, and at most {MAX_CELL_ITEMS:,} are shown; "
                    "select a part of it"
                )
        yield batch


def _longest(column: pa.Array) -> int:
    """The number of items or characters of a column's longest list or text; of other columns 0."""
    kind = column.type
    if pa.types.is_map(kind):
        lengths = pc.subtract(column.offsets[1:], column.offsets[:-1])
        inner = max(_longest(column.keys), _longest(column.items))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths, inner = pc.list_value_length(column), _longest(column.flatten())
    elif pa.types.is_struct(kind):
        return max((_longest(part) for part in column.flatten()), default=0)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        lengths, inner = pc.binary_length(column), 0
    else:
        return 0
    return max(pc.max(lengths).as_py() or 0, inner)


def _open_files(directory: Location, columns: Mapping[str, Sequence[str]]) -> duckdb.DuckDBPyConnection:
    """A connection with the views of the tables; some files may have no others than these columns."""
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
        try:
            _create_tables(connection, directory, columns)
        except FileNotFoundError:
            # A day was published, and its staged files removed, while they were looked up.
            continue
        except duckdb.Error as error:
            if "FileNotFoundError" not in str(error):
                raise
            continue
        return connection
    raise NaturelmError(f"{directory}: a committed segment lacks a staged file; run naturelm process again")


def _create_tables(
    connection: duckdb.DuckDBPyConnection, directory: Location, columns: Mapping[str, Sequence[str]]
) -> None:
    has_words = holds_results(directory)
    folders: dict[str, dict[str, Content]] = {}
    views: dict[str, str] = {}
    # Where there are embeddings only, `recordings` are theirs.
    home = VECTORS.home(directory)
    vectors, own_columns = Visible({}), columns
    if holds_results(home):
        vectors, own_columns = read_visible(directory, VECTORS), check_version(home)
    found = _create_views(connection, vectors, VECTORS, "vectors", own_columns, folders)
    views |= {name: view for name, view in found.items() if name != RECORDINGS or not has_words}
    words = read_visible(directory, WORDS) if has_words else Visible({})
    found = _create_views(connection, words, WORDS, "words", columns, folders)
    views |= {name: view for name, view in found.items() if name != RECORDINGS or has_words}
    probes = {f"{number}.parquet": file for number, file in enumerate(probe_files(directory))}
    folders["probes"] = dict(probes) or {"empty.parquet": _empty_file(TABLES[DETECTIONS])}
    connection.register_filesystem(ServedFiles(folders))
    selected = ", ".join(TABLES[DETECTIONS].names)
    # Rows of recordings that are gone since a probe was applied do not count.
    views["probe_detections"] = (
        f"SELECT {selected} FROM {_files('probes', False, 'hive_partitioning = false')} "
        "WHERE recording_id IN (SELECT recording_id FROM recordings)"
    )
    if probes:
        views[DETECTIONS] += f" UNION ALL SELECT {selected} FROM probe_detections"
    # `recordings` first, and `detections` last: views are made of others.
    for name in sorted(views, key=lambda name: (name != RECORDINGS, name == DETECTIONS)):
        connection.execute(f"CREATE VIEW {name} AS {views[name]}")


def _create_views(
    connection: duckdb.DuckDBPyConnection,
    visible: Visible,
    tables: TableSet,
    counted: str,
    columns: Mapping[str, Sequence[str]],
    folders: dict[str, dict[str, Content]],
) -> dict[str, str]:
    """The views of a set of tables, as SQL; adds the files that they read to `folders`.

    What they need beside these is in the schema `counted`, not in `main`: it is for the views alone.
    """
    connection.execute(f"CREATE SCHEMA {counted}")
    withdrawn = [
        {"recording_id": key, "station": day.station, "date": day.as_date()} for key, day in visible.withdrawn
    ]
    replaced = [{"recording_id": key, "first_window": first} for key, first in visible.replaced]
    _create_table(connection, f"{counted}.withdrawn", withdrawn, _WITHDRAWN)
    _create_table(connection, f"{counted}.replaced", replaced, _REPLACED)
    _create_table(connection, f"{counted}.recordings", visible.recordings, TABLES[RECORDINGS])
    views = {}
    for name, schema in tables.schemas.items():
        folder = f"{tables.folder}/" if tables.folder else ""
        published = f"published/{folder if name == RECORDINGS else ''}{name}"
        staged = f"staged/{folder}{name}"
        folders[published] = {
            _served_name(day): file for day, file in visible.published.get(name, {}).items()
        }
        folders[staged] = {file.name: file for file in visible.staged.get(name, ())}
        lacking = set(schema.names) - set(columns.get(name, ()))
        sources = [_published(visible, name, published, counted, bool(lacking))]
        if name == RECORDINGS:
            sources.append(f"{counted}.recordings")
        elif folders[staged]:
            sources.append(_files(staged, bool(lacking), "hive_partitioning = false"))
        if lacking or not folders[published]:
            # Columns are those of the first file, or of all together.
            folders[published][_served_name(Day("", ""))] = _empty_file(schema)
            folders[staged]["empty.parquet"] = _empty_file(schema)
        # Quoted: `window` is a keyword.
        selected = ", ".join(f'"{column}"' for column in schema.names)
        views[name] = " UNION ALL ".join(f"SELECT {selected} FROM {source}" for source in sources)
    return views


def _published(visible: Visible, name: str, folder: str, counted: str, may_lack_columns: bool) -> str:
    """A FROM clause for a table's published rows that count."""
    # Types are stated, not guessed: station "001" is text.
    options = "hive_partitioning = true, hive_types = {'station': VARCHAR, 'date': DATE}"
    source = f"{_files(folder, may_lack_columns, options)} AS published"
    conditions = []
    if visible.withdrawn:
        conditions.append(
            f"""NOT EXISTS (FROM {counted}.withdrawn WHERE withdrawn.recording_id = published.recording_id
            AND withdrawn.station = published.station AND withdrawn.date IS NOT DISTINCT FROM published.date)"""
        )
    if visible.replaced and name == RECORDINGS:
        conditions.append(f"recording_id NOT IN (SELECT recording_id FROM {counted}.replaced)")
    elif visible.replaced:
        size = visible.segment_windows
        conditions.append(
            f"""NOT EXISTS (FROM {counted}.replaced WHERE replaced.recording_id = published.recording_id
            AND replaced.first_window = CAST(round(start_s / {visible.hop_s!r}) AS BIGINT) // {size} * {size})"""
        )
    return source + (f" WHERE {' AND '.join(conditions)}" if conditions else "")


def _files(folder: str, may_lack_columns: bool, options: str) -> str:
    union = ", union_by_name = true" if may_lack_columns else ""
    return f"read_parquet('{PREFIX}{folder}/*', {options}{union})"


def _served_name(day: Day) -> str:
    """A published file's name for DuckDB: a condition on station or date then skips it unopened.

    The file has these columns too, and readers that open the folder see those.
    """
    station = "".join(f"%{byte:02X}" for byte in day.station.encode())
    return f"station={station}/date={day.date or _NO_DATE}/rows.parquet"


def _empty_file(schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return bytes(sink.getvalue())


def _create_table(
    connection: duckdb.DuckDBPyConnection, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema
) -> None:
    connection.register("rows_of_python", pa.Table.from_pylist([dict(row) for row in rows], schema=schema))
    connection.execute(f"CREATE TABLE {name} AS FROM rows_of_python")
    connection.unregister("rows_of_python")
