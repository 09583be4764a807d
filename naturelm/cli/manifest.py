"""`naturelm manifest`: questions to train on, from labelled recordings; or check a manifest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from naturelm.cli._types import FiniteRange
from naturelm.training.tasks import QUESTIONS


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Manifest to write: .jsonl, .json or .parquet; with --to shards, a new directory.",
)  # fmt: skip
@click.option(
    "--to", "form", type=click.Choice(["manifest", "shards"]), default="manifest", show_default=True,
    help="What to write: a manifest, or Parquet shards that hold the sound as well.",
)  # fmt: skip
@click.option(
    "--audio", type=click.Path(path_type=Path),
    help="Directory of the recordings that a CSV lists.  [default: beside it, or in audio/ there]",
)  # fmt: skip
@click.option(
    "--prompts", type=click.Path(path_type=Path),
    help="JSON file with a list of prompts for each task, for a manifest as SOURCE whose rows have none.",
)  # fmt: skip
@click.option(
    "--where", multiple=True, metavar="COLUMN=VALUE[,VALUE]",
    help="Rows of a CSV to take, such as fold=1,2,3,4; may be repeated.",
)  # fmt: skip
@click.option(
    "--ask", "kinds", multiple=True, type=click.Choice(QUESTIONS),
    help="A kind of question; may be repeated.  [default: all that the columns answer]",
)  # fmt: skip
@click.option(
    "--options",
    default=4,
    show_default=True,
    type=click.IntRange(2, 100),
    help="Options of a closed question.",
)
@click.option(
    "--none-share", default=0.25, show_default=True, type=FiniteRange(0, 1),
    help="Share of closed questions without the right option, answered by None.",
)  # fmt: skip
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seed of the random choice of options.",
)
def manifest(
    source: Path,
    out: Path | None,
    form: str,
    audio: Path | None,
    prompts: Path | None,
    where: tuple[str, ...],
    kinds: tuple[str, ...],
    options: int,
    none_share: float,
    seed: int,
) -> None:
    """Write questions to train on about the labelled recordings in SOURCE.

    SOURCE is a directory with a folder of recordings for each label, or a CSV with columns such as filename and
    category (or common_name, scientific_name, life_stage, call_type, caption). `None` is the label of recordings
    without any; several labels are separated by semicolons.

    Of a manifest as SOURCE every row is checked; with --out it is also written in the other format, or with --to shards
    packed into shards for data.shards.
    """
    from naturelm.errors import NaturelmError
    from naturelm.training.labelled import manifest_rows, read_folder, read_label_table
    from naturelm.training.manifest import FORMATS, read_manifest, relative_rows, write_manifest
    from naturelm.training.prompt_lists import read_prompt_lists

    lists = None if prompts is None else read_prompt_lists(prompts)
    if form == "shards":
        from naturelm.training.packing import write_shards

        if source.suffix not in FORMATS:
            raise NaturelmError(
                f"{source}: --to shards packs a manifest ({', '.join(FORMATS)}); write that first"
            )
        if out is None:
            raise NaturelmError("--out is missing; name the directory to write")
        examples = read_manifest(source, lists)
        shards = write_shards(examples, out, source.stem)
        click.echo(f"{out}: {len(examples)} questions in {len(shards)} shards")
        return
    if source.suffix in FORMATS:
        examples = read_manifest(source, lists)
        rows = relative_rows(examples, out.parent) if out else []
        tasks = Counter(example.task for example in examples)
    else:
        if out is None:
            raise NaturelmError("--out is missing; name the manifest to write")
        filters = dict(_filter(text) for text in where)
        labelled = read_folder(source) if source.is_dir() else read_label_table(source, audio, filters)
        rows = manifest_rows(labelled, kinds or QUESTIONS, options, none_share, seed, out.parent)
        tasks = Counter(row["task"] for row in rows)
    if out:
        write_manifest(out, rows)
    for task, count in sorted(tasks.items()):
        click.echo(f"{count:>8}  {task}")
    click.echo(f"{out or source}: {tasks.total()} questions" + ("" if out else ", all rows are valid"))


def _filter(text: str) -> tuple[str, frozenset[str]]:
    from naturelm.errors import NaturelmError

    column, equals, values = text.partition("=")
    if not equals or not column.strip():
        raise NaturelmError(f"--where is {text!r}; give COLUMN=VALUE, such as fold=1,2,3,4")
    return column.strip(), frozenset(value.strip() for value in values.split(","))
