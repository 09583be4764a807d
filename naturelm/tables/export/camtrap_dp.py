"""Camtrap DP 1.0 (TDWG), the package of deployments, media and observations that biodiversity portals read.

Written for cameras, it fits recorders: a recorder at a station is a deployment, a recording a medium, a detection an
observation. A station with several deployments in the stations file, or whose recordings were made at places further
apart than `_MOVED_M`, is as many deployments. What the standard requires and the tables do not know stays empty and is
reported.
https://camtrap-dp.tdwg.org
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import mimetypes
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
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
from naturelm.text import counted, flat, guard, unguard

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
# Receivers without differential correction scatter less.
_MOVED_M = 200.0
_METRES_PER_DEGREE = 111_320.0

_MEDIA_TYPES = {
    "WAV": "audio/wav",
    "WAVEX": "audio/wav",
    "RF64": "audio/wav",
    "BW64": "audio/wav",
    "W64": "audio/wav",
    "FLAC": "audio/flac",
    "MP3": "audio/mpeg",
    "MPEG": "audio/mpeg",
    "AIFF": "audio/aiff",
    "AU": "audio/basic",
    "CAF": "audio/x-caf",
    "OGG": "audio/ogg",
}


@dataclass
class _Deployment:
    """What the recordings of a recorder at one place add up to."""

    station: str
    name: str | None
    position: tuple[float, float] | None = None
    starts: list[str] = field(default_factory=list)
    zoned: bool = True

    def add(self, recording: ExportedRecording) -> None:
        if recording.latitude is not None and recording.longitude is not None and self.position is None:
            self.position = (recording.latitude, recording.longitude)
        ends = [_timestamp(recording, 0.0), _timestamp(recording, recording.sound_s)]
        self.starts = [min(self.starts + ends), max(self.starts + ends)] if all(ends) else self.starts
        self.zoned &= recording.start_time is not None

    def holds(self, recording: ExportedRecording) -> bool:
        """Whether a recording of the station belongs to this deployment."""
        if self.name is not None or recording.deployment is not None:
            return self.name == recording.deployment
        if self.position is None or recording.latitude is None or recording.longitude is None:
            return True
        return _metres(self.position, (recording.latitude, recording.longitude)) < _MOVED_M


def _metres(here: tuple[float, float], there: tuple[float, float]) -> float:
    """Distance of two positions in degrees, as far as it is short."""
    north = there[0] - here[0]
    east = ((there[1] - here[1] + 180) % 360 - 180) * math.cos(math.radians(here[0]))
    return _METRES_PER_DEGREE * math.hypot(north, east)


class _Deployments:
    """All deployments, by the recordings that were added."""

    def __init__(self) -> None:
        self._of_station: dict[str, list[_Deployment]] = {}
        self._of_recording: dict[str, _Deployment] = {}

    def add(self, recording: ExportedRecording) -> None:
        station = recording.station or _UNKNOWN_STATION
        own = self._of_station.setdefault(station, [])
        found = next((deployment for deployment in own if deployment.holds(recording)), None)
        if found is None:
            found = _Deployment(station, recording.deployment)
            own.append(found)
        found.add(recording)
        self._of_recording[recording.recording_id] = found

    def named(self) -> dict[str, _Deployment]:
        """By id: the station's name, with the deployment's or its number where there are several."""
        names: dict[str, _Deployment] = {}
        for station, own in self._of_station.items():
            for count, deployment in enumerate(own, 1):
                name = station if len(own) == 1 else f"{station}/{deployment.name or count}"
                while name in names:
                    name += f"-{count}"
                names[name] = deployment
        return names

    def ids(self) -> dict[str, str]:
        """Deployment ids by recording id."""
        names = {id(deployment): name for name, deployment in self.named().items()}
        return {key: names[id(deployment)] for key, deployment in self._of_recording.items()}


def save(source: ExportSource, out: Path) -> Saved:
    """Write a package into the directory `out`. Paths are relative to the archive's root.

    A label of a query for common names is the observation's comment: the standard has a column for
    scientific names only.
    """
    if out.exists() and not out.is_dir():
        raise NaturelmError(f"{out}: is a file, and a package is a directory; give --out a directory")
    saved = Saved()
    deployments = _Deployments()
    for recording, _ in source.by_recording():
        deployments.add(recording)
    ids, named = deployments.ids(), deployments.named()
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
            deployment = ids[recording.recording_id]
            media.writerow(_medium(recording, deployment, source.inner_path(recording)))
            observations.writerows(
                _observation(recording, deployment, number, found) for number, found in enumerate(detections)
            )
            names.update(found.scientific_name for found in detections if found.scientific_name)
            saved.detections += len(detections)
            saved.recordings += 1
        writer = csv_writer(deployments_file)
        writer.writerow(DEPLOYMENTS)
        writer.writerows(_deployment(name, deployment) for name, deployment in named.items())
    with whole_file(out / "datapackage.json") as file:
        json.dump(_package(list(named.values()), sorted(names)), file, ensure_ascii=False, indent=2)
        file.write("\n")
    saved.notes = _notes(named)
    return saved


def _timestamp(recording: ExportedRecording, start_s: float) -> str:
    """ISO 8601 with a zone, as the standard wants; without one where the recorder's offset is not known."""
    time = recording.time_at(start_s)
    if time is not None:
        return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    local = recording.local_at(start_s)
    return local.strftime("%Y-%m-%dT%H:%M:%S") if local else ""


