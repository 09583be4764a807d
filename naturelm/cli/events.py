"""`naturelm events`: neighbouring detections of one label, merged."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli.locations import LOCATION
from naturelm.cli.query import OUTPUTS, write
from naturelm.storage import Location
from naturelm.tables.events import GAP_S, read_events
from naturelm.tables.interrupt import interruptible
from naturelm.tables.output import BATCH_ROWS
from naturelm.tables.query import open_tables


@click.command()
@click.argument("directory", type=LOCATION)
@click.option(
    "--gap",
    type=click.FloatRange(min=0),
    default=GAP_S,
    show_default=True,
    help="Longest pause within an event, in seconds.",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Leave out lower scores first.",
)
@click.option(
    "--output", type=click.Choice(OUTPUTS), default="table", show_default=True, help="Form of the answer."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file and not to standard output.")
def events(directory: Location, gap: float, min_score: float, output: str, out: Path | None) -> None:
    """Merge neighbouring detections of one label into events, in order of station and time.

    An event may run on into the next recording where station and time are known.
    """
    with interruptible(open_tables(directory, locked=True)) as connection:
        write(read_events(connection, gap_s=gap, min_score=min_score, batch_rows=BATCH_ROWS), output, out)
