"""Results directories made from Python rows, for tests: small ones by hand, large ones by arithmetic."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from naturelm.results.layout import ANALYSIS, STAGING, day_file, folder_name
from naturelm.results.schemas import (
    ANSWERS,
    CAPTIONS,
    DETECTIONS,
    RECORDINGS,
    SCHEMA_VERSION,
    SORT_KEYS,
    TABLES,
    table_columns,
)
from naturelm.segments import Day

Row = Mapping[str, Any]

QUERIES = {
    "species": {"prompt": "What is the common name for the focal species in the audio?", "kind": "detection"},
    "latin": {
        "prompt": "What is the scientific name for the focal species in the audio?",
        "kind": "detection",
    },
    "caption": {"prompt": "Caption the audio.", "kind": "caption"},
}


def recording_id(path: str) -> str:
    """An id of the right form for a made-up recording."""
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def recording(path: str, start_local: dt.datetime | None = None, **fields: Any) -> dict[str, Any]:
    """A `recordings` row: a minute of sound at station A, UTC, by default."""
    row = {
        "recording_id": recording_id(path),
        "path": path,
        "station": "A",
        "date": start_local.date() if start_local else None,
        "start_local": start_local,
        "start_time": start_local and start_local.replace(tzinfo=dt.UTC),
        "start_time_source": "name" if start_local else None,
        "utc_offset_minutes": 0 if start_local else None,
        "duration_s": 60.0,
        "sample_rate_hz": 48_000,
        "channels": 1,
        "format": "WAV",
        "status": "ok",
        "windows": 6,
    } | fields
    return {"decoded_s": row["duration_s"]} | row


def detection(
    of: Row, start_s: float, label: str, score: float | None = 0.9, **fields: Any
) -> dict[str, Any]:
    """A `detections` row of a recording: a window of 10 s unless `end_s` says otherwise."""
    return _said(of, start_s, "label", label, score, fields)


def caption(of: Row, start_s: float, text: str, score: float | None = 0.9, **fields: Any) -> dict[str, Any]:
    """A `captions` row of a recording."""
    return _said(of, start_s, "caption", text, score, {"query": "caption"} | fields)


def _said(
    of: Row, start_s: float, column: str, text: str, score: float | None, fields: Row
) -> dict[str, Any]:
    after = dt.timedelta(seconds=start_s)
    return {
        "recording_id": of["recording_id"],
        "path": of["path"],
        "station": of["station"],
        "date": of["date"],
        "start_s": start_s,
        "end_s": start_s + 10.0,
        "start_local": of["start_local"] and of["start_local"] + after,
        "start_time": of["start_time"] and of["start_time"] + after,
        "query": "species",
        column: text,
        "score": score,
        "text": text,
        "model": "pocket",
    } | dict(fields)


def write_results(
    directory: Path,
    recordings: Sequence[Row] = (),
    detections: Sequence[Row] = (),
    captions: Sequence[Row] = (),
    answers: Sequence[Row] = (),
) -> Path:
    """Write published tables, one file per station and date; without rows, an empty night.

    The days of all recordings have a file in every table, as the job writes them.
    """
    write_analysis(directory)
    every_day = {Day.on(row["station"], row["date"]) for row in recordings}
    rows = {RECORDINGS: recordings, ANSWERS: answers, DETECTIONS: detections, CAPTIONS: captions}
    for name, table in rows.items():
        (directory / name).mkdir(parents=True, exist_ok=True)
        days: dict[Day, list[Row]] = {day: [] for day in every_day}
        for row in table:
            days.setdefault(Day.on(row["station"], row["date"]), []).append(row)
        for day, same in days.items():
            path = directory / name / day_file(folder_name(day.station), day.date)
            path.parent.mkdir(parents=True, exist_ok=True)
            published = pa.Table.from_pylist([dict(row) for row in same], schema=TABLES[name])
            pq.write_table(published.sort_by([(key, "ascending") for key in SORT_KEYS[name]]), path)
    return directory


def stage_segment(
    directory: Path, first_window: int, recording: Row, committed: bool = True, **tables: Sequence[Row]
) -> None:
    """Write a segment's staged files; without `answers`, the segment is not committed."""
    write_analysis(directory)
    segment = f"{recording['recording_id']}-{first_window:06d}"
    for name in TABLES:
        if name == ANSWERS and not committed:
            continue
        rows = [recording] if name == RECORDINGS else tables.get(name, [])
        path = directory / STAGING / name / f"{segment}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=TABLES[name]), path)


def write_analysis(directory: Path) -> None:
    """Write `analysis.yaml`, which makes a directory one of results."""
    directory.mkdir(parents=True, exist_ok=True)
    analysis = {
        "model": {"revision": "test"},
        "queries": QUERIES,
        "windows": {"length_s": 10.0, "hop_s": 10.0},
    }
    stored = {
        "schema_version": SCHEMA_VERSION,
        "segment_windows": 60,
        "columns": table_columns(),
        "analysis": analysis,
        "config": {},
    }
    (directory / ANALYSIS).write_text(yaml.safe_dump(stored, sort_keys=False), encoding="utf-8")


def write_large(directory: Path, recordings: int = 5_000, detections_each: int = 2_000) -> Path:
    """Write published tables of a long survey: a recording per station and day, a label per window of 10 s.

    Labels follow a Zipf distribution over 200 species and come in runs, as calls do. The same numbers give
    the same rows.
    """
    write_analysis(directory)
    random = np.random.default_rng(seed=0)
    species = np.array([f"Species {number:03d}" for number in range(200)])
    stations = max(1, recordings // 100)
    start_s = np.arange(detections_each) * 10.0
    for number in range(recordings):
        station, day = f"S{number % stations:03d}", number // stations
        path = f"{station}/{station}_{day:03d}.flac"
        start = dt.datetime(2026, 1, 1, 18) + dt.timedelta(days=day)
        row = recording(
            path, start, station=station, duration_s=detections_each * 10.0, windows=detections_each
        )
        start_local = np.datetime64(start, "us") + (start_s * 1e6).astype("timedelta64[us]")
        runs = species[np.minimum(random.zipf(1.4, detections_each) - 1, 199)]
        label = pa.array(np.repeat(runs, random.integers(1, 4, detections_each))[:detections_each])
        columns = {
            "start_s": start_s,
            "end_s": start_s + 10.0,
            "start_local": start_local,
            "start_time": start_local,
            "label": label,
            "score": np.round(random.beta(5, 2, detections_each), 4),
            "text": label,
        }
        same = {
            "station": station,
            "date": row["date"],
            "recording_id": row["recording_id"],
            "path": path,
            "query": "species",
            "model": "pocket",
        }
        arrays = [
            pa.array([same[field.name]] * detections_each, field.type)
            if field.name in same
            else pa.array(columns[field.name]).cast(field.type)
            for field in TABLES[DETECTIONS]
        ]
        tables = {
            RECORDINGS: pa.Table.from_pylist([row], schema=TABLES[RECORDINGS]),
            DETECTIONS: pa.table(arrays, schema=TABLES[DETECTIONS]),
            ANSWERS: TABLES[ANSWERS].empty_table(),
            CAPTIONS: TABLES[CAPTIONS].empty_table(),
        }
        for name, table in tables.items():
            file = directory / name / day_file(folder_name(station), str(row["date"]))
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, file, compression="zstd")
    return directory
