"""BirdNET-Analyzer's columns as Parquet. Nothing is calculated from Parquet text, so it has no formula guard."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from naturelm.tables.export.birdnet_csv import HEADER
from naturelm.tables.export.source import LOADED, ExportSource, Saved, check_file
from naturelm.tables.row_formats import whole_file

SUMMARY = "BirdNET-Analyzer's columns as Parquet"
SCHEMA = pa.schema(
    [
        pa.field(name, pa.float64() if name in ("Start (s)", "End (s)", "Confidence") else pa.string())
        for name in HEADER
    ]
)
_GROUP_ROWS = 100_000


def save(source: ExportSource, out: Path) -> Saved:
    """Write one Parquet file. Only the name that the query requested is filled in."""
    check_file(out)
    saved = Saved()
    rows: list[tuple[float, float, str | None, str | None, float | None, str]] = []
    with whole_file(out, "wb") as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for recording, detections in source.by_recording():
            path = source.path(recording)
            rows.extend(
                (found.start_s, found.end_s, found.scientific_name, found.common_name, found.score, path)
                for found in detections
            )
            if len(rows) >= _GROUP_ROWS:
                writer.write_table(_table(rows))
                rows.clear()
            saved.detections += len(detections)
            saved.recordings += 1
        writer.write_table(_table(rows))
    return saved


def _table(rows: list[tuple[float, float, str | None, str | None, float | None, str]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA
    )


def load(path: Path) -> pa.Table:
    """Read a results file."""
    table = pq.read_table(path, schema=SCHEMA)
    columns = ["File", "Start (s)", "End (s)", "Common name", "Scientific name", "Confidence"]
    return table.select(columns).rename_columns(LOADED.names)
