"""GeoJSON (RFC 7946): a feature per detection, at its station; without a geometry where that is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from naturelm.tables.export.source import (
    Detection,
    ExportedRecording,
    ExportSource,
    Saved,
    check_file,
    loaded,
)
from naturelm.tables.row_formats import whole_file

SUMMARY = "one feature per detection, at its station"


def save(source: ExportSource, out: Path) -> Saved:
    """Write one FeatureCollection, a feature per line."""
    check_file(out)
    saved, unplaced = Saved(), 0
    with whole_file(out) as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for recording, detections in source.by_recording():
            path = source.path(recording)
            for found in detections:
                file.write(separator + json.dumps(_feature(path, recording, found), ensure_ascii=False))
                separator = ",\n"
            unplaced += len(detections) if _geometry(recording) is None else 0
            saved.detections += len(detections)
            saved.recordings += 1
        file.write("\n]}\n")
    if unplaced:
        saved.notes.append(
            f"{unplaced:,} detections have no known position, so their features have no geometry"
        )
    return saved


def _feature(path: str, recording: ExportedRecording, found: Detection) -> dict[str, Any]:
    local, time = recording.local_at(found.start_s), recording.time_at(found.start_s)
    return {
        "type": "Feature",
        "geometry": _geometry(recording),
        "properties": {
            "path": path,
            "station": recording.station,
            "start_s": found.start_s,
            "end_s": found.end_s,
            "start_local": local and local.isoformat(),
            "start_time": time and time.isoformat(),
            "query": found.query,
            "common_name": found.common_name,
            "scientific_name": found.scientific_name,
            "score": found.score,
        },
    }


def _geometry(recording: ExportedRecording) -> dict[str, Any] | None:
    if recording.latitude is None or recording.longitude is None:
        return None
    return {"type": "Point", "coordinates": [recording.longitude, recording.latitude]}


def load(path: Path) -> pa.Table:
    """Read a FeatureCollection written by `save`."""
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    names = ("path", "start_s", "end_s", "common_name", "scientific_name", "score")
    return loaded([tuple(feature["properties"][name] for name in names) for feature in features])