def _medium(recording: ExportedRecording, deployment: str, path: str) -> list[Any]:
    # Paths have no guard: portals read them, and with one they name no file.
    return [
        recording.recording_id,
        guard(flat(deployment)),
        "timeLapse",
        _timestamp(recording, 0.0),
        flat(path),
        "false",
        flat(path.rsplit("/", 1)[-1]),
        _media_type(recording),
        "" if recording.status == "ok" else recording.status,
    ]


def _media_type(recording: ExportedRecording) -> str:
    """A media type (RFC 2046) for what the file is, or else for what its name says."""
    container = (recording.format or "").partition("/")[0].upper()
    if container in _MEDIA_TYPES:
        return _MEDIA_TYPES[container]
    guessed = mimetypes.guess_type(recording.path, strict=False)[0] or ""
    if guessed.startswith(("audio/", "video/")):
        return guessed
    suffix = re.sub(r"[^a-z0-9]", "", PurePosixPath(recording.path).suffix.lower())
    return f"audio/x-{suffix or 'unknown'}"


def _observation(recording: ExportedRecording, deployment: str, index: int, found: Detection) -> list[Any]:
    observation = f"{recording.recording_id}-{index:06d}"
    return [
        observation,
        guard(flat(deployment)),
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


def _deployment(name: str, deployment: _Deployment) -> list[Any]:
    latitude, longitude = deployment.position or ("", "")
    start, end = deployment.starts or ("", "")
    station = guard(flat(deployment.station))
    return [
        guard(flat(name)),
        station,
        latitude,
        longitude,
        start,
        end,
        "false" if deployment.zoned else "true",
    ]


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


def _notes(deployments: dict[str, _Deployment]) -> list[str]:
    notes = []
    of = f"of {counted(len(deployments), 'deployment')}"
    if unplaced := [name for name, deployment in deployments.items() if deployment.position is None]:
        notes.append(
            f"{len(unplaced)} {of} without a known position ({_some(unplaced)}); fill in latitude and longitude in "
            "deployments.csv"
        )
    if unzoned := [name for name, deployment in deployments.items() if not deployment.zoned]:
        notes.append(
            f"{len(unzoned)} {of} with times without a known UTC offset ({_some(unzoned)}); their timestamps lack the "
            "zone that Camtrap DP requires"
        )
    return notes


def _some(names: list[str]) -> str:
    return ", ".join(flat(name) for name in names[:3]) + (", …" if len(names) > 3 else "")


def load(path: Path) -> pa.Table:
    """Read a package written by `save`."""
    with (path / "media.csv").open(encoding="utf-8", newline="") as file:
        paths = {row["mediaID"]: row["filePath"] for row in csv.DictReader(file)}
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
