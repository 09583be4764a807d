"""`naturelm process`: run the archive job."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from naturelm.archive.progress import Progress
from naturelm.cli import INTERRUPTED
from naturelm.cli._options import SectionedCommand
from naturelm.cli._settings import SECTIONS, archive_config, archive_options
from naturelm.cli._types import LOCATION
from naturelm.storage import Location
from naturelm.text import duration, printable

_LABELS_SHOWN = 20
_LABEL_WIDTH = 60
# The exit codes that shells report for processes ended by a signal.
_EXIT_CODES = {"SIGINT": INTERRUPTED, "SIGTERM": 143, "SIGHUP": 129}


@click.command(
    cls=SectionedCommand,
    sections={
        **SECTIONS,
        "Selection": [*SECTIONS["Selection"], "retry_failed", "prune"],
        "Compute": [*SECTIONS["Compute"], "until", "yes"],
        "Reporting": ["log_file", "as_json"],
    },
)
@click.argument("paths", nargs=-1, required=True, type=LOCATION, metavar="PATH...")
@click.option("--out", required=True, type=LOCATION, help="Directory for the tables, or s3:// or gs:// URL.")
@archive_options
@click.option("--prune", is_flag=True, help="Drop the rows of recordings that no longer exist.")
@click.option("--retry-failed", is_flag=True, help="Retry recordings that failed or were abandoned.")
@click.option(
    "--yes",
    is_flag=True,
    help="Begin even if the tables need more than the free disk space, or the work more than a month.",
)
@click.option(
    "--until",
    metavar="TIME",
    help="Stop by this time, such as 07:00 or 2026-05-21T07:00; the next run does the rest.",
)
@click.option(
    "--log-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also append the run's messages to this file, one per line, with the time.",
)
@click.option("--json", "as_json", is_flag=True, help="Write progress as JSON Lines to standard output.")
def process(
    paths: tuple[Location, ...],
    out: Location,
    prune: bool,
    retry_failed: bool,
    yes: bool,
    until: str | None,
    log_file: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Run a model over an archive of recordings and write detections and captions to Parquet.

    PATHs are recordings, or directories to search for recordings, on disks or in object stores
    (s3://bucket/prefix, gs://bucket/prefix). What --out already contains is not processed again: run the same
    command after an interruption, or when recordings were added.
    """
    settings = archive_config(**given)

    # Imported late: `naturelm process --help` needs no pyarrow.
    from naturelm.archive.job import process_archive
    from naturelm.archive.stopping import Stop, parse_until, signals_ask
    from naturelm.errors import RunStopped

    stop = Stop(None if until is None else parse_until(until, dt.datetime.now()))
    progress = Progress(log_file=log_file, json_lines=sys.stdout if as_json else None)
    try:
        with signals_ask(stop, progress.say):
            counts = process_archive(
                paths,
                out,
                settings,
                progress,
                prune=prune,
                retry_failed=retry_failed,
                beyond_limits=yes,
                stop=stop,
            )
    except KeyboardInterrupt:
        progress.say(
            f"interrupted; finished segments are kept in {out}: run the same command again to continue"
        )
        raise click.exceptions.Exit(_EXIT_CODES.get(stop.reason or "", INTERRUPTED)) from None
    except RunStopped as stopped:
        progress.say(f"stopped: {stopped}")
        raise click.exceptions.Exit(1) from None
    if not as_json and stop.reason != "SIGHUP":  # then there is no terminal to print to
        _print_summary(counts, out)
    if counts.left:
        why = f"stopped ({stop.reason})" if stop.reason else "not all recordings could be read"
        progress.say(f"{why}: {counts.left} segments are left; run the same command again to continue")
        if not stop.in_time:
            raise click.exceptions.Exit(_EXIT_CODES.get(stop.reason or "", 1))


def _print_summary(counts: Any, out: Location) -> None:
    console = Console()
    if not counts.segments:
        if counts.left:
            return
        console.print(
            f"nothing to do: {out} already contains all selected recordings ({counts.recordings.total()} recordings)",
            highlight=False,
        )
        return
    statuses = ", ".join(f"{n} {status}" for status, n in sorted(counts.recordings.items()) if n)
    console.print(
        escape(
            f"recordings: {statuses}\n"
            f"{duration(counts.sound_s)} of sound, {counts.windows} windows, {counts.answers} answers, "
            f"{counts.captions} captions, {counts.detections.total()} detections\n"
            f"{counts.wall_s:.1f} s, {counts.times_real_time:.0f} × real time"
        ),
        highlight=False,
    )
    if counts.gated:
        console.print(f"{counts.gated} windows skipped by the gate", highlight=False)
    if counts.detections:
        table = Table("label", "detections", box=None)
        for label, number in counts.detections.most_common(_LABELS_SHOWN):
            table.add_row(escape(printable(label)[:_LABEL_WIDTH]), str(number))
        if len(counts.detections) > _LABELS_SHOWN:
            table.add_row(f"… and {len(counts.detections) - _LABELS_SHOWN} more labels", "")
        console.print(table)
    console.print(
        escape(f'tables: {out}; query them with: naturelm query {out} "SELECT * FROM detections"'),
        highlight=False,
        soft_wrap=True,
    )
