"""`naturelm export-checkpoint`: a training run's weights in the published layout."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", metavar="RUN_OR_CHECKPOINT")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory for the checkpoint.")
@click.option("--best", is_flag=True, help="Export the best checkpoint of a run instead of the last.")
@click.option(
    "--with-llm",
    is_flag=True,
    help="Also write the base LLM; always done if it was trained or created by the run.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Data type of the written weights.",
)
def export_checkpoint(checkpoint: str, out: Path, best: bool, with_llm: bool, dtype: str) -> None:
    """Write a training run's weights as a checkpoint in the published layout.

    RUN_OR_CHECKPOINT is a run's storage, or one checkpoint within it (RUN/checkpoints/step-00001000). The directory
    that --out names can then be given as --model.
    """
    from naturelm.training.export import write_checkpoint

    step = write_checkpoint(checkpoint, out, best=best, with_llm=with_llm, dtype=dtype)
    click.echo(f"step {step} written to {out}; use it with: naturelm infer SOUND --model {out}")
