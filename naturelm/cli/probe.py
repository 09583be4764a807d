"""`naturelm probe`: classifiers of one label, trained on stored embeddings and applied to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from naturelm.cli._options import directory_argument
from naturelm.cli._types import SCORE
from naturelm.storage import Location
from naturelm.text import printable


@click.group()
def probe() -> None:
    """Train a classifier of one label on stored embeddings, and apply it to every window."""


@probe.command()
@directory_argument
@click.option("--label", required=True, metavar="LABEL", help="The label to recognise, in any spelling.")
@click.option(
    "--from",
    "source",
    default="reviews",
    show_default=True,
    metavar="reviews|FILE",
    help="Where the label is: the reviews in DIRECTORY, or a table of Raven, BirdNET, Kaleidoscope or Audacity.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File for the probe."
)
@click.option(
    "--background",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Windows to draw from the archive as examples without the label, evenly from all stations.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of what is drawn.")
@click.option(
    "--archive",
    type=click.Path(path_type=Path),
    help="With --from FILE: the directory that was processed.  [default: where the runs read it]",
)
def train(
    directory: Location, label: str, source: str, out: Path, background: int, seed: int, archive: Path | None
) -> None:
    """Train a probe for one label on the embeddings in DIRECTORY, and report how good it is.

    A probe is a logistic regression on the vectors of windows with the label, of windows that were reviewed and are
    without it, and of windows drawn from the archive. All figures are of windows that it was not trained on: of other
    recordings, and of other stations.
    """
    from naturelm.embeddings.examples import annotated_spans, gather, reviewed_spans
    from naturelm.embeddings.probe_model import write_probe
    from naturelm.embeddings.probe_training import train_probe
    from naturelm.embeddings.vectors import StoredVectors

    stored = StoredVectors(directory)
    if source == "reviews":
        spans = reviewed_spans(stored, label)
    else:
        spans = annotated_spans(stored, label, Path(source), archive)
    trained = train_probe(stored, gather(stored, spans, background, seed), label, seed)
    write_probe(trained, out)
    _print(trained.trained, trained.report)
    click.echo(f"probe: {out}; apply it with: naturelm probe apply {directory} {out}")


@probe.command()
@directory_argument
@click.argument("probes", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PROBE...")
@click.option(
    "--min-score",
    type=SCORE,
    help="Write windows with at least this score.  [default: 0.5]",
)
def apply(directory: Location, probes: tuple[Path, ...], min_score: float | None) -> None:
    """Score every window in DIRECTORY with probes, and write what they find as detections.

    Rows go to the table probe_detections, and are among the detections of every other command, with query "probe".
    Only days that are new or have changed are scored. Another probe for the same label replaces the rows of the first.
    """
    from naturelm.embeddings.applying import apply_probes
    from naturelm.embeddings.probe_model import read_probe
    from naturelm.embeddings.vectors import StoredVectors

    read = [(path, read_probe(path)) for path in probes]
    done = apply_probes(StoredVectors(directory), read, min_score)
    before = f", {done.done_before} scored before" if done.done_before else ""
    click.echo(f"{done.windows:,} windows of {done.days} days scored{before}")
    for label, number in done.detections.items():
        click.echo(f"{printable(label)}: {number:,} new detections")


def _print(trained: dict[str, Any], report: dict[str, Any]) -> None:
    click.echo(
        f"{trained['present']} windows with the label, {trained['absent_reviewed']} reviewed without, "
        f"{trained['absent_drawn']} drawn; {trained['recordings']} recordings, {len(trained['stations'])} stations"
    )
    for name in ("recordings", "stations"):
        measured = report[f"by_{name}"]
        if measured is None:
            click.echo(f"held-out {name}: not measured, the label is in one of them only")
            continue
        low, high = measured["interval"]
        at = ", ".join(
            f"{value:.2f} at recall {recall}" for recall, value in measured["precision_at_recall"].items()
        )
        click.echo(
            f"held-out {name}: average precision {measured['average_precision']:.3f} (95 % interval {low:.3f} to "
            f"{high:.3f}; {measured['chance']:.3f} by chance); precision {at}"
        )
        bins = ", ".join(
            f"{part['scores'][0]:g}–{part['scores'][1]:g}: {part['present']:.2f} of {part['windows']}"
            for part in measured["calibration"]
            if part["windows"]
        )
        click.echo(f"  share with the label by score: {bins}")
    if report["learning_curve"]:
        curve = ", ".join(
            f"{step['present']}: {step['average_precision']:.3f}" for step in report["learning_curve"]
        )
        click.echo(f"average precision by windows with the label: {curve}")
    click.echo(report["more_reviews"])
