"""A results directory whose recordings exist: the synthetic night, its planted sounds as detections."""

from __future__ import annotations

import csv
import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from naturelm.ids import file_recording_id
from naturelm.synthetic.nights import make_night
from tests.tables.make_tables import caption, detection, recording, write_results

OFFSET_MINUTES = 120
# Where the stations stand; the orchard's position is not known.
PLACES = {"marsh": (52.37, 4.89), "ridge": (47.2, 8.5)}

HOSTILE_LABELS = [
    "<script>document.title='taken'</script>",
    '"><img src=x onerror="document.title=\'taken\'">',
    "=cmd|' /C calc'!A0",
    "@SUM(A1)",
    "'; DROP TABLE detections; --",
    "two\nlines\tand a tab",
    "🦉 owl",
    "x" * 10_000,
    "../../etc/passwd",
    "${document.title='taken'} {{7*7}} {% raw %}",
    "CON",
    ".hidden",
    "None",
]


@dataclass
class Night:
    """The archive, the results directory, and the rows written there."""

    archive: Path
    results: Path
    recordings: list[dict[str, Any]]
    detections: list[dict[str, Any]]


def make_listening_night(directory: Path, extra_labels: list[str] | None = None) -> Night:
    """Write the night and its tables; `extra_labels` are further detections in the first recording."""
    archive = directory / "archive"
    recordings = [_recording(path, archive) for path in make_night(archive)]
    by_path = {row["path"]: row for row in recordings}
    with (archive / "planted.csv").open() as table:
        planted = list(csv.DictReader(table))
    detections = [
        detection(by_path[row["path"]], window_s, row["label"], score=round(0.95 - 0.03 * number, 4))
        for number, row in enumerate(planted)
        for window_s in [10.0 * (float(row["start_s"]) // 10)]
    ]
    for number, label in enumerate(extra_labels or []):
        detections.append(
            detection(recordings[0], 10.0 * (number % 5), label, score=0.3, query=f"extra{number}")
        )
    captions = [caption(row, 0.0, f"A quiet night at the {row['station']}.") for row in recordings]
    results = write_results(directory / "results", recordings, detections, captions)
    runs = results / "_runs"
    runs.mkdir()
    run = {"started": "2026-05-15T08:00:00+00:00", "roots": [str(archive)]}
    (runs / "20260515T080000.000000Z.json").write_text(json.dumps(run), encoding="utf-8")
    return Night(archive, results, recordings, detections)


def _recording(path: Path, archive: Path) -> dict[str, Any]:
    relative_path = path.relative_to(archive).as_posix()
    station = relative_path.split("/")[0]
    start_local = dt.datetime.strptime(path.stem[-15:], "%Y%m%d_%H%M%S")
    info = soundfile.info(path)
    latitude, longitude = PLACES.get(station, (None, None))
    return recording(
        relative_path,
        start_local,
        recording_id=file_recording_id(path, relative_path),
        station=station,
        start_time=(start_local - dt.timedelta(minutes=OFFSET_MINUTES)).replace(tzinfo=dt.UTC),
        utc_offset_minutes=OFFSET_MINUTES,
        latitude=latitude,
        longitude=longitude,
        duration_s=info.duration,
        sample_rate_hz=info.samplerate,
        windows=round(info.duration / 10),
    )
