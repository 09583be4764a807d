"""Results in SQL: the views, what is staged and published, and what SQL may not do."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pandas
import polars
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import naturelm
from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.ids import segment_id
from naturelm.results.output import Output
from naturelm.results.schemas import TABLES
from naturelm.segments import Day
from naturelm.tables.events import events
from naturelm.tables.files import ServedFiles
from naturelm.tables.query import open_tables, select
from naturelm.tables.row_formats import TABLE_ROWS
from naturelm.text import printable
from tests.tables.make_tables import (
    caption,
    detection,
    recording,
    recording_id,
    stage_segment,
    write_large,
    write_results,
)

EVENING = dt.datetime(2026, 5, 1, 20)


@pytest.fixture
def night(tmp_path):
    """Two published minutes, one of them of an unknown time."""
    first, lost = recording("a/1.wav", EVENING), recording("lost.wav", station="card")
    detections = [
        detection(first, 0, "Robin", 0.9),
        detection(first, 10, "robin", 0.4),
        detection(lost, 0, "Tawny Owl", 0.7),
    ]
    return write_results(tmp_path / "night", [first, lost], detections, [caption(first, 0, "A robin sings.")])


def ask(directory, sql, *options):
    return CliRunner().invoke(main, ["query", str(directory), sql, *options])


def rows(directory, sql):
    return open_tables(directory).sql(sql).fetchall()


# --- the views


def test_columns_are_the_schemas_which_begin_with_station_and_date(night):
    connection = open_tables(night)
    for table, schema in TABLES.items():
        assert connection.sql(f"FROM {table}").columns == schema.names
        assert schema.names[:3] == ["station", "date", "recording_id"]


def test_answers_come_as_arrow_pandas_and_polars(night):
    relation = naturelm.open_tables(night).sql("SELECT label, score FROM detections ORDER BY score")
    expected = [("robin", 0.4), ("Tawny Owl", 0.7), ("Robin", 0.9)]
    assert relation.fetchall() == expected
    table = relation.arrow().read_all()
    assert isinstance(table, pa.Table)
    assert table["label"].to_pylist() == [label for label, _ in expected]
    assert isinstance(relation.df(), pandas.DataFrame)
    assert isinstance(relation.pl(), polars.DataFrame)
    assert relation.pl()["score"].to_list() == [score for _, score in expected]


def test_cursors_see_the_tables(night):
    connection = open_tables(night, locked=True)
    row = recording("a/2.wav", EVENING)
    stage_segment(night, 0, row, detections=[detection(row, 0, "Robin")])
    assert connection.cursor().sql("SELECT count(*) FROM events").fetchall() == [(2,)]
    assert open_tables(night).cursor().sql("SELECT count(*) FROM recordings").fetchall() == [(3,)]


def test_an_empty_night_has_every_view_with_its_types(tmp_path):
    night = write_results(tmp_path / "night")
    filled = open_tables(write_results(tmp_path / "filled", [recording("a.wav", EVENING)]))
    connection = open_tables(night)
    for view in [*TABLES, "labels", "events"]:
        relation = connection.sql(f"FROM {view}")
        assert relation.fetchall() == []
        assert relation.types == filled.sql(f"FROM {view}").types
    types = dict(
        zip(connection.sql("FROM detections").columns, connection.sql("FROM detections").types, strict=True)
    )
    assert str(types["start_time"]) == "TIMESTAMP WITH TIME ZONE"
    assert str(types["start_local"]) == "TIMESTAMP"
    assert str(types["date"]) == "DATE"


@pytest.mark.parametrize(
    "station", ["001", "1.50", "true", "Øst / 2", "50%", "a=b", "null", "[x]*?", "2026-05-01"]
)
def test_station_names_come_back_as_they_were(tmp_path, station):
    row = recording("a.wav", EVENING, station=station)
    night = write_results(tmp_path / "night", [row], [detection(row, 0, "Robin")])
    assert rows(night, "SELECT station, date FROM detections") == [(station, EVENING.date())]
    assert (
        open_tables(night)
        .sql("SELECT path FROM recordings WHERE station = $station", params={"station": station})
        .fetchall()
    )


def test_unknown_date_is_null(night):
    assert rows(night, "SELECT path, station FROM recordings WHERE date IS NULL") == [("lost.wav", "card")]


def test_a_directory_whose_name_is_a_pattern_is_read(tmp_path):
    row = recording("a.wav", EVENING)
    night = write_results(tmp_path / "nights [1]*?", [row], [detection(row, 0, "Robin")])
    assert rows(night, "SELECT label FROM detections") == [("Robin",)]


def test_relative_directories_are_read_after_the_working_directory_changes(night, monkeypatch, tmp_path):
    monkeypatch.chdir(night.parent)
    connection = open_tables("night")
    monkeypatch.chdir(tmp_path.parent)
    assert connection.sql("SELECT count(*) FROM detections").fetchall() == [(3,)]


def test_utc_times_are_shown_in_utc_whatever_the_machine_thinks(night, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    [(text,)] = rows(night, "SELECT start_time::VARCHAR FROM detections WHERE label = 'Robin'")
    assert text == "2026-05-01 20:00:00+00"


def test_unfinished_files_in_a_day_are_not_read(night):
    (night / "detections/A/.2026-05-01.parquet.17.tmp").write_bytes(b"PAR1")
    (night / "detections/A/_2026-05-01.parquet").write_bytes(b"PAR1")
    assert rows(night, "SELECT count(*) FROM detections") == [(3,)]


# --- staged rows


def test_committed_segments_count_and_others_do_not(night):
    row = recording("a/2.wav", EVENING + dt.timedelta(minutes=1))
    stage_segment(night, 0, row, detections=[detection(row, 0, "Staged")])
    stage_segment(night, 60, row, committed=False, detections=[detection(row, 30, "Not yet")])
    labels = {label for (label,) in rows(night, "SELECT label FROM detections")}
    assert "Staged" in labels
    assert "Not yet" not in labels


def test_a_staged_recording_is_one_row_with_sums_and_the_worst_status(night):
    row = recording("a/long.wav", duration_s=1800.0)
    parts = [("ok", None, 600.0, 60), ("partial", "a frame is damaged", 550.0, 55), ("ok", None, 600.0, 60)]
    for number, (status, error, decoded_s, windows) in enumerate(parts):
        part = row | {"status": status, "error": error, "decoded_s": decoded_s, "windows": windows}
        stage_segment(night, 60 * number, part, detections=[detection(row, 600.0 * number, "Robin")])
    sql = "SELECT station, status, error, duration_s, decoded_s, windows FROM recordings WHERE path = 'a/long.wav'"
    assert rows(night, sql) == [("A", "partial", "a frame is damaged", 1800.0, 1750.0, 175)]
    assert rows(night, "SELECT count(*) FROM detections WHERE path = 'a/long.wav'") == [(3,)]


def test_published_rows_win_while_staged_ones_wait_to_be_removed(night):
    row = recording("a/1.wav", EVENING)
    stage_segment(night, 0, row, detections=[detection(row, 0, "Robin"), detection(row, 10, "robin")])
    assert rows(night, "SELECT count(*) FROM detections WHERE path = 'a/1.wav'") == [(2,)]
    assert rows(night, "SELECT count(*) FROM recordings WHERE path = 'a/1.wav'") == [(1,)]


def test_a_crash_in_the_middle_of_publishing_shows_no_row_twice(night):
    """Detections of the day are published and `recordings`, which comes last, is not."""
    row = recording("b/1.wav", EVENING, station="B")
    write_results(night.parent / "other", [row], [detection(row, 0, "Wren")])
    (night.parent / "other/detections/B").rename(night / "detections/B")
    stage_segment(night, 0, row, detections=[detection(row, 0, "Wren")])
    assert rows(night, "SELECT count(*) FROM detections WHERE label = 'Wren'") == [(1,)]
    assert rows(night, "SELECT count(*) FROM recordings WHERE station = 'B'") == [(1,)]


@pytest.mark.parametrize("station", ["Øst / 2", "x" * 200])
def test_what_the_job_commits_reads_the_same_before_and_after_publishing(tmp_path, station):
    row = recording("a/1.wav", EVENING, station=station, duration_s=20.0, windows=1, decoded_s=10.0)
    output = Output(
        tmp_path / "night", {"model": "pocket", "windows": {"hop_s": 10.0}}, {}, segment_windows=1
    )
    segments = [segment_id(row["recording_id"], window) for window in (0, 1)]
    for window, segment in enumerate(segments):
        row_of_window = detection(row, 10.0 * window, f"Robin {window}")
        of_segment = {
            "recordings": [row | {"status": ["partial", "ok"][window], "error": ["cut", None][window]}],
            "answers": [row_of_window | {"window": window, "prompt": "?", "tokens": 1}],
            "detections": [row_of_window],
            "captions": [caption(row, 10.0 * window, "A robin.")],
        }
        tables = {
            name: pa.Table.from_pylist(rows_, schema=TABLES[name]) for name, rows_ in of_segment.items()
        }
        output.staged.write(segment, tables)

    def everything():
        connection = open_tables(tmp_path / "night")
        return {view: connection.sql(f"FROM {view} ORDER BY ALL").fetchall() for view in [*TABLES, "events"]}

    staged = everything()
    assert [len(staged[view]) for view in TABLES] == [1, 2, 2, 2]
    output.publish(Day(station, EVENING.date().isoformat()), segments)
    assert not list((tmp_path / "night/_staging").rglob("*.parquet"))
    assert everything() == staged
    [(read_station, status, decoded_s, windows)] = rows(
        tmp_path / "night", "SELECT station, status, decoded_s, windows FROM recordings"
    )
    assert (read_station, status, decoded_s, windows) == (station, "partial", 20.0, 2)


def test_a_run_that_has_published_nothing_yet_is_read(tmp_path):
    row = recording("a.wav", EVENING)
    stage_segment(tmp_path / "night", 0, row, detections=[detection(row, 0, "Robin")])
    assert rows(tmp_path / "night", "SELECT label, date FROM detections") == [("Robin", EVENING.date())]


def test_a_day_published_while_it_is_read_is_told(night):
    row = recording("a/2.wav", EVENING)
    stage_segment(night, 0, row, detections=[detection(row, 0, "Robin")])
    connection = open_tables(night)
    (night / f"_staging/detections/{recording_id('a/2.wav')}-000000.parquet").unlink()
    with pytest.raises(NaturelmError, match="a day was published while it was read"):
        select(connection, "FROM detections", 1000).read_all()
    with pytest.raises(NaturelmError, match="a day was published while it was read"):
        events(connection)


# --- what SQL may not do

FORBIDDEN = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_csv('{night}/analysis.yaml')",
    "SELECT * FROM read_parquet('{night}/detections/**/*.parquet')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_csv('http://localhost:9/x.csv')",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "COPY (SELECT 1) TO '{night}/x.csv'",
    "WITH a AS (COPY (SELECT 1) TO '{night}/x.csv') FROM a",
    "SELECT * FROM query('WITH a AS (COPY (SELECT 1) TO ''{night}/x.csv'') FROM a')",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{night}/x.csv'",
    "COPY (SELECT 1) TO 'results://published/x.csv'",
    "WITH a AS (COPY (SELECT 1) TO 'results://published/x.csv') FROM a",
    "ATTACH 'results://x.db' AS x",
    "EXPORT DATABASE '{night}/x'",
    "ATTACH '{night}/x.db' AS x",
    "ATTACH '/tmp/x.db' AS x",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "PRAGMA enable_logging",
    "SELECT * FROM enable_logging(storage = 'file', storage_config = {{'path': '{night}/log'}})",
    "CREATE TABLE x AS SELECT 1",
    "DROP VIEW detections",
    "DELETE FROM detections",
    "INSERT INTO detections SELECT * FROM detections",
    "CALL pragma_version()",
    "SELECT 1; DROP VIEW detections",
    "WITH a AS (INSERT INTO counted.replaced VALUES ('x', 1) RETURNING *) FROM a",
    "WITH a AS (DELETE FROM counted.recordings RETURNING *) SELECT count(*) FROM a",
    "WITH a AS (UPDATE counted.replaced SET first_window = 1 RETURNING *) FROM a",
    "EXPLAIN CREATE TABLE x AS SELECT 1",
    "EXPLAIN INSERT INTO counted.replaced VALUES ('x', 1)",
    "EXPLAIN ANALYZE DELETE FROM counted.replaced",
    "EXPLAIN ANALYZE WITH a AS (DELETE FROM counted.replaced RETURNING *) FROM a",
    "/* SELECT */ explain (format json) DROP VIEW detections",
    "BEGIN TRANSACTION",
    "PREPARE a AS SELECT 1",
    "SELECT secret FROM rows_of_the_caller",
    "",
    "/* nothing */",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_sql_reaches_no_file_and_changes_nothing(night, sql):
    rows_of_the_caller = pa.table({"secret": ["of this process"]})
    before = sorted((path, path.stat().st_size) for path in night.rglob("*"))
    result = ask(night, sql.format(night=night))
    assert result.exit_code == 2, result.output
    assert result.output.startswith("Error: ")
    assert len(result.output.splitlines()) == 1
    assert "of this process" not in result.output
    assert sorted((path, path.stat().st_size) for path in night.rglob("*")) == before
    assert rows_of_the_caller.num_rows == 1


def test_the_tables_own_file_system_serves_no_other_file(night):
    for name in (
        "../analysis.yaml",
        "published/../../analysis.yaml",
        "analysis.yaml",
        "*",
        "**",
        "published/*",
    ):
        assert open_tables(night, locked=True).sql(f"FROM read_text('results://{name}')").fetchall() == []


def test_threads_that_share_a_file_read_each_at_its_own_place(night):
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # as often as can be: between every two steps
    path = night / "detections/A/2026-05-01.parquet"
    content = path.read_bytes()
    shared = ServedFiles({"detections": {"rows.parquet": path}}).open("results://detections/rows.parquet")

    def read_again_and_again(offset: int) -> bool:
        right = True
        for _ in range(2_000):
            shared.seek(offset)
            right &= shared.read(100) == content[offset : offset + 100]
        return right

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read_again_and_again, [0, 100, 500, len(content) - 50]))
    sys.setswitchinterval(switch_s)
    shared.close()


def test_a_committed_segment_without_its_rows_is_told(night):
    row = recording("a/2.wav", EVENING)
    stage_segment(night, 0, row)
    (night / f"_staging/recordings/{recording_id('a/2.wav')}-000000.parquet").unlink()
    result = ask(night, "SELECT 1")
    assert result.exit_code == 2
    assert "a committed segment lacks a staged file" in result.output


@pytest.mark.parametrize(
    "sql",
    [
        "FROM detections",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
        "PIVOT detections ON label USING count(*)",
        "DESCRIBE detections",
        "SUMMARIZE detections",
        "VALUES (1)",
        "EXPLAIN FROM detections",
        "EXPLAIN ANALYZE SELECT count(*) FROM detections",
        "/* how? */ -- so\nexplain (format json) WITH a AS (SELECT 1) FROM a",
        "EXPLAIN PIVOT detections ON label USING count(*)",
        "SHOW TABLES",
        "SELECT * FROM events_of(gap_s := 30, min_score := 0.5)",
        "SELECT label_key('  ROBIN. ')",
    ],
)
def test_what_only_asks_is_answered(night, sql):
    assert ask(night, sql).exit_code == 0


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT foo FROM detections", "foo"),
        ("SELEC 1", "SELEC"),
        ("FROM detection", 'Did you mean "detections"?'),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT CAST('x' AS INTEGER)", "'x'"),
    ],
)
def test_wrong_sql_is_reported_in_one_sentence(night, sql, expected):
    result = ask(night, sql)
    assert result.exit_code == 2
    assert expected in result.output
    assert len(result.output.splitlines()) == 1


def test_a_directory_without_results_is_told(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        result = ask(directory, "SELECT 1")
        assert result.exit_code == 2
        assert result.output == (
            f"Error: {directory}: holds no results (no analysis.yaml); "
            "give the --out directory of naturelm process\n"
        )


def test_a_damaged_file_is_named_with_its_remedy(night):
    for path in (night / "recordings").rglob("*.parquet"):
        path.write_bytes(b"PAR1 this is no table")
    stage_segment(night, 0, recording("a/2.wav", EVENING))
    for sql in ("FROM recordings", "FROM events"):
        result = ask(night, sql)
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1
        assert "not a whole Parquet file" in result.output
        assert "run naturelm process with the same --out again" in result.output
        assert "recordings/A/2026-05-01.parquet" in result.output


# --- forms of the answer


def test_table_shows_names_values_and_the_number_of_rows(night):
    result = ask(night, "SELECT label, score FROM detections ORDER BY score")
    assert result.output.splitlines() == [
        "label      score",
        "robin        0.4",
        "Tawny Owl    0.7",
        "Robin        0.9",
        "(3 rows)",
    ]


def test_table_says_how_many_rows_it_leaves_out(night):
    result = ask(night, "SELECT * FROM range(1000)")
    assert len(result.output.splitlines()) == 1 + TABLE_ROWS + 1
    assert result.output.splitlines()[-1] == f"(1,000 rows, {1000 - TABLE_ROWS} not shown)"


def test_table_fits_the_terminal(night):
    from naturelm.tables.row_formats import write_aligned

    for width in (40, 80, 120):
        reader = select(open_tables(night), "FROM detections", 1000)
        stream = io.StringIO()
        write_aligned(reader, stream, width)
        lines = stream.getvalue().splitlines()
        assert max(map(len, lines[:-1])) <= width
        assert "of 13 columns not shown" in lines[-1]


def test_csv_json_and_parquet_say_the_same(night, tmp_path):
    sql = (
        "SELECT path, start_s, start_local, start_time, score, [label] AS list FROM detections ORDER BY score"
    )
    from_csv = list(csv.DictReader(io.StringIO(ask(night, sql, "--format", "csv").output)))
    from_json = json.loads(ask(night, sql, "--format", "json").output)
    assert ask(night, sql, "--format", "parquet", "--out", str(tmp_path / "x.parquet")).exit_code == 0
    from_parquet = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["path"] for row in from_csv] == ["a/1.wav", "lost.wav", "a/1.wav"]
    for one, two, three in zip(from_csv, from_json, from_parquet, strict=True):
        assert one["path"] == two["path"] == three["path"]
        assert float(one["score"]) == two["score"] == three["score"]
        assert json.loads(one["list"]) == two["list"] == three["list"]
        time = three["start_time"]
        assert one["start_time"] == (time.strftime("%Y-%m-%d %H:%M:%SZ") if time else "")
        assert two["start_time"] == (time.isoformat() if time else None)


def test_json_of_no_rows_is_an_empty_array(night):
    assert json.loads(ask(night, "FROM detections WHERE false", "--format", "json").output) == []


def test_json_has_no_number_that_json_does_not_know(night):
    sql = "SELECT 'nan'::DOUBLE AS a, 'inf'::DOUBLE AS b, 170141183460469231731687303715884105727 AS c, 1.50 AS d, 1 d"
    [row] = json.loads(ask(night, sql, "--format", "json").output)
    assert row == {"a": None, "b": None, "c": 170141183460469231731687303715884105727, "d": 1.5, "d_2": 1}


def test_sql_is_read_from_standard_input(night):
    result = CliRunner().invoke(main, ["query", str(night), "-", "--format", "csv"], input="SELECT 1 AS one")
    assert result.output == "one\n1\n"


def test_out_replaces_the_file_only_when_the_answer_is_whole(night, tmp_path):
    out = tmp_path / "answer.csv"
    out.write_text("before")
    sql = "SELECT CAST(CASE WHEN range = 99999 THEN 'x' ELSE '1' END AS INTEGER) FROM range(100000)"
    assert ask(night, sql, "--format", "csv", "--out", str(out), "--overwrite").exit_code == 2
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["answer.csv"]
    assert ask(night, "SELECT 1 AS one", "--format", "csv", "--out", str(out), "--overwrite").exit_code == 0
    assert out.read_text() == "one\n1\n"


def test_out_that_is_a_directory_is_told(night, tmp_path):
    result = ask(night, "SELECT 1", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "is a directory; give --out a file" in result.output


def test_a_closed_pipe_is_no_traceback(night):
    code = "from naturelm.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "query", str(night), "FROM range(3000000)", "--format", "csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"range\n"
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.wait(timeout=60)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(3000000) a, range(3000000) b",
        "SELECT md5(range::varchar) FROM range(900000000)",
    ],
    ids=["no rows yet", "rows stream"],
)
def test_ctrl_c_ends_a_query_at_once_and_leaves_no_half_file(night, tmp_path, sql):
    code = "from naturelm.cli import main; print('ready', flush=True); main()"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code,
            "query",
            str(night),
            sql,
            "--format",
            "csv",
            "--out",
            tmp_path / "rows.csv",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What was ignored when a shell began stays so; tests may have been started so, in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        # By its processor time the query is running, however busy the machine is.
        times, deadline = psutil.Process(process.pid).cpu_times, time.monotonic() + 60
        while times().user < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert list(tmp_path.glob("*.csv*")) == []


INTERRUPTS = """
import signal, threading, duckdb
from naturelm.machine import signal_main_thread
from naturelm.tables.interrupt import interruptible

signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in range(40):
    try:
        with interruptible(duckdb.connect()) as connection:
            threading.Timer(0.03, signal_main_thread, [signal.SIGINT]).start()
            connection.sql("SELECT count(*) FROM range(3000000) a, range(3000000) b").to_arrow_reader(1000)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_is_one_whether_duckdb_or_python_sees_it_first():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.splitlines(), done.stderr) == (["interrupted"] * 40, "")


def test_timeout_ends_a_query_and_leaves_no_half_file(night, tmp_path):
    out = tmp_path / "rows.csv"
    began = time.monotonic()
    result = ask(
        night,
        "SELECT md5(range::varchar) FROM range(900000000)",
        *("--format", "csv", "--out", str(out), "--timeout", "0.5"),
    )
    assert result.exit_code == 2
    assert result.output.startswith("Error: the query took longer than --timeout 0.5 seconds")
    assert time.monotonic() - began < 20
    assert list(tmp_path.glob("*.csv*")) + list(tmp_path.glob(".*")) == []
    assert ask(night, "SELECT 1", "--timeout", "60").exit_code == 0


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_timeout_is_a_positive_number(night, seconds):
    assert ask(night, "SELECT 1", "--timeout", seconds).exit_code == 2


def _in_a_process(*arguments, **options):
    command = [sys.executable, "-m", "naturelm.cli", *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)


