"""`naturelm finetune`: from a lab's own labels to a model, and whether it is better."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naturelm.cli import INTERRUPTED
from naturelm.cli._options import address_option, model_option

_WIDE = 200

if TYPE_CHECKING:
    from naturelm.training.display import TrainProgress
    from naturelm.training.finetune import Comparison
    from naturelm.training.labelled_windows import Clip


@click.command()
@click.argument("labels", type=click.Path(path_type=Path))
@click.option(
    "--audio",
    type=click.Path(path_type=Path),
    help="Directory of the recordings.  [default: folders contain theirs, reviews know where they were]",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="New directory for the run and the model."
)
@model_option
@click.option(
    "--held-out", type=click.Path(path_type=Path), metavar="LABELS",
    help="Labels to evaluate on, in any of the same forms.  [default: a fifth of LABELS, by station or recording]",
)  # fmt: skip
@click.option(
    "--only-labelled", is_flag=True,
    help="Leave out stretches without a label; otherwise they are examples of nothing to name.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Training steps.  [default: by number of clips]"
)
@click.option(
    "--config", type=click.Path(path_type=Path),
    help="Settings of the training run, as in configs/train/finetune.yaml.",
)  # fmt: skip
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of split and training."
)
@click.option("--ray", is_flag=True, help="Train on Ray instead of in this process.")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Ray Train workers.  [default: one per GPU]"
)
@address_option
@click.option("--resume", is_flag=True, help="Continue an interrupted run from its last checkpoint.")
def finetune(
    labels: Path,
    audio: Path | None,
    out: Path,
    model: str | None,
    held_out: Path | None,
    only_labelled: bool,
    steps: int | None,
    config: Path | None,
    seed: int,
    ray: bool,
    workers: int | None,
    address: str | None,
    resume: bool,
) -> None:
    """Train a model on your own LABELS, and report whether it became better.

    LABELS is a Raven selection table, a CSV of BirdNET or Kaleidoscope, Audacity labels, a directory of any of these,
    a directory with a folder of recordings for each label, or a results directory with reviews. The manifests, the
    run, the model and the comparison are written to --out; use the model with: naturelm process --model OUT/model
    """
    from naturelm.errors import NaturelmError
    from naturelm.models import presets
    from naturelm.training.labelled_windows import read_labels
    from naturelm.training.paths import absolute_model

    for name, value in (("--workers", workers), ("--address", address)):
        if value and not ray:
            raise NaturelmError(f"{name} needs Ray; give --ray too, or leave {name} out")
    start = absolute_model(model or "pocket", Path.cwd())
    presets.resolve(start)
    out = out.absolute()
    _check_out(out, resume)
    base = _base(config)
    known = read_labels(labels, audio and audio.absolute())
    other = read_labels(held_out, audio and audio.absolute()) if held_out else None
    run = {"ray": ray, "workers": workers, "address": address}
    _finetune(known, other, out, start, base, run, only_labelled, steps, seed, resume)


def _finetune(
    known: Sequence[Any],
    other: Sequence[Any] | None,
    out: Path,
    model: str,
    base: dict[str, Any],
    run: dict[str, Any],
    only_labelled: bool,
    steps: int | None,
    seed: int,
    resume: bool,
) -> None:
    from naturelm.training import finetune as tuning
    from naturelm.training.display import TrainProgress
    from naturelm.training.initial_model import check_start
    from naturelm.training.labelled_windows import label_windows, split
    from naturelm.training.run import run_training
    from naturelm.training.settings import ModelStart, parse

    progress = TrainProgress()
    window_s = check_start(ModelStart(checkpoint=model)).window_s
    clips = label_windows(known, window_s, only_labelled, seed)
    if other is not None:
        train, held, kind = clips, label_windows(other, window_s, only_labelled, seed), "--held-out"
    else:
        train, held, kind = split(clips, seed)
    tuning.require_labels(train)
    out.mkdir(parents=True, exist_ok=True)
    settings = parse(
        tuning.settings(base, model, out, window_s, len(train), steps, run) | {"seed": seed}, "finetune"
    )
    names = {name for clip in train for name in clip.names}
    progress.report(
        f"{len(train)} clips with {len(names)} labels to train on, {len(held)} held out (by {kind}); "
        f"{settings.optimisation.steps} steps"
    )
    tuning.write_manifests(train, held, out, seed)
    try:
        run_training(settings, resume, progress)
    except KeyboardInterrupt:
        progress.report("interrupted; the last checkpoint is kept: continue with --resume")
        raise click.exceptions.Exit(INTERRUPTED) from None
    _export(out)
    comparison = _compare(model, out, tuning.chosen(held, seed), progress)
    _print(comparison)
    click.echo(
        f"model: {out / 'model'}; use it with: naturelm process ARCHIVE --out TABLES --model {out / 'model'}"
    )


def _check_out(out: Path, resume: bool) -> None:
    from naturelm.errors import NaturelmError

    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NaturelmError(
            f"{out}: is not empty; give --out a new directory, or --resume to continue its run"
        )


def _base(config: Path | None) -> dict[str, Any]:
    from naturelm.config.loading import read_yaml
    from naturelm.training.finetune import DEFAULTS
    from naturelm.training.paths import with_absolute_paths

    if config is None:
        return DEFAULTS
    return with_absolute_paths(read_yaml(config, "configs/train/finetune.yaml"), config.absolute().parent)


def _export(out: Path) -> None:
    import shutil

    from naturelm.training.export import write_checkpoint

    # Left by an interrupted run, whole or in part.
    shutil.rmtree(out / "model", ignore_errors=True)
    write_checkpoint(str(out / "run"), out / "model")


def _compare(model: str, out: Path, clips: Sequence[Clip], progress: TrainProgress) -> Comparison:
    from naturelm.training.finetune import answers, compare, store_comparison

    sides = []
    for name, which in (("before", model), ("after", str(out / "model"))):
        progress.report(f"evaluating {name}: {len(clips)} clips")
        sides.append(answers(which, clips))
    comparison = compare(clips, *sides)
    store_comparison(comparison, out)
    return comparison


def _print(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    from naturelm.text import printable

    table = Table(
        "label", "clips", "found before", "found after", "correct before", "correct after", box=None
    )
    for name, (before, after) in comparison.found.items():
        right = comparison.correct[name]
        table.add_row(printable(name), str(before.of), *map(str, (before, after, *right)))
    # Where nobody looks, lines are not broken.
    console = Console(markup=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    before, after = comparison.exact
    click.echo(f"exactly right: {before} before, {after} after; 95 % intervals in brackets")
    click.echo(comparison.verdict())
