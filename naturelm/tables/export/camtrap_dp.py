"""Camtrap DP 1.0 (TDWG), the package of deployments, media and observations that biodiversity portals read.

Written for cameras, it fits recorders: a station is a deployment, a recording a medium, a detection an
observation. What the standard requires and the tables do not know stays empty and is told.
https://camtrap-dp.tdwg.org
"""

from __future__ import annotations

import csv
import datetime as dt
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from naturelm.errors import NaturelmError
from naturelm.tables.export.source import (
    Detection,
    ExportedRecording,
    ExportSource,
    LoadedRow,
    Saved,
    loaded,
    number,
)
from naturelm.tables.row_formats import csv_writer, whole_file
from naturelm.text import flat, guard, unguard

SUMMARY = "Camtrap DP package (deployments, media, observations), a directory"
VERSION = "1.0"
_SCHEMAS = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}"

DEPLOYMENTS = [
    "deploymentID",
    "locationName",
    "latitude",
    "longitude",
    "deploymentStart",
    "deploymentEnd",
    "timestampIssues",
]
MEDIA = [
    "mediaID",
    "deploymentID",
    "captureMethod",
    "timestamp",
    "filePath",
    "filePublic",
    "fileName",
    "fileMediatype",
    "mediaComments",
]
OBSERVATIONS = [
    "observationID",
    "deploymentID",
    "mediaID",
    "eventID",
    "eventStart",
    "eventEnd",
    "observationLevel",
    "observationType",
    "scientificName",
    "classificationMethod",
    "classifiedBy",
    "classificationProbability",
    "observationTags",
    "observationComments",
]
_UNKNOWN_STATION = "unknown"


@dataclass
class _Deployment:
    """What the recordings of a station add up to."""

    name: str
    position: tuple[float, float] | None = None
    starts: list[str] = field(default_factory=list)
    zoned: bool = True

    def add(self, recording: ExportedRecording) -> None:
        if recording.latitude is not None and recording.longitude is not None and self.position is None:
            self.position = (recording.latitude, recording.longitude)
        ends = [_timestamp(recording, 0.0), _timestamp(recording, recording.sound_s)]
        self.starts = [min(self.starts + ends), max(self.starts + ends)] if all(ends) else self.starts
        self.zoned &= recording.start_time is not None


def save(source: ExportSource, out: Path) -> Saved:
    """Write a package into the directory `out`. Paths are relative to the archive's root.

    A label of a query that asks for common names is the observation's comment: the standard has a column for
    scientific names only.
    """
    if out.exists() and not out.is_dir():
        raise NaturelmError(f"{out}: is a file, and a package is a directory; give --out a directory")
    saved = Saved()
    deployments: dict[str, _Deployment] = {}
    names: set[str] = set()
    with (
        whole_file(out / "media.csv") as media_file,
        whole_file(out / "observations.csv") as observations_file,
        whole_file(out / "deployments.csv") as deployments_file,
    ):
        media, observations = csv_writer(media_file), csv_writer(observations_file)
        media.writerow(MEDIA)
        observations.writerow(OBSERVATIONS)
        for recording, detections in source.by_recording():
            station = recording.station or _UNKNOWN_STATION
            deployments.setdefault(station, _Deployment(station)).add(recording)
            media.writerow(_medium(recording, station))
            observations.writerows(
                _observation(recording, station, number, found) for number, found in enumerate(detections)
            )
            names.update(found.scientific_name for found in detections if found.scientific_name)
            saved.detections += len(detections)
            saved.recordings += 1
        writer = csv_writer(deployments_file)
        writer.writerow(DEPLOYMENTS)
        writer.writerows(_deployment(deployment) for deployment in deployments.values())
    with whole_file(out / "datapackage.json") as file:
        json.dump(_package(list(deployments.values()), sorted(names)), file, ensure_ascii=False, indent=2)
        file.write("\n")
    saved.notes = _notes(list(deployments.values()))
    return saved


def _timestamp(recording: ExportedRecording, start_s: float) -> str:
    """ISO 8601 with a zone, as the standard wants; without one where the recorder's offset is not known."""
    time = recording.time_at(start_s)
    if time is not None:
        return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    local = recording.local_at(start_s)
    return local.strftime("%Y-%m-%dT%H:%M:%S") if local else ""


