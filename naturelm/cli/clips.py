"""`naturelm clips`: cut the best detections out of the original recordings."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import archive_option, label_option, min_score_option, overwrite_option
from naturelm.cli._types import FiniteRange

_SHOWN = 10


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Directory for clips and clips.csv."
)
@label_option
@min_score_option
@click.option("--top", type=click.IntRange(min=1), help="Best detections of each label.  [default: all]")
@click.option(
    "--pad", "pad_s", default=1.0, show_default=True, type=FiniteRange(0, 3600),
    help="Seconds of sound before and after a detection.",
)  # fmt: skip
@click.option("--spectrogram", is_flag=True, help="Also write a spectrogram (PNG) of each clip.")
@archive_option
@overwrite_option
def clips(
    directory: Path,
    out: Path,
    labels: tuple[str, ...],
    min_score: float,
    top: int | None,
    pad_s: float,
    spectrogram: bool,
    archive: Path | None,
    overwrite: bool,
) -> None:
    """Cut the best detections in DIRECTORY out of the original recordings.

    Clips are FLAC at the recordings' sample rate, in one folder per label, numbered by score; clips.csv lists them,
    best scores first. Recordings that are no longer there are reported and skipped.
    """
    from naturelm.tables.clips import write_clips
    from naturelm.text import counted, printable

    summary = write_clips(directory, out, labels, min_score, top, pad_s, spectrogram, archive, overwrite)
    for what, lines in (
        ("original not found, skipped (give its directory with --archive)", summary.missing),
        ("failed", summary.failed),
    ):
        for line in lines[:_SHOWN]:
            click.echo(f"{what}: {printable(line)}", err=True)
        if len(lines) > _SHOWN:
            click.echo(f"{what}: {len(lines) - _SHOWN} more", err=True)
    click.echo(f"{counted(summary.written, 'clip')} in {printable(str(out))}")
    if not summary.written and (summary.missing or summary.failed):
        raise click.exceptions.Exit(1)
