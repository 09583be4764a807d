"""`stations.csv`: what people know of stations and deployments and recorders do not write down.

One row for each deployment of a station:

==================  ======================================================================================
`station`           as the recordings' own station is called (needed)
`latitude`,         degrees north and east, in place of what files say
`longitude`
`timezone`          `Europe/Berlin`, or a fixed offset as `UTC+10` or `+05:30`. Files that say their UTC offset
                    keep their UTC time and get local time here; in files that do not, the clock is read as
                    this zone's
`deployment`        a name
`start`, `end`      local time or date (then the whole day); the row holds for recordings that start between
`clock_drift_s`     seconds by which the recorder's clock was ahead at `end`, having been right at `start`
==================  ======================================================================================

Every column but the first may be empty or missing. Column names may be in any case and with spaces. The file may
be separated by commas, semicolons or tabs; where it is not separated by commas, numbers may have decimal commas. Other
columns are ignored, and named.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from naturelm.config.tabular import DELIMITERS, read_sheet, read_text_file
from naturelm.errors import NaturelmError
from naturelm.recordings.names import checked_position
from naturelm.recordings.recording import Recording
from naturelm.text import composed

COLUMNS = (
    "station",
    "latitude",
    "longitude",
    "timezone",
    "deployment",
    "start",
    "end",
    "clock_drift_s",
)

_FIXED_OFFSET = re.compile(r"(?:UTC|GMT)?(?:(?P<sign>[+-])(?P<hours>\d{1,2})(?::?(?P<minutes>\d\d))?)?")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A row of the file; None where a cell is empty.

    Attributes
    ----------
    start, end : datetime, optional
        Local times without zone; `end` is excluded.
    clock_drift_s : float
        How far the recorder's clock was ahead at `end`.
    """

    station: str
    latitude: float | None = None
    longitude: float | None = None
    zone: tzinfo | None = None
    name: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    clock_drift_s: float = 0.0

    def holds(self, local: datetime) -> bool:
        """Whether a recording that starts then belongs to this deployment."""
        return (self.start is None or self.start <= local) and (self.end is None or local < self.end)

    def times(self, recording: Recording) -> tuple[datetime | None, datetime | None]:
        """Local time at the station and UTC of a recording's start, the clock not yet corrected."""
        local, utc = recording.start_local, recording.start_time
        if self.zone is None or local is None:
            return local, utc
        if utc is not None:
            return utc.astimezone(self.zone).replace(tzinfo=None), utc
        return local, to_utc(local, self.zone)


class Stations:
    """All deployments; `describe` completes recordings.

    Attributes
    ----------
    ignored_columns : tuple of str
        Columns of the file that are not known.
    """

    def __init__(self, deployments: Sequence[Deployment], ignored_columns: Sequence[str] = ()) -> None:
        self.ignored_columns = tuple(ignored_columns)
        self._deployments: dict[str, list[Deployment]] = {}
        for deployment in deployments:
            self._deployments.setdefault(deployment.station, []).append(deployment)

    @property
    def names(self) -> list[str]:
        return list(self._deployments)

    def describe(self, recording: Recording) -> Recording:
        """The recording with its station's place, times and deployment.

        A recording that starts outside all deployments of its station stays as it is; one whose start is not
        known belongs to its station's deployment where there is only one.
        """
        found = self.deployment_of(recording)
        if found is None:
            return recording
        local, utc = found.times(recording)
        source = recording.start_time_source
        if source is not None and found.zone is not None and utc is not None:
            source += "+timezone"
        if local is not None and found.clock_drift_s and found.start and found.end:
            late = timedelta(
                seconds=found.clock_drift_s * ((local - found.start) / (found.end - found.start))
            )
            local -= late
            if utc is not None:
                utc -= late
                local = utc.astimezone(found.zone).replace(tzinfo=None) if found.zone else local
            source = f"{source}+drift"
        offset = recording.utc_offset_minutes
        if local is not None and utc is not None:
            offset = round((local - utc.replace(tzinfo=None)).total_seconds() / 60)
        return replace(
            recording,
            start_local=local,
            start_time=utc,
            start_time_source=source,
            utc_offset_minutes=offset,
            latitude=recording.latitude if found.latitude is None else found.latitude,
            longitude=recording.longitude if found.longitude is None else found.longitude,
            deployment=found.name,
        )

    def deployment_of(self, recording: Recording) -> Deployment | None:
        """The deployment that a recording belongs to."""
        deployments = self._deployments.get(recording.station, [])
        if recording.start_local is None:
            return deployments[0] if len(deployments) == 1 else None
        for deployment in deployments:
            local, _ = deployment.times(recording)
            if local is not None and deployment.holds(local):
                return deployment
        return None


