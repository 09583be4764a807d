"""`naturelm queue`: what to listen to next."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import directory_argument, label_option, overwrite_option
from naturelm.errors import NaturelmError
from naturelm.storage import Location
from naturelm.tables.interrupt import interruptible
from naturelm.tables.query import open_tables
from naturelm.tables.queues import STRATEGIES, choose_queue, queue_progress, read_queue, write_queue
from naturelm.tables.row_formats import check_out
from naturelm.text import printable


@click.command()
@directory_argument
@click.option("--strategy", type=click.Choice(STRATEGIES), help="How to choose detections; see above.")
@label_option
@click.option(
    "--per-station",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Detections of each station.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of what is drawn.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="CSV file for the queue.")
@overwrite_option
@click.option(
    "--progress",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="QUEUE",
    help="In place of choosing: report how much of this queue is reviewed, and how far its reviewers agree.",
)
def queue(
    directory: Location,
    strategy: str | None,
    labels: tuple[str, ...],
    per_station: int,
    seed: int,
    out: Path | None,
    overwrite: bool,
    progress: Path | None,
) -> None:
    """Choose detections in DIRECTORY that nobody has reviewed, as a list to listen to.

    \b
    random      so many of each station
    uncertain   scores nearest to 0.5
    stratified  evenly from five bins of scores, for thresholds and calibration
    diverse     windows that sound as different as possible; needs embeddings
    disagree    windows in which one query or probe finds the label and another does not
    """
    if progress is not None:
        if strategy is not None or out is not None:
            raise NaturelmError("--progress reports on a queue that exists; leave out --strategy and --out")
        _report(directory, progress)
        return
    if strategy is None or out is None:
        raise NaturelmError("give --strategy and --out FILE for a new queue, or --progress QUEUE")
    check_out(out, overwrite)
    with interruptible(open_tables(directory)) as tables:
        rows = choose_queue(tables, strategy, labels, per_station, seed)
    write_queue(rows, out)
    stations = len({row["station"] for row in rows})
    click.echo(f"{len(rows)} detections of {stations} stations in {out}")


def _report(directory: Location, path: Path) -> None:
    with interruptible(open_tables(directory)) as tables:
        found = queue_progress(tables, read_queue(path))
    click.echo(f"{found.reviewed} of {found.total} reviewed")
    for name, number in found.by_reviewer.items():
        click.echo(f"{printable(name)}: {number}")
    for first, second, both, share, kappa in found.agreements:
        measured = "not defined" if kappa is None else f"{kappa:.2f}"
        click.echo(
            f"{printable(first)} and {printable(second)}: {both} by both, {share:.0%} equal, Cohen's kappa {measured}"
        )
