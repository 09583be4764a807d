"""`naturelm quantize`: a model's weights in fewer bits, as another model."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import llm_option
from naturelm.cli._types import FiniteRange
from naturelm.errors import NaturelmError
from naturelm.text import file_size


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--weights",
    type=click.Choice(["int8", "fp8"]),
    default="int8",
    show_default=True,
    help="How to store the language model's matrices; fp8 needs a GPU that has it.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory for the model.")
@llm_option
@click.option(
    "--merging-alpha",
    type=FiniteRange(0, 1),
    default=1.0,
    show_default=True,
    metavar="ALPHA",
    help="Weight of the LoRA adapters, 0 to 1; fixed from then on.",
)
def quantize(model: str, weights: str, out: Path, llm: str | None, merging_alpha: float) -> None:
    """Write a model with its language model in 8 bits: half the memory of bfloat16, and faster on CPUs.

    MODEL is a name from `naturelm models`, a checkpoint directory or a hub id. The directory that --out names can then
    be given as --model; the base LLM is in it. The weights are read one after the other, so less memory is needed than
    to use the model.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NaturelmError(f"{out}: is not empty; give a new directory with --out")
    from naturelm.models import presets
    from naturelm.models.base import LanguageModel

    source = presets.resolve(model)
    model_class = presets.family_of(source).load()
    if not issubclass(model_class, LanguageModel):
        raise NaturelmError(
            f"{model}: is a classifier, whose weights are not quantised; give a language model"
        )
    model_class.quantize(model, out, weights, llm, merging_alpha)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{file_size(size)} written to {out}; use it with: naturelm infer SOUND --model {out}")