@pytest.mark.slow
def test_a_query_that_does_not_heed_its_time_limit_ends_with_the_process(tmp_path):
    # What stands for a value of which DuckDB does not let go: this process sleeps in C.
    code = (
        "import ctypes, duckdb, sys\n"
        "from naturelm.tables.interrupt import interruptible\n"
        "from naturelm.tables.row_formats import whole_file\n"
        "from pathlib import Path\n"
        "with interruptible(duckdb.connect(), 0.2), whole_file(Path(sys.argv[1])):\n"
        "    ctypes.CDLL(None).sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out/rows.csv"],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 2
    assert "took longer than --timeout 0.2 seconds" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only there processes report what memory they have")
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT range(2000000000)",
        "SELECT range(200000000)",
        "SELECT repeat('x', 3000000000)",
        "SELECT {'a': [range(30000000)]}",
        "SELECT map([1], [repeat('x', 30000000)])",
    ],
)
def test_a_value_beyond_the_memory_is_one_sentence(night, sql):
    done = _in_a_process("query", str(night), sql, "--format", "csv")
    assert done.returncode == 2
    assert done.stderr.startswith(b"Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_control_characters_in_errors_are_escaped(night):
    for sql in (
        "SELECT error('a' || chr(27) || '[31mred' || chr(7))",
        "SELECT CAST('\x1b]0;owned\x07' AS INTEGER)",
        'SELECT "\x1b[2J" FROM detections',
    ):
        result = ask(night, sql)
        assert result.exit_code == 2
        assert "\\x1b" in result.output
        assert not {"\x1b", "\x07"} & set(result.output)
    result = CliRunner().invoke(main, ["summary", str(night), "--by", "\x1b[31m"])
    assert result.exit_code == 2
    assert "\x1b" not in result.output


BEYOND_PYTHON = {
    "date '99999-01-01'": "99999-01-01",
    "date 'infinity'": "infinity",
    "date '-infinity'": "-infinity",
    "date '0044-03-15 (BC)'": "-0043-03-15",
    "timestamp 'infinity'": "infinity",
    "timestamptz '-infinity'": "-infinity",
    "timestamp_s 'infinity'": "infinity",
    "timestamp '290000-01-01 12:00:00.25'": "290000-01-01 12:00:00.250000",
    "timestamptz '20000-01-01 00:00:00+00'": "20000-01-01 00:00:00Z",
    "time '24:00:00'": "24:00:00",
}


@pytest.mark.parametrize(("value", "text"), BEYOND_PYTHON.items())
@pytest.mark.parametrize("form", ["table", "csv"])
def test_times_that_python_does_not_know_are_shown(night, form, value, text):
    result = ask(night, f"SELECT {value} AS x, 1 AS y", "--format", form)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[1].split("," if form == "csv" else "  ")[0].strip() == text
    if "time '" not in value:
        # Within lists and structs, too, and beside what Python knows.
        result = ask(night, f"SELECT [{value}] AS x, {{'a': {value}}} AS y, map{{1: {value}}} AS z, 1 AS n")
        assert result.exit_code == 0, result.output
        result = ask(night, f"SELECT {value} AS x, [{value}] AS y", "--format", "json")
        assert json.loads(result.output) == [{"x": text, "y": [text]}]
        out = night / "x.parquet"
        result = ask(night, f"SELECT {value} AS x", "--format", "parquet", "--out", str(out), "--overwrite")
        assert len(result.output.splitlines()) <= 1
        assert result.exit_code in (0, 2)


def test_sql_that_is_not_utf8_is_one_sentence(night):
    done = _in_a_process("query", str(night), "-", input=b"SELECT '\xff'")
    assert (done.returncode, done.stderr) == (
        2,
        b"Error: the SQL on standard input is not UTF-8 text; write it in UTF-8\n",
    )
    done = _in_a_process("query", str(night), b"SELECT '\xff'")
    assert (done.returncode, done.stderr) == (2, b"Error: the SQL is not UTF-8 text; write it in UTF-8\n")
    done = _in_a_process("query", str(night), "-", input=b"\xef\xbb\xbfSELECT 1 AS one")
    assert done.returncode == 0


def test_csv_for_spreadsheets_begins_with_a_mark_and_calculates_nothing(night, tmp_path):
    sql = "SELECT '=1+1' AS a, 'Nötta' AS b, -1 AS \"-c\", 0.5 AS d"
    plain, excel = tmp_path / "plain.csv", tmp_path / "excel.csv"
    assert ask(night, sql, "--format", "csv", "--out", str(plain)).exit_code == 0
    assert ask(night, sql, "--format", "csv", "--excel", "--out", str(excel)).exit_code == 0
    assert plain.read_bytes().decode() == "a,b,-c,d\n=1+1,Nötta,-1,0.5\n"
    assert excel.read_bytes().decode() == "\ufeffa,b,'-c,d\n'=1+1,Nötta,-1,0.5\n"
    assert ask(night, sql, "--format", "csv", "--excel").output == excel.read_bytes().decode()
    events_out = tmp_path / "events.csv"
    arguments = ["events", str(night), "--format", "csv", "--excel", "--out", str(events_out)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert events_out.read_bytes().startswith(b"\xef\xbb\xbfrecording_id,")
    result = ask(night, sql, "--excel")
    assert result.exit_code == 2
    assert "--excel is for CSV" in result.output


@pytest.mark.parametrize("verb", ["query", "events"])
def test_what_exists_is_replaced_only_with_overwrite(night, tmp_path, verb):
    arguments = [verb, str(night), *(["SELECT 1"] if verb == "query" else []), "--format", "csv", "--out"]
    kept, link = tmp_path / "kept.csv", tmp_path / "link.csv"
    kept.write_text("mine")
    link.symlink_to(kept)
    dangling = tmp_path / "dangling.csv"
    dangling.symlink_to(tmp_path / "elsewhere.csv")
    for out in (kept, link, dangling):
        result = CliRunner().invoke(main, [*arguments, str(out)])
        assert result.exit_code == 2
        assert "already exists; give --overwrite" in result.output
    for out in (link, dangling):
        assert CliRunner().invoke(main, [*arguments, str(out), "--overwrite"]).exit_code == 0
        assert not out.is_symlink()
    assert kept.read_text() == "mine"
    assert not (tmp_path / "elsewhere.csv").exists()


@pytest.mark.slow
def test_a_million_rows_stream_in_flat_memory(tmp_path):
    directory = write_large(tmp_path / "large", recordings=100, detections_each=10_000)
    code = (
        "import sys; from click.testing import CliRunner; from naturelm.cli import main\n"
        "arguments = ['query', sys.argv[1], 'FROM detections', '--format', 'parquet', '--overwrite', '--out']\n"
        # Not getrusage: a child's maximum there begins with its parent's.
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "def run(): assert CliRunner().invoke(main, [*arguments, sys.argv[2]]).exit_code == 0\n"
        "arguments[2] += ' LIMIT 100000'; run(); few = peak()\n"
        "arguments[2] = 'FROM detections'; run(); print(peak() - few)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, directory, tmp_path / "x.parquet"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert pq.read_metadata(tmp_path / "x.parquet").num_rows == 1_000_000
    # The rows are 140 MB in Arrow's form.
    assert int(done.stdout) < 100_000


# --- hostile text

HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07",
    "a\rb\nc\td",
    "a\rb",
    "\u202egnp.exe",
    "\u009b31m",
    "[red]markup[/red] :bomb:",
    "🦉" * 200,
    "x" * 10_000,
    "'; DROP VIEW detections; --",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_cannot_steer_the_terminal(tmp_path, text):
    row = recording("a.wav", EVENING)
    night = write_results(tmp_path / "night", [row], [detection(row, 0, text)])
    result = ask(night, "SELECT label, score FROM detections")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 3
    assert all(character.isprintable() for line in result.output.split("\n") for character in line)
    [back] = json.loads(ask(night, "SELECT label FROM detections", "--format", "json").output)
    assert back["label"] == text
    csv_text = ask(night, "SELECT label FROM detections", "--format", "csv").output_bytes.decode()
    assert list(csv.reader(io.StringIO(csv_text, newline=""))) == [["label"], [text]]


def test_printable_leaves_letters_of_all_scripts_and_emoji_alone():
    assert printable("Ǿrn – 雀 🦉 क़") == "Ǿrn – 雀 🦉 क़"
    assert printable("a\x1bb\u202ec\u2028d") == "a\\x1bb\\u202ec\\u2028d"
