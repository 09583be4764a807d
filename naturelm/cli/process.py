"""`naturelm process`: run the archive job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from naturelm.config import load
from naturelm.errors import NaturelmError
from naturelm.pipeline.progress import Progress, hours
from naturelm.text import printable

_LABELS_SHOWN = 20
_LABEL_WIDTH = 60


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory for the tables.")
@click.option("--model", help="Bundled model, checkpoint directory or hub id [default: pocket].")
@click.option("--llm", help="Base LLM, a directory or hub id [default: what the checkpoint names].")
@click.option("--merging-alpha", type=float, help="LoRA weight, 0 to 1 [default: 1].")
@click.option(
    "--query",
    "queries",
    multiple=True,
    metavar="ID[:KIND]=TEXT",
    help="Question for every window, in place of the configured ones; may be repeated. "
    "KIND is detection (the default) or caption.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings in YAML, like configs/archive.yaml."
)
@click.option("--window", type=float, metavar="SECONDS", help="Window length [default: 10].")
@click.option("--hop", type=float, metavar="SECONDS", help="Seconds between window starts [default: 10].")
@click.option("--batch-size", type=int, metavar="N", help="Windows at once [default: found by itself].")
@click.option("--channel", type=int, metavar="N", help="Channel, from 0 [default: mean of all].")
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Model actors; 0: this process, without Ray [default: one per GPU, or by CPU cores].",
)
@click.option("--address", metavar="RAY", help="Ray cluster to join [default: start one here].")
def process(
    paths: tuple[Path, ...],
    out: Path,
    model: str | None,
    llm: str | None,
    merging_alpha: float | None,
    queries: tuple[str, ...],
    config: Path | None,
    window: float | None,
    hop: float | None,
    batch_size: int | None,
    channel: int | None,
    workers: int | None,
    address: str | None,
) -> None:
    """Run a model over an archive of recordings and write detections and captions to Parquet.

    PATHs are directories, searched for recordings, or recordings. What --out already holds is not
    done again: run the same command after an interruption, or when recordings were added.
    """
    overrides: dict[str, Any] = {
        "model": {"name": model, "llm": llm, "merging_alpha": merging_alpha},
        "windows": {"length_s": window, "hop_s": hop},
        "audio": {"channel": channel},
        "job": {"batch_size": batch_size, "workers": workers, "address": address},
    }
    if window is not None and hop is None and config is None:
        overrides["windows"]["hop_s"] = window
    if queries:
        overrides["queries"] = [_query(text) for text in queries]
    settings = load(config, overrides)

    # Imported late: `naturelm process --help` needs no pyarrow.
    from naturelm.pipeline.job import process_archive

    progress = Progress()
    try:
        counts = process_archive(paths, out, settings, progress)
    except KeyboardInterrupt:
        progress.say(f"interrupted; what was done is kept in {out}: run the same command again to go on")
        raise click.exceptions.Exit(130) from None
    _print_summary(counts, out)


def _query(text: str) -> dict[str, str]:
    name, _, prompt = text.partition("=")
    name, _, kind = name.strip().partition(":")
    if not name or not prompt.strip():
        raise NaturelmError(
            f"--query {text!r}: not ID=TEXT; give an id and a question, like species='Which species?'"
        )
    return {"id": name, "prompt": prompt.strip(), "kind": kind or "detection"}


def _print_summary(counts: Any, out: Path) -> None:
    console = Console()
    if not counts.segments:
        console.print(
            f"nothing to do: all {counts.recordings.total()} recordings are in {out} already", highlight=False
        )
        return
    statuses = ", ".join(f"{n} {status}" for status, n in sorted(counts.recordings.items()) if n)
    console.print(
        escape(
            f"recordings: {statuses}\n"
            f"{hours(counts.sound_s)} of sound, {counts.windows} windows, {counts.answers} answers, "
            f"{counts.captions} captions, {counts.detections.total()} detections\n"
            f"{counts.wall_s:.1f} s, {counts.times_real_time:.0f} × real time"
        ),
        highlight=False,
    )
    if counts.detections:
        table = Table("label", "detections", box=None)
        for label, number in counts.detections.most_common(_LABELS_SHOWN):
            table.add_row(escape(printable(label)[:_LABEL_WIDTH]), str(number))
        if len(counts.detections) > _LABELS_SHOWN:
            table.add_row(f"… and {len(counts.detections) - _LABELS_SHOWN} labels more", "")
        console.print(table)
    console.print(
        escape(f'tables: {out}; ask them with: naturelm query {out} "SELECT * FROM detections"'),
        highlight=False,
        soft_wrap=True,
    )
