"""`naturelm events`: neighbouring detections of one label, merged."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import (
    QUERY_FORMATS,
    directory_argument,
    excel_option,
    format_option,
    min_score_option,
    out_file_option,
    overwrite_option,
)
from naturelm.cli._types import FiniteRange
from naturelm.cli.query import check_output, write
from naturelm.storage import Location
from naturelm.tables.events import GAP_S, read_events
from naturelm.tables.interrupt import interruptible
from naturelm.tables.query import open_tables
from naturelm.tables.row_formats import BATCH_ROWS


@click.command()
@directory_argument
@click.option(
    "--gap",
    type=FiniteRange(min=0),
    default=GAP_S,
    show_default=True,
    help="Longest pause within an event, in seconds.",
)
@min_score_option
@format_option(*QUERY_FORMATS)
@out_file_option
@overwrite_option
@excel_option
def events(
    directory: Location,
    gap: float,
    min_score: float,
    form: str,
    out: Path | None,
    overwrite: bool,
    excel: bool,
) -> None:
    """Merge neighbouring detections of one label into events, in order of station and time.

    An event may continue in the next recording where station and time are known. --min-score applies to each
    detection before events are merged.
    """
    check_output(form, out, overwrite, excel)
    with interruptible(open_tables(directory, locked=True)) as connection:
        rows = read_events(connection, gap_s=gap, min_score=min_score, batch_rows=BATCH_ROWS)
        write(rows, form, out, excel)