def to_utc(local: datetime, zone: tzinfo) -> datetime | None:
    """UTC of a local time; None for times that a change of the clocks repeats or skips.

    In the repeated hour the first pass cannot be distinguished from the second, and a recorder that writes a skipped
    time does not follow the zone's clock: either way UTC would be invented.
    """
    first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    return first.astimezone(UTC) if first.utcoffset() == second.utcoffset() else None


def read_stations(path: Path) -> Stations:
    """Read a stations file, with columns as in this module's text.

    Raises
    ------
    NaturelmError
        The file cannot be read, a column is nearly a known one, a cell is invalid, or two deployments of a station
        overlap.
    """
    text = read_text_file(path, "the stations", "--stations-file or the setting stations_file")
    sheet = read_sheet(text, COLUMNS)
    if sheet is None or "station" not in sheet.columns:
        separated = f" (separated by {DELIMITERS[sheet.delimiter]})" if sheet else ""
        raise NaturelmError(
            f"{path}: the first line{separated} has no column station; the columns are {', '.join(COLUMNS)}"
        )
    ignored = [name for name in sheet.columns if name and name not in COLUMNS]
    for name in ignored:
        nearest = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.75)
        if nearest and nearest[0] not in sheet.columns:
            raise NaturelmError(f"{path}: unknown column {name!r}; did you mean {nearest[0]}?")
    deployments = []
    for number, row in sheet.records():
        if sheet.delimiter != ",":
            for name in ("latitude", "longitude", "clock_drift_s"):
                row[name] = row.get(name, "").replace(",", ".")
        try:
            deployments.append(_deployment(row))
        except ValueError as error:
            raise NaturelmError(f"{path}: line {number}: {error}") from None
    if not deployments:
        raise NaturelmError(f"{path}: names no station; give one on each line after the header")
    _check_apart(path, deployments)
    return Stations(deployments, ignored)


def _deployment(row: dict[str, str]) -> Deployment:
    """Raises ValueError, which says what is wrong with which cell."""
    if not row["station"]:
        raise ValueError("has no station; give one or delete the row")
    latitude, longitude = None, None
    if row.get("latitude") or row.get("longitude"):
        stated = row.get("latitude", ""), row.get("longitude", "")
        latitude, longitude = checked_position(*stated)
        if latitude is None:
            raise ValueError(
                f"{stated[0]!r}, {stated[1]!r} is not a position; give degrees, like 52.15 and 4.47"
            )
    start, end = (_time(row.get(name, ""), name) for name in ("start", "end"))
    if start and end and end <= start:
        raise ValueError(f"ends ({row['end']}) before it starts ({row['start']}); swap the two")
    drift = _seconds(row.get("clock_drift_s", ""))
    if drift and not (start and end):
        raise ValueError("clock_drift_s needs start and end, between which the clock went wrong")
    return Deployment(
        station=composed(row["station"]),
        latitude=latitude,
        longitude=longitude,
        zone=_zone(row["timezone"]) if row.get("timezone") else None,
        name=row.get("deployment") or None,
        start=start,
        end=end,
        clock_drift_s=drift,
    )


def _time(text: str, column: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{column} is {text!r}; give a date or a local time, like 2019-05-20 or 2019-05-20T18:30"
        ) from None
    if time.tzinfo is not None:
        raise ValueError(f"{column} is {text!r}; give local time, without an offset")
    whole_day = len(text) <= len("2019-05-20")
    return time + timedelta(days=1) if column == "end" and whole_day else time


def _seconds(text: str) -> float:
    try:
        drift = float(text or 0)
    except ValueError:
        drift = float("nan")
    if not abs(drift) < 86_400:
        raise ValueError(f"clock_drift_s is {text!r}; give seconds, like 12.5")
    return drift


def _zone(text: str) -> tzinfo:
    fixed = _FIXED_OFFSET.fullmatch(text)
    if fixed is not None:
        minutes = 60 * int(fixed["hours"] or 0) + int(fixed["minutes"] or 0)
        if minutes <= 14 * 60:
            return timezone(timedelta(minutes=-minutes if fixed["sign"] == "-" else minutes))
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"timezone is {text!r}; give a name like Europe/Berlin or an offset like UTC+10"
        ) from None


def _check_apart(path: Path, deployments: Sequence[Deployment]) -> None:
    last: dict[str, Deployment] = {}
    for deployment in sorted(deployments, key=lambda row: (row.station, row.start or datetime.min)):
        before = last.get(deployment.station)
        if before and (before.end is None or deployment.start is None or deployment.start < before.end):
            raise NaturelmError(
                f"{path}: deployments of station {deployment.station!r} overlap; give each a start and an end "
                "so that one recording belongs to one"
            )
        last[deployment.station] = deployment
