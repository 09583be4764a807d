"""`naturelm summary`: labels by hour, effort and recording statuses."""

from __future__ import annotations

import json
import shutil

import click

from naturelm.cli._options import directory_argument, format_option, min_score_option
from naturelm.storage import Location
from naturelm.tables.duckdb_errors import readable_errors
from naturelm.tables.interrupt import interruptible
from naturelm.tables.query import open_tables
from naturelm.tables.summary import By, lines, summarise


@click.command()
@directory_argument
@click.option(
    "--by",
    type=click.Choice(["hour", "date", "station", "label"]),
    default="hour",
    show_default=True,
    help="Split the counts by hour, date or station; label: one row per label, with scores and times.",
)
@min_score_option
@click.option(
    "--local-time/--utc",
    default=True,
    show_default=True,
    help="Clock that hours and dates are counted by: the recorders' own, or UTC.",
)
@format_option("table", "json")
def summary(directory: Location, by: By, min_score: float, local_time: bool, form: str) -> None:
    """Print how often each label was detected, the hours analysed, and recordings by status.

    The default is labels by hour of day. An hour without detections counts 0, an unrecorded one shows a dash.
    """
    with interruptible(open_tables(directory, locked=True)) as connection, readable_errors():
        result = summarise(connection, by, min_score, "local" if local_time else "utc")
    if form == "json":
        click.echo(json.dumps(result.as_json(), ensure_ascii=False, indent=2))
    else:
        for line in lines(result, shutil.get_terminal_size().columns):
            click.echo(line)
