"""The tables: one Arrow schema each, with units in the names.

`station` and `date` are the Hive partition of every published file. They stand in the path and not in the
file, so that every Parquet reader agrees; `naturelm query` shows them as columns.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 2

RECORDINGS = "recordings"
ANSWERS = "answers"
DETECTIONS = "detections"
CAPTIONS = "captions"

PARTITION = pa.schema([("station", pa.string()), ("date", pa.date32())])

_LOCAL = pa.timestamp("us")
_UTC = pa.timestamp("us", tz="UTC")

_SPAN = [
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("start_local", _LOCAL),
    ("start_time", _UTC),
]


def _said(column: str) -> pa.Schema:
    return pa.schema(
        [
            ("recording_id", pa.string()),
            ("path", pa.string()),
            *_SPAN,
            ("query", pa.string()),
            (column, pa.string()),
            ("score", pa.float64()),
            ("text", pa.string()),
            ("model", pa.string()),
        ]
    )


TABLES: dict[str, pa.Schema] = {
    RECORDINGS: pa.schema(
        [
            ("recording_id", pa.string()),
            ("path", pa.string()),
            ("start_local", _LOCAL),
            ("start_time", _UTC),
            ("start_time_source", pa.string()),
            ("utc_offset_minutes", pa.int32()),
            ("latitude", pa.float64()),
            ("longitude", pa.float64()),
            ("deployment", pa.string()),
            ("duration_s", pa.float64()),
            ("decoded_s", pa.float64()),
            ("sample_rate_hz", pa.int32()),
            ("channels", pa.int32()),
            ("format", pa.string()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("windows", pa.int32()),
        ]
    ),
    ANSWERS: pa.schema(
        [
            ("recording_id", pa.string()),
            ("window", pa.int32()),
            *_SPAN,
            ("query", pa.string()),
            ("prompt", pa.string()),
            ("text", pa.string()),
            ("tokens", pa.int32()),
            ("score", pa.float64()),
            # The gate kept the window from the model: text, tokens and score are null.
            ("gated", pa.bool_()),
        ]
    ),
    DETECTIONS: _said("label"),
    CAPTIONS: _said("caption"),
}

SORT_KEYS: dict[str, list[str]] = {
    RECORDINGS: ["path", "recording_id"],
    ANSWERS: ["recording_id", "window", "query"],
    DETECTIONS: ["recording_id", "start_s", "query", "label"],
    CAPTIONS: ["recording_id", "start_s", "query"],
}

REVIEWS_SCHEMA = pa.schema(
    [
        ("recording_id", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("query", pa.string()),
        ("label", pa.string()),
        ("decision", pa.string()),
        ("new_label", pa.string()),
        ("reviewer", pa.string()),
        ("reviewed_time", pa.timestamp("us", tz="UTC")),
    ]
)
"""What people decided about detections. The first five columns name the detection, as in `detections`; `new_label` is
null unless `decision` is relabel."""
