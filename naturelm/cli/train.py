"""`naturelm train`: train a model by a configuration, and plot how a run went."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli import INTERRUPTED
from naturelm.cli._options import address_option


class _ConfigOrVerb(click.Group):
    """`train CONFIG` trains; `train report` is a verb: any other first word is taken for a configuration."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Options may stand before CONFIG, too: `train --resume CONFIG`.
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "CONFIG [--workers N | --no-ray] [--address RAY] [--resume]")
        formatter.write_usage(ctx.command_path, "report RUN --out FILE", prefix="       ")


@click.group(cls=_ConfigOrVerb)
def train() -> None:
    """Train a model as CONFIG specifies, or plot the learning curves of a run.

    CONFIG is a YAML file such as configs/train/stage1.yaml. After an interruption run the same command with --resume:
    training continues from the last checkpoint exactly as if it had not been interrupted.
    """


@train.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Ray Train workers.  [default: one per GPU]",
)
@click.option(
    "--ray/--no-ray", default=None, help="Train on Ray, or in this process.  [default: as CONFIG specifies]"
)
@address_option
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint, if there is one.")
def run(config: Path, workers: int | None, ray: bool | None, address: str | None, resume: bool) -> None:
    """Train as CONFIG specifies (`run` may be left out)."""
    from naturelm.training.paths import check_files, load_train_config

    settings = load_train_config(config, {"workers": workers, "ray": ray, "address": address})
    # Before PyTorch is imported, which takes seconds.
    check_files(settings, config)

    from naturelm.errors import RunStopped
    from naturelm.training.display import TrainProgress
    from naturelm.training.run import run_training

    progress = TrainProgress()
    try:
        run_training(settings, resume, progress)
    except KeyboardInterrupt:
        progress.report("interrupted; the last checkpoint is kept: continue with --resume")
        raise click.exceptions.Exit(INTERRUPTED) from None
    except (RunStopped, OSError) as stopped:
        why = f"{stopped.filename}: {stopped.strerror}" if isinstance(stopped, OSError) else str(stopped)
        progress.report(f"stopped: {why}; the last checkpoint is kept: continue with --resume")
        raise click.exceptions.Exit(1) from None
    click.echo(
        f"run: {settings.run.storage}; export it with: naturelm export-checkpoint {settings.run.storage} --out MODEL"
    )


@train.command()
@click.argument("run_dir", metavar="RUN")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Image to write (.png, .svg or .pdf)."
)
def report(run_dir: str, out: Path) -> None:
    """Plot the loss, learning rate and evaluations of a run."""
    from naturelm.training.plot import plot_run

    plot_run(run_dir, out)
    click.echo(out)
