"""Recordings whose sound is marked: silence of cards, clipping, offsets, dead and inverted channels, odd clocks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import duckdb

from naturelm.recordings.times import CLOCK_STARTS, clock_remark

# Less of each is common in sound recordings.
_ZEROS_S = 1.0
_CLIPPED_SHARE = 0.01
_DC = 0.05

_MARKED = f"""
SELECT path, start_local, zeros_s, zeros_end_s, nonfinite_s, clipped_share, dc, channels_inverted, channel_dead
FROM recordings
WHERE zeros_s >= {_ZEROS_S} OR nonfinite_s > 0 OR clipped_share >= {_CLIPPED_SHARE} OR abs(dc) >= {_DC}
   OR channels_inverted OR channel_dead IS NOT NULL
   OR year(start_local) IN {CLOCK_STARTS} OR start_local > $now
ORDER BY path, recording_id
"""


def marked_recordings(connection: duckdb.DuckDBPyConnection) -> list[dict[str, str]]:
    """Recordings whose sound or clock is doubtful: `path`, and `marks` as one sentence.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        From `naturelm.open_tables`.
    """
    now = dt.datetime.now()
    relation = connection.sql(_MARKED, params={"now": now})
    rows = [dict(zip(relation.columns, values, strict=True)) for values in relation.fetchall()]
    marked = [{"path": row["path"], "marks": "; ".join(_sentences(row, now))} for row in rows]
    return [row for row in marked if row["marks"]]


def _sentences(row: dict[str, Any], now: dt.datetime) -> Iterator[str]:
    if (row["zeros_s"] or 0) >= _ZEROS_S:
        end_s = row["zeros_end_s"]
        yield f"{row['zeros_s']:.1f} s of zeros" + (f", {end_s:.1f} s of them at the end" if end_s else "")
    if row["nonfinite_s"]:
        yield f"{row['nonfinite_s']:.3g} s of samples that are NaN or infinite"
    if (row["clipped_share"] or 0) >= _CLIPPED_SHARE:
        yield f"{row['clipped_share']:.1%} of the samples clipped"
    if abs(row["dc"] or 0) >= _DC:
        yield f"a DC offset of {row['dc']:.2f}"
    if row["channels_inverted"]:
        yield "a channel is the inverse of another one; one of them was used"
    if row["channel_dead"] is not None:
        yield f"channel {row['channel_dead']} is dead; the others were used"
    clock = clock_remark(row["start_local"], now)
    if clock is not None:
        yield clock
