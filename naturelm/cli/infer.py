"""`naturelm infer`: a query on a few recordings, without a job."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from naturelm.cli._options import (
    SectionedCommand,
    config_option,
    hop_option,
    llm_option,
    merging_alpha_option,
    model_option,
    part_option,
    weights_option,
    window_option,
)
from naturelm.cli._settings import archive_config
from naturelm.cli._types import LOCATION
from naturelm.config.archive import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.storage import Location
from naturelm.text import printable

if TYPE_CHECKING:
    from naturelm.recordings import FoundFile


@click.command(
    cls=SectionedCommand,
    sections={
        "Output": ["out"],
        "Model and query": [
            *("query", "model", "llm", "parts", "merging_alpha", "weights"),
            *("window", "hop", "config"),
        ],
        "Generation": ["max_new_tokens", "num_beams", "device"],
    },
)
@click.argument("paths", nargs=-1, required=True, type=LOCATION, metavar="PATH...")
@click.option("--query", required=True, metavar="TEXT", help="Prompt for every window.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="Also write the answers to this file, one JSON object per window.",
)
@model_option
@llm_option
@part_option
@merging_alpha_option
@weights_option
@window_option
@hop_option
@click.option(
    "--max-new-tokens", type=int, metavar="N", help="Maximum length of an answer in tokens.  [default: 64]"
)
@click.option("--num-beams", type=int, metavar="N", help="Beams of the search; 1 is greedy.  [default: 1]")
@click.option(
    "--device",
    metavar="DEVICE",
    help="Device to run on, such as cpu or cuda:1.  [default: the GPU, if there is one]",
)
@config_option
def infer(
    paths: tuple[Location, ...], query: str, out: Path | None, device: str | None, **given: Any
) -> None:
    """Run a query on every window of a few recordings; print one line per window.

    PATHs are recordings, or directories of recordings, on disks or in object stores (s3://bucket/prefix,
    gs://bucket/prefix). A recording that cannot be decoded is reported on standard error; the others are processed.
    """
    settings = archive_config(queries=(query,), **given)

    from naturelm.archive.model_queries import check_places
    from naturelm.models.presets import check_local, resolve
    from naturelm.recordings import find_audio

    check_local(resolve(settings.model.name), settings.windows.length_s)
    check_places(settings)

    found = find_audio(paths).files
    if not found:
        where = ", ".join(str(path) for path in paths)
        raise NaturelmError(
            f"{where}: no recordings found; give a directory or file with WAV, FLAC, MP3 or the like"
        )
    with ExitStack() as stack:
        output = _open_output(out, stack)
        pipeline = _pipeline(settings, device)
        answered_any = False
        for file in found:
            answered_any |= _answer(pipeline, file, settings, output)
    if not answered_any:
        sys.exit(1)


def _open_output(path: Path | None, stack: ExitStack) -> IO[str] | None:
    if path is None:
        return None
    try:
        return stack.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        raise NaturelmError(f"{path}: cannot be written ({error.strerror}); give another --out") from None


def _pipeline(settings: ArchiveConfig, device: str | None) -> Any:
    import torch

    from naturelm.archive.fitting import with_fitting_weights
    from naturelm.infer import Pipeline
    from naturelm.models import load_model

    chosen = with_fitting_weights(settings.model, device)
    model = load_model(
        chosen.name,
        llm=chosen.llm,
        device=device,
        dtype=None if chosen.dtype == "auto" else getattr(torch, chosen.dtype),
        merging_alpha=chosen.merging_alpha,
        weights=chosen.weights,
        **chosen.part_files,
    )
    generation = settings.generation
    return Pipeline(
        model, generation.max_new_tokens, batch_size=settings.job.batch_size, **generation.search()
    )


def _answer(pipeline: Any, file: FoundFile, settings: ArchiveConfig, output: IO[str] | None) -> bool:
    """Answer the query for one recording; whether there was any answer."""
    from naturelm.audio.streaming import DecodeError
    from naturelm.recordings import probe
    from naturelm.windows import MIN_NEW_S

    path, name = file.absolute, file.relative_path
    query, windows = settings.queries[0].prompt, settings.windows
    end_s = 0.0
    try:
        for answered in pipeline.answers(path, query, windows.length_s, windows.hop_s):
            end_s = answered.window.end_s
            click.echo(printable(f"{name} {answered}"))
            if output is not None:
                row = {
                    "path": str(path),
                    "start_s": answered.window.start_s,
                    "end_s": answered.window.end_s,
                    "query": query,
                    "text": answered.answer.text,
                    "score": round(answered.answer.score, 4),
                }
                print(json.dumps(row), file=output, flush=True)
    except DecodeError as error:
        click.echo(printable(str(error)), err=True)
        return end_s > 0
    recording = probe(file)
    claimed_s = recording.duration_s or 0.0
    if recording.status == "partial":
        click.echo(printable(f"{name}: {recording.error}"), err=True)
    # A remainder too short for a window is not damage.
    elif claimed_s - end_s > MIN_NEW_S:
        click.echo(printable(f"{name}: ends at {end_s:.1f} s, its header claims {claimed_s:.1f} s"), err=True)
    elif end_s == 0:
        click.echo(printable(f"{name}: contains less than {MIN_NEW_S:g} s of sound, so no window"), err=True)
    return end_s > 0
