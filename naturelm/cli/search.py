"""`naturelm search`: the windows that sound most like a given sound."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import (
    QUERY_FORMATS,
    archive_option,
    directory_argument,
    excel_option,
    format_option,
    out_file_option,
    overwrite_option,
)
from naturelm.cli._types import FiniteRange
from naturelm.cli.query import check_output, write
from naturelm.errors import NaturelmError
from naturelm.storage import Location


@click.command()
@directory_argument
@click.option(
    "--like", metavar="FILE[@SECONDS]", help="A sound file; the window that starts at SECONDS of it."
)
@click.option(
    "--detection",
    metavar="RECORDING@SECONDS",
    help="In its place a window of the archive: path and start_s of a row.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=50, show_default=True, help="How many windows to find."
)
@click.option("--stations", metavar="NAMES", help="Only these stations, separated by commas.")
@click.option(
    "--dates", metavar="DATES", help="Only these local dates: 2019-05-20, 2019-05-20..2019-05-22, or a list."
)
@click.option(
    "--exclude-near",
    "exclude_near_s",
    type=FiniteRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Leave out windows of the query's own recording within SECONDS of it.  [default: those that overlap it]",
)
@format_option(*QUERY_FORMATS)
@out_file_option
@overwrite_option
@excel_option
@click.option(
    "--raven",
    type=click.Path(path_type=Path),
    help="Also write Raven selection tables: a directory, or a file that ends in .txt.",
)
@click.option(
    "--clips",
    type=click.Path(path_type=Path),
    help="Also write the windows as clips into this directory.",
)
@click.option(
    "--page", type=click.Path(path_type=Path), help="Also write an HTML page with a player for each window."
)
@archive_option
def search(
    directory: Location,
    like: str | None,
    detection: str | None,
    top: int,
    stations: str | None,
    dates: str | None,
    exclude_near_s: float,
    form: str,
    out: Path | None,
    overwrite: bool,
    excel: bool,
    raven: Path | None,
    clips: Path | None,
    page: Path | None,
    archive: Path | None,
) -> None:
    """Find the windows in DIRECTORY that sound most like a given sound.

    The query is cut and encoded as the archive was, and compared with every stored embedding (naturelm embed, or
    naturelm process --embeddings). Similarity is the cosine between embeddings, at most 1; it is not a probability.
    """
    check_output(form, out, overwrite, excel)
    if (raven or clips or page) and not isinstance(directory, Path):
        raise NaturelmError(
            f"{directory}: --raven, --clips and --page need results on a disk; copy them first"
        )
    from naturelm.embeddings import similar
    from naturelm.embeddings.found import write_found_clips, write_page, write_raven

    names = tuple(name.strip() for name in stations.split(",")) if stations is not None else ()
    found = similar.search(
        directory,
        like,
        detection=detection,
        top=top,
        stations=names,
        dates=dates,
        exclude_near_s=exclude_near_s,
    )
    write(found.to_reader(), form, out, excel)
    if isinstance(directory, Path):
        if raven is not None:
            write_raven(directory, found, raven)
        if clips is not None:
            summary = write_found_clips(directory, found, clips, archive)
            click.echo(f"{summary.written} clips in {clips}", err=True)
        if page is not None:
            write_page(directory, found, page, like or detection or "", archive)
