"""The tables: one Arrow schema each, with units in the names.

`station` and `date` are the first columns of every file of every table: no reader has to guess them from a path. A
column that is added later is nullable, and files that lack it show null in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

SCHEMA_VERSION = 3

RECORDINGS = "recordings"
ANSWERS = "answers"
DETECTIONS = "detections"
CAPTIONS = "captions"
EMBEDDINGS = "embeddings"

_LOCAL = pa.timestamp("us")
_UTC = pa.timestamp("us", tz="UTC")

# The station is never null: it is the name that the recorder wrote, or the recording's folder. The date is local, that
# of the recording's start, and null where that is not known.
_DAY = [("station", pa.string()), ("date", pa.date32())]

_SPAN = [
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("start_local", _LOCAL),
    ("start_time", _UTC),
]


def _said(column: str) -> pa.Schema:
    return pa.schema(
        [
            *_DAY,
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
            *_DAY,
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
            ("zeros_s", pa.float64()),
            ("zeros_end_s", pa.float64()),
            ("nonfinite_s", pa.float64()),
            ("clipped_share", pa.float64()),
            ("dc", pa.float64()),
            ("channels_inverted", pa.bool_()),
            ("channel_dead", pa.int32()),
        ]
    ),
    ANSWERS: pa.schema(
        [
            *_DAY,
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

VECTOR_TABLES: dict[str, pa.Schema] = {
    RECORDINGS: TABLES[RECORDINGS],
    EMBEDDINGS: pa.schema(
        [
            *_DAY,
            ("recording_id", pa.string()),
            ("window", pa.int32()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            # In files, a list of fixed size: the width of the encoder.
            ("vector", pa.list_(pa.float16())),
        ]
    ),
}

SORT_KEYS: dict[str, list[str]] = {
    RECORDINGS: ["path", "recording_id"],
    ANSWERS: ["recording_id", "window", "query"],
    DETECTIONS: ["recording_id", "start_s", "query", "label"],
    CAPTIONS: ["recording_id", "start_s", "query"],
    EMBEDDINGS: ["recording_id", "window"],
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


def table_columns(schemas: Mapping[str, pa.Schema] = TABLES) -> dict[str, list[str]]:
    """The columns of every table, by default of those of answers."""
    return {name: schema.names for name, schema in schemas.items()}


def conformed(table: str, rows: pa.Table) -> pa.Table:
    """Rows in the table's schema: columns in its order, null where the rows lack one; metadata stays."""
    if table == EMBEDDINGS:
        return rows  # of the width that its encoder has, and no columns were added to it so far
    schema = TABLES[table]
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.schema.names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema.with_metadata(rows.schema.metadata))


def published_metadata(analysis_hash: str) -> dict[bytes, bytes]:
    """Metadata of a published file: the schema version and the analysis."""
    return {
        b"naturelm.schema_version": str(SCHEMA_VERSION).encode(),
        b"naturelm.analysis": analysis_hash.encode(),
    }