def _medium(recording: ExportedRecording, station: str) -> list[Any]:
    path = recording.path
    return [
        recording.recording_id,
        guard(flat(station)),
        "timeLapse",
        _timestamp(recording, 0.0),
        guard(flat(path)),
        "false",
        guard(flat(path.rsplit("/", 1)[-1])),
        f"audio/{(recording.format or 'unknown').lower()}",
        "" if recording.status == "ok" else recording.status,
    ]


def _observation(recording: ExportedRecording, station: str, index: int, found: Detection) -> list[Any]:
    observation = f"{recording.recording_id}-{index:06d}"
    return [
        observation,
        guard(flat(station)),
        recording.recording_id,
        observation,
        _timestamp(recording, found.start_s),
        _timestamp(recording, found.end_s),
        "media",
        "animal",
        guard(flat(found.scientific_name)),
        "machine",
        guard(flat(found.model)),
        found.score,
        # Times to the second are what the standard has: the exact ones are needed to find the sound again.
        f"query:{found.query} | start_s:{found.start_s!r} | end_s:{found.end_s!r}",
        guard(flat(found.common_name)),
    ]


def _deployment(deployment: _Deployment) -> list[Any]:
    latitude, longitude = deployment.position or ("", "")
    start, end = deployment.starts or ("", "")
    name = guard(flat(deployment.name))
    return [name, name, latitude, longitude, start, end, "false" if deployment.zoned else "true"]


def _package(deployments: list[_Deployment], scientific_names: list[str]) -> dict[str, Any]:
    times = [time for deployment in deployments for time in deployment.starts]
    positions = [deployment.position for deployment in deployments if deployment.position]
    return {
        "resources": [
            {
                "name": name,
                "path": f"{name}.csv",
                "profile": "tabular-data-resource",
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "schema": f"{_SCHEMAS}/{name}-table-schema.json",
            }
            for name in ("deployments", "media", "observations")
        ],
        "profile": f"{_SCHEMAS}/camtrap-dp-profile.json",
        "created": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "contributors": [{"title": "naturelm", "role": "contributor"}],
        "project": {
            "title": "Passive acoustic monitoring",
            "samplingDesign": "opportunistic",
            "captureMethod": ["timeLapse"],
            "individualAnimals": False,
            "observationLevel": ["media"],
        },
        "spatial": {
            "type": "MultiPoint",
            "coordinates": [[longitude, latitude] for latitude, longitude in positions],
        },
        "temporal": {"start": min(times)[:10], "end": max(times)[:10]} if times else {"start": "", "end": ""},
        "taxonomic": [{"scientificName": name} for name in scientific_names],
    }


def _notes(deployments: list[_Deployment]) -> list[str]:
    notes = []
    of = f"of {len(deployments)} stations"
    if unplaced := [deployment.name for deployment in deployments if deployment.position is None]:
        notes.append(
            f"{len(unplaced)} {of} ({_some(unplaced)}) have no known position; "
            "fill in latitude and longitude in deployments.csv"
        )
    if unzoned := [deployment.name for deployment in deployments if not deployment.zoned]:
        notes.append(
            f"{len(unzoned)} {of} ({_some(unzoned)}) have times without a known UTC offset; "
            "their timestamps lack the zone that Camtrap DP requires"
        )
    return notes


def _some(names: list[str]) -> str:
    return ", ".join(flat(name) for name in names[:3]) + (", …" if len(names) > 3 else "")


def load(path: Path) -> pa.Table:
    """Read a package written by `save`."""
    with (path / "media.csv").open(encoding="utf-8", newline="") as file:
        paths = {row["mediaID"]: unguard(row["filePath"]) for row in csv.DictReader(file)}
    rows: list[LoadedRow] = []
    with (path / "observations.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            tags = dict(tag.split(":", 1) for tag in row["observationTags"].split(" | "))
            rows.append(
                (
                    paths[row["mediaID"]],
                    float(tags["start_s"]),
                    float(tags["end_s"]),
                    unguard(row["observationComments"]),
                    unguard(row["scientificName"]),
                    number(row["classificationProbability"]),
                )
            )
    return loaded(rows)
