"""`naturelm process`: run the archive job."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from naturelm.archive.progress import Progress
from naturelm.cli import INTERRUPTED
from naturelm.cli._options import SectionedCommand
from naturelm.cli._settings import SECTIONS, archive_config, archive_options
from naturelm.cli._types import LOCATION
from naturelm.config.archive import ArchiveConfig
from naturelm.storage import Location
from naturelm.text import duration, printable

Command = TypeVar("Command", bound=Callable[..., Any])

_LABELS_SHOWN = 20
_LABEL_WIDTH = 60
# The exit codes that shells report for processes ended by a signal.
_EXIT_CODES = {"SIGINT": INTERRUPTED, "SIGTERM": 143, "SIGHUP": 129}


_JOB_OPTIONS = [
    click.option("--prune", is_flag=True, help="Drop the rows of recordings that no longer exist."),
    click.option("--retry-failed", is_flag=True, help="Retry recordings that failed or were abandoned."),
    click.option(
        "--yes",
        is_flag=True,
        help="Begin even if the tables need more than the free disk space, or the work more than a month.",
    ),
    click.option(
        "--until",
        metavar="TIME",
        help="Stop by this time, such as 07:00 or 2026-05-21T07:00; the next run does the rest.",
    ),
    click.option(
        "--log-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Also append the run's messages to this file, one per line, with the time.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Write progress as JSON Lines to standard output."),
]


def job_options(command: Command) -> Command:
    """Give a command the options of a run that are no settings."""
    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


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
@job_options
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
    from naturelm.archive.model_queries import with_model_queries

    run(
        paths,
        out,
        with_model_queries(archive_config(**given)),
        prune,
        retry_failed,
        yes,
        until,
        log_file,
        as_json,
    )


def run(
    paths: tuple[Location, ...],
    out: Location,
    settings: ArchiveConfig,
    prune: bool,
    retry_failed: bool,
    yes: bool,
    until: str | None,
    log_file: Path | None,
    as_json: bool,
    embed_only: bool = False,
) -> None:
    """Run the job, and print what it did; the values are those of the options."""
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
                embed_only=embed_only,
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
    rows = ", ".join(
        f"{number} {what}"
        for what, number in {
            "answers": counts.answers,
            "captions": counts.captions,
            "detections": counts.detections.total(),
            "embeddings": counts.embeddings,
        }.items()
        if number or (what != "embeddings" and not counts.embeddings)
    )
    console.print(
        escape(
            f"recordings: {statuses}\n"
            f"{duration(counts.sound_s)} of sound, {counts.windows} windows, {rows}\n"
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
    if counts.answers:
        hint = f'query them with: naturelm query {out} "SELECT * FROM detections"'
    else:
        hint = f"find similar sounds with: naturelm search {out} --like FILE"
    console.print(escape(f"tables: {out}; {hint}"), highlight=False, soft_wrap=True)
