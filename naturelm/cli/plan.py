"""`naturelm plan`: what an archive holds, and what processing it will take."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from naturelm.cli._options import SectionedCommand
from naturelm.cli._settings import SECTIONS, archive_config, archive_options
from naturelm.cli._types import LOCATION
from naturelm.text import counted, duration, file_size, printable

if TYPE_CHECKING:
    from naturelm.archive.plan import Forecast
    from naturelm.archive.survey import Pause, Survey
    from naturelm.storage import Location

_SHOWN = 10


@click.command(cls=SectionedCommand, sections={**SECTIONS, "Reporting": ["trial"]})
@click.argument("paths", nargs=-1, required=True, type=LOCATION, metavar="PATH...")
@click.option("--out", required=True, type=LOCATION, help="Directory for the tables, or s3:// or gs:// URL.")
@archive_options
@click.option(
    "--trial/--no-trial",
    default=True,
    help="Measure the rate for half a minute if no earlier run recorded it.  [default: --trial]",
)
def plan(paths: tuple[Location, ...], out: Location, trial: bool, **given: Any) -> None:
    """Report what an archive contains and how long `naturelm process` will take; write the manifest.

    Takes the same arguments and options as `naturelm process`. Only headers are read: nothing is processed, and the
    tables in --out stay as they are.
    """
    # Imported late: `naturelm plan --help` needs no pyarrow.
    from naturelm.archive.model_queries import with_model_queries
    from naturelm.archive.plan import forecast
    from naturelm.archive.survey import survey
    from naturelm.config.archive import closed_lists

    settings = with_model_queries(archive_config(**given))
    found = forecast(paths, out, settings, trial=trial)
    console = Console()
    _print_survey(console, survey(found.scan.recordings), found.scan.station_sources())
    for line in [*found.scan.notices(), *closed_lists(settings)]:
        _print(console, line)
    _print_stations(console, found)
    _print_work(console, found, out)


def _print_survey(console: Console, found: Survey, sources: dict[str, tuple[str, ...]]) -> None:
    statuses = ", ".join(f"{number} {status}" for status, number in sorted(found.statuses.items()))
    _print(
        console, f"{counted(found.recordings, 'recording')} ({statuses}), {duration(found.sound_s)} of sound"
    )
    table = Table("station", "found by", "recordings", "hours", "first start", "last start", box=None)
    for name, station in list(found.stations.items())[: 2 * _SHOWN]:
        table.add_row(
            escape(printable(name)),
            " + ".join(sources.get(name, ())),
            str(station.recordings),
            f"{station.sound_s / 3600:.1f}",
            _minute(station.first),
            _minute(station.last),
        )
    if len(found.stations) > 2 * _SHOWN:
        table.add_row(f"… and {len(found.stations) - 2 * _SHOWN} more stations", "", "", "", "", "")
    console.print(table)
    _print(console, counted(found.dates, "station-day"))
    if found.without_time:
        _print(console, f"{counted(found.without_time, 'recording')} without a known start time")
    if found.without_utc:
        _print(
            console,
            f"{counted(found.without_utc, 'recording')} in local time only; a stations file gives them UTC",
        )
    for kind in found.ambiguous:
        _print(console, kind.sentence)
    _list(console, "broken or empty recording", found.broken)
    _list(console, "recording with a doubtful clock", found.clocks, "recordings with a doubtful clock")
    _list(console, "remark on metadata", found.remarks, "remarks on metadata")
    _list(console, "overlap", [_sentence(pause) for pause in found.overlaps])
    _list(
        console,
        "pause longer than usual",
        [_sentence(pause) for pause in found.gaps],
        "pauses longer than usual",
    )


def _print_stations(console: Console, work: Forecast) -> None:
    if work.scan.stations is None:
        return
    here = {recording.station for recording in work.scan.recordings}
    _list(
        console,
        "station without a row in the stations file",
        sorted(here - {*work.scan.stations.names}),
        "stations without a row in the stations file",
    )
    outside = [
        recording.path
        for recording in work.scan.own
        if recording.station in work.scan.stations.names
        and work.scan.stations.deployment_of(recording) is None
    ]
    _list(
        console,
        "recording outside the deployments of its station",
        outside,
        "recordings outside the deployments of their station",
    )


def _print_work(console: Console, work: Forecast, out: Location) -> None:
    for line in work.changes.sentences(prune=False):
        _print(console, line)
    if work.todo.done_before:
        _print(console, f"{counted(work.todo.done_before, 'recording')} already processed")
    if work.todo.left_out:
        _print(console, f"{counted(work.todo.left_out, 'segment')} not selected")
    windows = work.windows
    _print(
        console,
        f"to do: {counted(windows, 'window')} in {counted(len(work.todo.due), 'segment')}, "
        f"{duration(work.sound_s)} of sound; segments that wait for the rest of their day: {len(work.todo.staged)}",
    )
    if windows and work.rate is not None:
        takes_s = windows / work.rate.windows_per_s
        finish = dt.datetime.now() + dt.timedelta(seconds=takes_s)
        _print(
            console,
            f"expected: {duration(takes_s)} at {work.rate.windows_per_s:.1f} windows/s ({work.rate.source}); "
            f"finished {finish:%a %d %b %H:%M} if started now",
        )
    elif windows:
        _print(console, "expected time: unknown without an earlier run or --trial")
    if work.memory is not None:
        _print(console, work.memory)
    disk = work.disk
    _print(
        console,
        f"disk: about {file_size(disk.tables_bytes)} of tables, and up to {file_size(disk.staged_bytes)} while days "
        "wait; "
        f"{'free: ' + file_size(disk.free_bytes) if disk.free_bytes is not None else 'an object store'}",
    )
    for warning in work.warnings:
        _print(console, f"{warning}; naturelm process begins only with --yes")
    _print(console, f"manifest: {out}/_plans/{work.manifest}.parquet")


def _list(console: Console, what: str, lines: list[str], plural: str | None = None) -> None:
    if not lines:
        return
    _print(console, f"{counted(len(lines), what, plural)}:")
    for line in lines[:_SHOWN]:
        _print(console, f"  {line}")
    if len(lines) > _SHOWN:
        _print(console, f"  … and {len(lines) - _SHOWN} more")


def _print(console: Console, line: str) -> None:
    console.print(escape(printable(line)), highlight=False, soft_wrap=True)


def _sentence(pause: Pause) -> str:
    return f"{pause.station}: {duration(abs(pause.seconds))} before {pause.at:%Y-%m-%d %H:%M:%S} (after {pause.after})"


def _minute(time: dt.datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"
