"""`naturelm report`: one self-contained page about a results directory."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", default="report.html", show_default=True, type=click.Path(path_type=Path, dir_okay=False),
    help="HTML file to write.",
)  # fmt: skip
@click.option(
    "--clips", default=3, show_default=True, type=click.IntRange(0, 20),
    help="Best detections to show and play of each of the most frequent labels.",
)  # fmt: skip
@click.option(
    "--archive", type=click.Path(path_type=Path),
    help="Where the recordings lie now.  [default: where the runs read them]",
)  # fmt: skip
def report(directory: Path, out: Path, clips: int, archive: Path | None) -> None:
    """Write one HTML page about the results in DIRECTORY, which opens offline.

    It tells what was processed and what failed, when something was heard, which labels with which scores, and
    plays the best clips.
    """
    from naturelm.tables.report import write_report

    write_report(directory, out, clips, archive)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
