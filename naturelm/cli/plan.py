"""`naturelm plan`: what an archive holds, and what processing it will take."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from naturelm.cli._options import archive_config, archive_options
from naturelm.cli.locations import LOCATION
from naturelm.text import printable

if TYPE_CHECKING:
    from naturelm.archive.plan import Forecast
    from naturelm.archive.survey import Pause, Survey
    from naturelm.storage import Location

_SHOWN = 10


@click.command()
@click.argument("paths", nargs=-1, required=True, type=LOCATION, metavar="PATH...")
@click.option("--out", required=True, type=LOCATION, help="Directory for the tables, or s3:// or gs:// URL.")
@archive_options
@click.option(
    "--trial/--no-trial",
    default=True,
    help="Measure the rate for half a minute where no earlier run tells it [default: measure].",
)
def plan(paths: tuple[Location, ...], out: Location, trial: bool, **given: Any) -> None:
    """Say what an archive holds and what `naturelm process` will take; write the manifest.

    Takes what `naturelm process` takes. Headers are read and nothing is processed: the tables in --out stay as
    they are.
    """
    settings = archive_config(**given)

    # Imported late: `naturelm plan --help` needs no pyarrow.
    from naturelm.archive.plan import forecast
    from naturelm.archive.survey import survey

    said = forecast(paths, out, settings, trial=trial)
    console = Console()
    _print_survey(console, survey(said.scan.recordings))
    _print_stations(console, said)
    _print_work(console, said, out)


def _print_survey(console: Console, found: Survey) -> None:
    statuses = ", ".join(f"{number} {status}" for status, number in sorted(found.statuses.items()))
    _say(console, f"{found.recordings} recordings ({statuses}), {_hours(found.sound_s)} of sound")
    table = Table("station", "recordings", "hours", "first start", "last start", box=None)
    for name, station in list(found.stations.items())[: 2 * _SHOWN]:
        table.add_row(
            escape(printable(name)),
            str(station.recordings),
            f"{station.sound_s / 3600:.1f}",
            _minute(station.first),
            _minute(station.last),
        )
    if len(found.stations) > 2 * _SHOWN:
        table.add_row(f"… and {len(found.stations) - 2 * _SHOWN} stations more", "", "", "", "")
    console.print(table)
    _say(console, f"{found.dates} station-days")
    if found.without_time:
        _say(console, f"{found.without_time} recordings whose start is not known")
    if found.without_utc:
        _say(console, f"{found.without_utc} recordings in local time only; a stations file gives them UTC")
    if found.copies:
        _say(console, f"{found.copies} recordings with the content of another one")
    _list(console, "broken or empty", found.broken)
    _list(console, "overlaps", [_tell(pause) for pause in found.overlaps])
    _list(console, "pauses longer than usual", [_tell(pause) for pause in found.gaps])


def _print_stations(console: Console, said: Forecast) -> None:
    if said.scan.stations is None:
        return
    here = {recording.station for recording in said.scan.recordings}
    _list(console, "stations without a row in the stations file", sorted(here - {*said.scan.stations.names}))
    _list(
        console,
        "stations in the stations file without recordings",
        sorted({*said.scan.stations.names} - here),
    )
    outside = [
        recording.path
        for recording in said.scan.own
        if recording.station in said.scan.stations.names
        and said.scan.stations.deployment_of(recording) is None
    ]
    _list(console, "recordings outside the deployments of their station", outside)


def _print_work(console: Console, said: Forecast, out: Location) -> None:
    for line in said.changes.told(prune=False):
        _say(console, line)
    if said.todo.done_before:
        _say(console, f"{said.todo.done_before} recordings done before")
    if said.todo.left_out:
        _say(console, f"{said.todo.left_out} segments not chosen")
    windows = said.windows
    _say(
        console,
        f"to do: {windows} windows in {len(said.todo.due)} segments, {_hours(said.sound_s)} of sound; "
        f"{len(said.todo.staged)} segments wait for their day",
    )
    if windows and said.rate is not None:
        takes_s = windows / said.rate.windows_per_s
        finish = dt.datetime.now() + dt.timedelta(seconds=takes_s)
        _say(
            console,
            f"expected: {_hours(takes_s)} at {said.rate.windows_per_s:.1f} windows/s ({said.rate.source}); "
            f"done {finish:%a %d %b %H:%M} if begun now",
        )
    elif windows:
        _say(console, "expected time: not known without an earlier run or --trial")
    disk = said.disk
    _say(
        console,
        f"disk: about {_bytes(disk.tables_bytes)} of tables, and up to {_bytes(disk.staged_bytes)} while days wait; "
        f"{'free: ' + _bytes(disk.free_bytes) if disk.free_bytes is not None else 'an object store'}",
    )
    _say(console, f"manifest: {out}/_plans/{said.manifest}.parquet")


def _list(console: Console, what: str, lines: list[str]) -> None:
    if not lines:
        return
    _say(console, f"{len(lines)} {what}:")
    for line in lines[:_SHOWN]:
        _say(console, f"  {line}")
    if len(lines) > _SHOWN:
        _say(console, f"  … and {len(lines) - _SHOWN} more")


def _say(console: Console, line: str) -> None:
    console.print(escape(printable(line)), highlight=False, soft_wrap=True)


def _tell(pause: Pause) -> str:
    return f"{pause.station}: {_hours(abs(pause.seconds))} before {pause.at:%Y-%m-%d %H:%M:%S} (after {pause.after})"


def _minute(time: dt.datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
