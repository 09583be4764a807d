"""Effort and detections by local date and hour, as one bounded picture for each station."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from naturelm.recordings.sun import SunTimes, sun_times

if TYPE_CHECKING:
    import duckdb

MAX_ROWS = 62
"""Rows of a heat map: days, or weeks, months or years where there are more days than this."""

_SHADES = 5

_HOURS = """
    CREATE OR REPLACE TEMP TABLE station_hours AS
    WITH span AS (
        SELECT station, start_local AS starts, start_local + to_microseconds(CAST(decoded_s * 1e6 AS BIGINT)) AS ends
        FROM recordings WHERE windows > 0 AND start_local IS NOT NULL),
    touched AS (
        SELECT station, starts, ends, unnest(generate_series(date_trunc('hour', starts), ends, INTERVAL 1 HOUR)) AS hour
        FROM span),
    effort AS (
        SELECT station, hour, sum(epoch(least(ends, hour + INTERVAL 1 HOUR) - greatest(starts, hour))) AS effort_s
        FROM touched GROUP BY ALL),
    found AS (
        SELECT station, date_trunc('hour', start_local) AS hour, count(*) AS detections
        FROM detections JOIN labels USING (label) WHERE start_local IS NOT NULL GROUP BY ALL)
    SELECT station, hour, sum(effort_s) AS effort_s, sum(detections)::BIGINT AS detections
    FROM (SELECT station, hour, effort_s, 0 AS detections FROM effort
          UNION ALL SELECT station, hour, 0, detections FROM found)
    GROUP BY ALL HAVING sum(effort_s) > 0 OR sum(detections) > 0"""

# The offset that most recordings have: a recorder's clock may be set anew within a deployment.
_PLACES = """
    SELECT station, median(latitude), median(longitude), mode(utc_offset_minutes)
    FROM recordings WHERE latitude IS NOT NULL AND longitude IS NOT NULL AND utc_offset_minutes IS NOT NULL
    GROUP BY ALL"""


@dataclass(slots=True)
class Cell:
    """An hour of the day within a row's dates: seconds analysed, and detections in them."""

    effort_s: float = 0.0
    detections: int = 0
    effort_shade: int = 0
    detections_shade: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """Some dates of a station.

    Attributes
    ----------
    name : str
        The date, week, month or year.
    cells : tuple of Cell
        One for each hour of the day, 24.
    sun : SunTimes or None
        On the middle date; None where position or clock offset is not known.
    gap : bool
        Whether dates without sound lie between this row and the one before it.
    """

    name: str
    cells: tuple[Cell, ...]
    sun: SunTimes | None
    gap: bool


@dataclass(frozen=True, slots=True)
class Activity:
    """A station's dates × hours.

    Attributes
    ----------
    station : str
        Empty where it is not known.
    unit : {"day", "week", "month", "year"}
        What a row is.
    rows : tuple of Row
        At most `MAX_ROWS`, in order of time; dates without sound have none.
    effort_s, detections : float, int
        Sums over all rows.
    most_effort_s, most_detections : float, int
        The greatest cell.
    """

    station: str
    unit: str
    rows: tuple[Row, ...]
    effort_s: float
    detections: int
    most_effort_s: float
    most_detections: int

    @property
    def has_sun(self) -> bool:
        return any(row.sun is not None for row in self.rows)


def create_station_hours(tables: duckdb.DuckDBPyConnection) -> list[str]:
    """Sum effort and detections by station and hour, for the functions below.

    Parameters
    ----------
    tables : DuckDB connection
        As `open_tables` gives it.

    Returns
    -------
    list of str
        Stations with known local times, most effort first.
    """
    tables.execute(_HOURS)
    query = "SELECT station FROM station_hours GROUP BY station ORDER BY sum(effort_s) DESC, station"
    return [row[0] for row in tables.execute(query).fetchall()]


def station_activity(tables: duckdb.DuckDBPyConnection, stations: Sequence[str]) -> list[Activity]:
    """Effort and detections of some stations by date and hour; `create_station_hours` goes before."""
    places = {row[0]: row[1:] for row in tables.execute(_PLACES).fetchall()}
    query = "SELECT hour, effort_s, detections FROM station_hours WHERE station = ?"
    activities = []
    for station in stations:
        rows = tables.execute(query, [station]).fetchall()
        cells = {hour: Cell(effort_s, detections) for hour, effort_s, detections in rows}
        activities.append(_activity(station, cells, places.get(station)))
    return activities


def hours_of_day(tables: duckdb.DuckDBPyConnection) -> list[Cell]:
    """Sums over all stations and dates for each hour of the day, 24; `create_station_hours` goes before."""
    query = "SELECT hour(hour), sum(effort_s), sum(detections)::BIGINT FROM station_hours GROUP BY ALL"
    cells = [Cell() for _ in range(24)]
    for hour, effort_s, detections in tables.execute(query).fetchall():
        cells[hour] = Cell(effort_s, detections)
    return cells


def _activity(
    station: str, hours: Mapping[dt.datetime, Cell], place: tuple[float, float, int] | None
) -> Activity:
    dates = {hour.date() for hour in hours}
    unit = next(
        unit for unit in _UNITS if len({_first(date, unit) for date in dates}) <= MAX_ROWS or unit == "year"
    )
    grouped: dict[dt.date, tuple[Cell, ...]] = {}
    for hour, cell in hours.items():
        cells = grouped.setdefault(_first(hour.date(), unit), tuple(Cell() for _ in range(24)))
        cells[hour.hour].effort_s += cell.effort_s
        cells[hour.hour].detections += cell.detections
    firsts = sorted(grouped)[-MAX_ROWS:]
    most_effort_s = max(cell.effort_s for first in firsts for cell in grouped[first])
    most_detections = max(cell.detections for first in firsts for cell in grouped[first])
    for cell in (cell for first in firsts for cell in grouped[first]):
        cell.effort_shade = _shade(cell.effort_s, most_effort_s, power=1.0)
        cell.detections_shade = _shade(cell.detections, most_detections, power=0.5)
    rows = tuple(
        Row(
            _UNITS[unit][0](first),
            grouped[first],
            sun_times(place[0], place[1], first + dt.timedelta(days=_UNITS[unit][1] // 2), place[2])
            if place
            else None,
            gap=bool(index) and _first(firsts[index - 1] + dt.timedelta(days=_UNITS[unit][1]), unit) != first,
        )
        for index, first in enumerate(firsts)
    )
    return Activity(
        station,
        unit,
        rows,
        sum(cell.effort_s for cell in hours.values()),
        sum(cell.detections for cell in hours.values()),
        most_effort_s,
        most_detections,
    )


def _week_name(first: dt.date) -> str:
    year, week, _ = first.isocalendar()
    return f"{year} week {week:02d}"


# unit -> how a row is named, and days that surely lead from its first date into the next row's
_UNITS = {
    "day": (dt.date.isoformat, 1),
    "week": (_week_name, 7),
    "month": (lambda first: f"{first:%Y-%m}", 31),
    "year": (lambda first: f"{first.year}", 366),
}


def _first(date: dt.date, unit: str) -> dt.date:
    """The first date of the day, week, month or year that `date` lies in."""
    if unit == "week":
        return date - dt.timedelta(days=date.weekday())
    if unit == "month":
        return date.replace(day=1)
    return date.replace(month=1, day=1) if unit == "year" else date


def _shade(value: float, most: float, power: float) -> int:
    """0 for nothing, else 1 … `_SHADES`."""
    if value <= 0:
        return 0
    return min(_SHADES, 1 + int(_SHADES * (value / most) ** power))
