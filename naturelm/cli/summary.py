"""`naturelm summary`: labels by hour, effort and recording statuses."""

from __future__ import annotations

import json
import shutil

import click

from naturelm.cli.locations import LOCATION
from naturelm.storage import Location
from naturelm.tables.errors import told
from naturelm.tables.interrupt import interruptible
from naturelm.tables.query import open_tables
from naturelm.tables.summary import By, lines, summarise


@click.command()
@click.argument("directory", type=LOCATION)
@click.option(
    "--by",
    type=click.Choice(["hour", "date", "station", "label"]),
    default="hour",
    show_default=True,
    help="What to split the counts by; label: not at all, with scores and times instead.",
)
@click.option(
    "--min-score", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Leave out lower scores."
)
@click.option("--local-time/--utc", default=True, show_default=True, help="Hours and dates by which clock.")
@click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the answer.",
)
def summary(directory: Location, by: By, min_score: float, local_time: bool, output: str) -> None:
    """Print how often each label was detected, beside the hours analysed, and recordings by status.

    The default is labels by hour of day. A silent hour counts 0, an unrecorded one shows a dash.
    """
    with interruptible(open_tables(directory, locked=True)) as connection, told():
        result = summarise(connection, by, min_score, "local" if local_time else "utc")
    if output == "json":
        click.echo(json.dumps(result.as_json(), ensure_ascii=False, indent=2))
    else:
        for line in lines(result, shutil.get_terminal_size().columns):
            click.echo(line)
