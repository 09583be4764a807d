"""`naturelm report`: one self-contained page about a results directory."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import archive_option, overwrite_option


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--out", default="report.html", show_default=True, type=click.Path(path_type=Path, dir_okay=False),
    help="HTML file to write.",
)  # fmt: skip
@click.option(
    "--clips", default=3, show_default=True, type=click.IntRange(0, 20),
    help="Number of clips to show and play for each of the most frequent labels.",
)  # fmt: skip
@archive_option
@overwrite_option
def report(directory: Path, out: Path, clips: int, archive: Path | None, overwrite: bool) -> None:
    """Write one HTML page about the results in DIRECTORY; it opens offline.

    The page shows what was processed and what failed, when labels were detected and with which scores, and plays the
    best clips.
    """
    from naturelm.tables.report import write_report
    from naturelm.text import printable

    write_report(directory, out, clips, archive, overwrite)
    click.echo(f"{printable(str(out))}: {out.stat().st_size / 1e6:.1f} MB")
