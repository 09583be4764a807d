"""Events: neighbouring detections of one label, merged."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from naturelm.tables.duckdb_errors import readable_batches, readable_errors

GAP_S = 1.0
"""Longest pause within an event. File names give a recording's start to the second, so recordings that
follow each other without a gap may seem up to a second apart."""

# Longer overlaps of recordings than those of one recorder that rounds its times.
_OVERLAP_US = 2_000_000

# Gaps and islands, in whole microseconds. A detection lies on its station's clock where the time is known and no
# other recording of the station overlaps with its own, so that an event may run from one recording into the next;
# otherwise on its own recording's.
# `reach_us` is how far the detections before it reach: windows may overlap, so the last to start need not be
# the last to end. Rows carry numbers and not texts through the sorts, which go through files when there are
# millions; `max(… start …)` and not a running count, which takes DuckDB many times as long.
_EVENTS_OF = """
CREATE MACRO events_of(gap_s := {gap_s}, min_score := 0.0, across := true) AS TABLE
WITH timed AS (
    SELECT
        recording_id, path, station, date,
        epoch_us(start_local) AS begins_us,
        begins_us + (coalesce(duration_s, 0) * 1e6)::BIGINT - {overlap_us} AS ends_us
    FROM recordings
),
places AS MATERIALIZED (
    SELECT
        recording_id, path, station, date,
        row_number() OVER (ORDER BY recording_id)::INTEGER AS recording,
        dense_rank() OVER (ORDER BY station)::INTEGER AS place,
        -- Two recorders, or one with a wrong clock: what they recorded cannot be put in order.
        coalesce(max(ends_us) OVER earlier > begins_us OR lead(begins_us) OVER later < ends_us, false) AS is_parallel
    FROM timed
    WINDOW
        earlier AS (
            PARTITION BY station ORDER BY begins_us, recording_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ),
        later AS (PARTITION BY station ORDER BY begins_us, recording_id)
),
spellings AS MATERIALIZED (
    SELECT label, label_key, name, dense_rank() OVER (ORDER BY label_key)::INTEGER AS kind FROM labels
),
placed AS (
    SELECT
        CASE WHEN across AND start_local IS NOT NULL AND NOT is_parallel THEN place ELSE -recording END AS clock,
        query,
        kind,
        coalesce(epoch_us(start_local), (start_s * 1e6)::BIGINT) AS from_us,
        from_us + ((end_s - start_s) * 1e6)::BIGINT AS to_us,
        recording,
        start_s,
        start_local,
        start_time,
        score
    FROM detections JOIN places USING (recording_id) JOIN spellings USING (label)
    WHERE coalesce(score, 0) >= min_score
),
reaching AS (
    SELECT *, max(to_us) OVER earlier AS reach_us
    FROM placed
    WINDOW earlier AS (
        PARTITION BY clock, query, kind ORDER BY from_us, recording, start_s
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
starting AS (
    -- The microsecond is for the rounding of start_s and end_s.
    SELECT *, reach_us IS NULL OR from_us > reach_us + (gap_s * 1e6)::BIGINT + 1 AS starts FROM reaching
),
islands AS (
    SELECT *, max(CASE WHEN starts THEN from_us END) OVER until_now AS island_us
    FROM starting
    WINDOW until_now AS (
        PARTITION BY clock, query, kind ORDER BY from_us, recording, start_s
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
),
merged AS (
    SELECT
        query,
        kind,
        any_value(recording) FILTER (starts) AS recording,
        any_value(start_s) FILTER (starts) AS start_s,
        any_value(start_local) FILTER (starts) AS start_local,
        any_value(start_time) FILTER (starts) AS start_time,
        (max(to_us) - island_us) / 1e6 AS duration_s,
        count(*) AS windows,
        avg(score) AS mean_score,
        max(score) AS best_score
    FROM islands
    GROUP BY clock, query, kind, island_us
)
SELECT
    recording_id,
    path,
    station,
    date,
    start_s,
    start_s + duration_s AS end_s,
    start_local,
    start_time,
    duration_s,
    query,
    name AS label,
    label_key,
    windows,
    mean_score,
    best_score
FROM merged
JOIN places USING (recording)
JOIN (SELECT DISTINCT kind, label_key, name FROM spellings) USING (kind)
"""


def create_events(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the table function `events_of(gap_s, min_score, across)` and the view `events`, its defaults.

    `across := false` ends an event with its recording.

    The connection needs `detections`, `recordings` and `labels`.
    """
    connection.execute(_EVENTS_OF.format(gap_s=GAP_S, overlap_us=_OVERLAP_US))
    connection.execute("CREATE VIEW events AS FROM events_of()")


def events(
    connection: duckdb.DuckDBPyConnection, *, gap_s: float = GAP_S, min_score: float = 0.0
) -> pa.Table:
    """Merge neighbouring detections of one label and query.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        From `naturelm.open_tables`.
    gap_s : float
        Longest pause within an event, in seconds.
    min_score : float
        Detections with a lower score are left out.

    Returns
    -------
    pyarrow.Table
        One row per event, in order of station and time. `recording_id`, `path`, `station`, `date`, `start_s`,
        `start_local` and `start_time` say where and when it starts; `end_s` is in seconds from the start of
        that recording, later than its end where the event runs into the next one; `duration_s`; `query`;
        `label` and `label_key`; `windows` it occurs in; `mean_score` and `best_score` of those.
    """
    return read_events(connection, gap_s=gap_s, min_score=min_score, batch_rows=100_000).read_all()


def read_events(
    connection: duckdb.DuckDBPyConnection, *, gap_s: float, min_score: float, batch_rows: int
) -> pa.RecordBatchReader:
    """The rows of `events` in batches, for results that do not fit in memory."""
    with readable_errors():
        relation = connection.sql(
            "FROM events_of(gap_s := $gap_s, min_score := $min_score) "
            "ORDER BY station, start_local, path, start_s, query, label",
            params={"gap_s": gap_s, "min_score": min_score},
        )
        return readable_batches(relation.to_arrow_reader(batch_rows))
