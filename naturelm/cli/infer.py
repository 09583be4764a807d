"""`naturelm infer`: ask a few recordings a question, without a job."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load
from naturelm.errors import NaturelmError
from naturelm.text import printable

if TYPE_CHECKING:
    from naturelm.recordings import FoundFile


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--query", required=True, metavar="TEXT", help="Question for every window.")
@click.option(
    "--window-length-seconds", "--window", "window", type=float, help="Window length [default: 10]."
)
@click.option(
    "--hop-length-seconds",
    "--hop",
    "hop",
    type=float,
    help="Seconds between window starts [default: window].",
)
@click.option(
    "--output-path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="Also write the answers to this file, one JSON object per window.",
)
@click.option("--model", help="Bundled model, checkpoint directory or hub id [default: pocket].")
@click.option("--llm", help="Base LLM, a directory or hub id [default: what the checkpoint names].")
@click.option("--merging-alpha", type=float, help="LoRA weight, 0 to 1 [default: 1].")
@click.option("--max-new-tokens", type=int, help="Longest answer in tokens [default: 64].")
@click.option("--num-beams", type=int, help="Beams of the search; 1 is greedy [default: 1].")
@click.option("--device", help="Where to run, such as cpu or cuda:1 [default: the GPU, if there is one].")
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings in YAML, as `naturelm process` reads."
)
def infer(
    paths: tuple[Path, ...],
    query: str,
    window: float | None,
    hop: float | None,
    output_path: Path | None,
    model: str | None,
    llm: str | None,
    merging_alpha: float | None,
    max_new_tokens: int | None,
    num_beams: int | None,
    device: str | None,
    config: Path | None,
) -> None:
    """Ask a question about every window of a few recordings; print one line per window.

    PATHs are recordings, or directories of them. A recording that cannot be decoded is reported on
    standard error, and the others are answered all the same.
    """
    if not query.strip():
        raise NaturelmError("--query has no text; ask something, such as 'Which species are in the audio?'")
    settings = load(
        config,
        {
            "model": {"name": model, "llm": llm, "merging_alpha": merging_alpha},
            "queries": [{"id": "query", "prompt": query}],
            "windows": {"length_s": window, "hop_s": window if hop is None and config is None else hop},
            "generation": {"max_new_tokens": max_new_tokens, "num_beams": num_beams},
        },
    )

    from naturelm.recordings import find_audio

    found = find_audio(paths).files
    if not found:
        raise NaturelmError(f"{paths[0]}: holds no recordings; give a directory or file that does")
    with ExitStack() as stack:
        output = _open_output(output_path, stack)
        pipeline = _pipeline(settings, device)
        answered_any = False
        for file in found:
            answered_any |= _ask(pipeline, file, settings, output)
    if not answered_any:
        sys.exit(1)


def _open_output(path: Path | None, stack: ExitStack) -> IO[str] | None:
    if path is None:
        return None
    try:
        return stack.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        raise NaturelmError(
            f"{path}: cannot be written ({error.strerror}); give another --output-path"
        ) from None


def _pipeline(settings: ArchiveConfig, device: str | None) -> Any:
    import torch

    from naturelm.infer import Pipeline
    from naturelm.models import NatureLM

    chosen = settings.model
    model = NatureLM.from_pretrained(
        chosen.name,
        llm=chosen.llm,
        device=device,
        dtype=None if chosen.dtype == "auto" else getattr(torch, chosen.dtype),
        merging_alpha=chosen.merging_alpha,
    )
    generation = settings.generation
    return Pipeline(
        model, generation.max_new_tokens, generation.num_beams, batch_size=settings.job.batch_size
    )


def _ask(pipeline: Any, file: FoundFile, settings: ArchiveConfig, output: IO[str] | None) -> bool:
    """Ask about one recording; whether there was any answer."""
    from naturelm.audio.streaming import DecodeError
    from naturelm.recordings import MINIMUM_S, probe

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
    # A rest too short for a window is no damage.
    elif claimed_s - end_s > MINIMUM_S:
        click.echo(printable(f"{name}: ends at {end_s:.1f} s, its header claims {claimed_s:.1f} s"), err=True)
    elif end_s == 0:
        click.echo(printable(f"{name}: holds less than {MINIMUM_S:g} s of sound, so no window"), err=True)
    return end_s > 0
