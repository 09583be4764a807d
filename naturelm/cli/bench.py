"""`naturelm bench`: measure the engine, the whole job, and decoding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naturelm.cli._options import format_option, weights_option
from naturelm.cli._types import FiniteRange
from naturelm.errors import NaturelmError
from naturelm.text import duration

if TYPE_CHECKING:
    from naturelm.models.base import LanguageModel

PATHS = click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)


@click.group()
def bench() -> None:
    """Measure the engine, the pipeline and decoding on this machine."""


@bench.command()
@click.option("--model", default="pocket", show_default=True, help="Preset, checkpoint directory or hub id.")
@click.option("--random-weights", is_flag=True, help="naturelm-8b's shapes without its weights: no download.")
@click.option(
    "--llm-layers", default=32, show_default=True, help="With --random-weights: fewer, to fit memory."
)
@click.option("--queries", default=1, show_default=True, type=click.IntRange(0, 8), help="Free-text queries.")
@click.option(
    "--labels", default=0, show_default=True, help="Also a query with a closed list of so many labels."
)
@click.option(
    "--max-new-tokens", default=8, show_default=True, type=click.IntRange(1), help="Tokens of an answer."
)
@click.option(
    "--num-beams", default=1, show_default=True, type=click.IntRange(1), help="Beams of the search."
)
@click.option("--windows", default=64, show_default=True, type=click.IntRange(1), help="Windows in each run.")
@click.option("--batch-size", type=click.IntRange(1), help="Windows at once; found by itself by default.")
@click.option(
    "--against", type=click.Choice(["plain"]), help="Also answer one at a time, and print the ratio."
)
@click.option("--plain-windows", default=4, show_default=True, help="With --against plain: so many windows.")
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(1), help="Runs; medians are shown."
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; PyTorch's choice by default.")
@click.option("--device", help="cuda or cpu; the GPU where there is one by default.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="bfloat16 on a GPU by default.")
@weights_option
@format_option("table", "json")
def engine(
    model: str,
    random_weights: bool,
    llm_layers: int,
    queries: int,
    labels: int,
    max_new_tokens: int,
    num_beams: int,
    windows: int,
    batch_size: int | None,
    against: str | None,
    plain_windows: int,
    repeats: int,
    threads: int | None,
    device: str | None,
    dtype: str | None,
    weights: str | None,
    form: str,
) -> None:
    """Measure the model alone: windows of made-up sound that are already in memory, to answers."""
    from naturelm.bench import inference as measure
    from naturelm.engine.queries import EngineQuery
    from naturelm.synthetic.stand_ins import QUESTIONS, made_up_labels

    loaded = _load(model, random_weights, llm_layers, threads, device, dtype, weights or "auto")
    chosen = [EngineQuery(prompt, max_new_tokens) for prompt in QUESTIONS[:queries]]
    if labels:
        chosen.append(EngineQuery(QUESTIONS[2], max_new_tokens, labels=made_up_labels(labels)))
    if not chosen:
        raise NaturelmError("there is no query to run; give --queries or --labels")
    result = measure.bench_engine(
        loaded,
        chosen,
        windows,
        batch_size=batch_size,
        num_beams=num_beams,
        plain_windows=min(plain_windows, windows) if against == "plain" else 0,
        repeats=repeats,
    )
    _show(result, _engine_lines(result), form)


@bench.command()
@click.option("--windows", default=4, show_default=True, type=click.IntRange(1), help="Windows at once.")
@click.option("--model", default="pocket", show_default=True, help="Preset, checkpoint directory or hub id.")
@click.option("--random-weights", is_flag=True, help="naturelm-8b's shapes without its weights: no download.")
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(1), help="Runs; medians are shown."
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; PyTorch's choice by default.")
@click.option("--device", help="cuda or cpu; the GPU where there is one by default.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="bfloat16 on a GPU by default.")
@format_option("table", "json")
def encode(
    windows: int,
    model: str,
    random_weights: bool,
    repeats: int,
    threads: int | None,
    device: str | None,
    dtype: str | None,
    form: str,
) -> None:
    """Measure the audio branch against the layout of the published code."""
    from naturelm.bench import inference as measure

    loaded = _load(model, random_weights, 1, threads, device, dtype)
    result = measure.bench_encode(loaded, windows, repeats)
    seconds, cpu_seconds = result["seconds_per_window"], result["processor_seconds_per_window"]
    lines = [
        (
            name.replace("_", " "),
            f"{seconds[name]:.4f} s per window, {cpu_seconds[name]:.4f} s of processor time",
        )
        for name in seconds
    ]
    lines.append(
        (
            "published / engine",
            f"{result['ratio']:.2f} × by the clock, {result['processor_ratio']:.2f} × by processor time",
        )
    )
    lines.append(("relative difference", f"{result['largest_relative_difference']:.1e}"))
    _show(result, lines, form)


@bench.command()
@click.option("--model", default="pocket", show_default=True, help="Preset, checkpoint directory or hub id.")
@click.option("--random-weights", is_flag=True, help="naturelm-8b's shapes without its weights: no download.")
@click.option(
    "--llm-layers", default=32, show_default=True, help="With --random-weights: fewer, to fit memory."
)
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1), help="Examples of a step.")
@click.option("--micro-batch", type=click.IntRange(1), help="Examples at once; all of a step by default.")
@click.option(
    "--steps", default=5, show_default=True, type=click.IntRange(1), help="Steps that are measured."
)
@click.option("--activation-checkpointing", is_flag=True, help="Less memory, a third more time.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; PyTorch's choice by default.")
@click.option("--device", help="cuda or cpu; the GPU where there is one by default.")
@format_option("table", "json")
def train(threads: int | None, form: str, **options: Any) -> None:
    """Measure training steps: sound in memory to updated weights, on one worker."""
    import torch

    from naturelm.bench.training import bench_train

    if threads:
        torch.set_num_threads(threads)
    result = bench_train(**options)
    trained, whole = result["parameters_trained"] / 1e6, result["parameters"] / 1e6
    lines = [
        ("device", result["device"]),
        ("weights trained", f"{trained:.1f} of {whole:.1f} million"),
        ("seconds per step", f"{result['seconds_per_step']:.3f} ({result['batch']} examples)"),
        ("examples per second", f"{result['examples_per_s']:.1f}"),
        ("LLM positions per second", f"{result['positions_per_s']:.0f}"),
        ("peak memory", f"{result['peak_memory_gb']:.2f} GB"),
    ]
    _show(result, lines, form)


@bench.command()
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Directory for gpu.json and gpu.md."
)
@click.option(
    "--minutes",
    default=4.0,
    show_default=True,
    type=FiniteRange(0, min_open=True),
    help="A part begins only if it should end within so many.",
)
@click.option(
    "--model",
    "model_name",
    default="naturelm-8b",
    show_default=True,
    help="naturelm-8b: random weights, made on the GPU. Or a preset or directory with its own.",
)
@click.option("--llm-layers", default=32, show_default=True, help="Of naturelm-8b: fewer, to fit memory.")
@click.option(
    "--windows", default=1024, show_default=True, type=click.IntRange(1), help="Windows in the longest run."
)
@click.option("--only", multiple=True, help="Run this part alone; may be repeated.")
@click.option("--device", help="cpu tries the command out where there is no GPU.")
def gpu(out: Path, **options: Any) -> None:
    """Measure one GPU in a few minutes: the engine, small cards, training; every GPU path is checked first."""
    from naturelm.bench.gpu import bench_gpu, failures

    results = bench_gpu(out, report=click.echo, **options)
    failed = failures(results)
    click.echo(f"wrote {out / 'gpu.json'} and {out / 'gpu.md'}")
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}; {out / 'gpu.json'} has the reasons")


@bench.command()
@PATHS
@click.option("--config", type=click.Path(path_type=Path), help="Settings, as for `naturelm process`.")
@click.option("--model", help="Preset, checkpoint directory or hub id.")
@click.option("--workers", type=click.IntRange(0), help="Model actors; 0: all in this process.")
@click.option("--batch-size", type=click.IntRange(1), help="Windows at once.")
@format_option("table", "json")
def pipeline(
    paths: Sequence[Path],
    config: Path | None,
    model: str | None,
    workers: int | None,
    batch_size: int | None,
    form: str,
) -> None:
    """Measure the whole job, recordings to tables; the tables are thrown away."""
    from naturelm.bench import inference as measure
    from naturelm.config.loading import load_archive_config

    settings = load_archive_config(
        config, {"model": {"name": model}, "job": {"workers": workers, "batch_size": batch_size}}
    )
    result = measure.bench_pipeline(paths, settings)
    lines = [
        ("windows", f"{result['windows']} ({duration(result['sound_s'])} of sound)"),
        ("windows per second", f"{result['windows_per_s']:.1f}"),
        ("× real time", f"{result['times_real_time']:.0f}"),
        ("with start-up", f"{result['times_real_time_with_start']:.0f} × ({result['wall_s']:.1f} s in all)"),
        ("peak memory", f"{result['peak_memory_gb']:.2f} GB (this process)"),
    ]
    _show(result, lines, form)


@bench.command()
@PATHS
@format_option("table", "json")
def decode(paths: Sequence[Path], form: str) -> None:
    """Measure decoding and resampling, files to 16 kHz, on one thread."""
    from naturelm.bench import inference as measure

    result = measure.bench_decode(paths)
    lines = [
        (
            kind,
            f"{one['times_real_time_per_core']:,.0f} × real time per core ({one['files']} files, {one['hours']:.2f} h)",
        )
        for kind, one in result["kinds"].items()
    ]
    lines.append(("not decoded", f"{result['not_ok']} files that are not ok"))
    lines.append(("peak memory", f"{result['peak_memory_gb']:.2f} GB"))
    _show(result, lines, form)


def _load(
    model: str,
    random_weights: bool,
    llm_layers: int,
    threads: int | None,
    device: str | None,
    dtype: str | None,
    weights: str = "auto",
) -> LanguageModel:
    import torch

    from naturelm.models import load_model
    from naturelm.models.base import require_language_model
    from naturelm.models.parts.linear import has_bfloat16
    from naturelm.models.parts.weights import as_stored
    from naturelm.synthetic.stand_ins import FULL_SIZE, random_full_size

    if random_weights and model != FULL_SIZE:
        raise NaturelmError(f"--random-weights has the shapes of {FULL_SIZE} only; add --model {FULL_SIZE}")
    if threads is not None:
        torch.set_num_threads(threads)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    given = None if dtype is None else getattr(torch, dtype)
    if random_weights:
        half = device.startswith("cuda") or (weights != "auto" and has_bfloat16())
        weights_dtype = as_stored(weights, given)[1] or (torch.bfloat16 if half else torch.float32)
        return random_full_size(device, weights_dtype, llm_layers, weights)
    return require_language_model(load_model(model, device=device, dtype=given, weights=weights))


def _engine_lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    machine, roofline = result["machine"], result["roofline"]
    device = (
        machine["device"]
        if machine["device"] != "cpu"
        else f"{machine['processor']}, {machine['threads']} threads"
    )
    lines = [
        ("device", f"{device}, {result['dtype']}, weights {result['weights']}, torch {machine['torch']}"),
        (
            "queries",
            f"{result['queries']} queries of {result['prompt_tokens']} tokens, beams {result['num_beams']}",
        ),
        (
            "answered",
            f"{result['tokens_answered']:.1f} tokens on average, at most {result['max_new_tokens']}",
        ),
        ("windows", f"{result['windows']} in batches of {result['batch_size']}"),
        ("windows per second", f"{result['windows_per_s']:.1f}"),
        ("× real time", f"{result['times_real_time']:.0f}"),
        ("one window alone", f"{result['latency_s'] * 1e3:.0f} ms"),
        ("peak memory", f"{result['peak_memory_gb']:.2f} GB"),
    ]
    for part, seconds in result["parts_s_per_window"].items():
        bound = roofline.get(f"{part}_s_per_window")
        least = f" (at the roofline {bound * 1e3:.3f})" if bound is not None else ""
        lines.append((f"  {part}", f"{seconds * 1e3:.3f} ms per window{least}"))
    lines.append(
        (
            "roofline",
            f"{roofline['windows_per_s']:.1f} windows per second; this is {roofline['share']:.0%} of it "
            f"({roofline['flops_per_s'] / 1e12:.2f} TFLOP/s, {roofline['bytes_per_s'] / 1e9:.0f} GB/s measured here)",
        )
    )
    if "plain" in result:
        plain = result["plain"]
        lines.append(
            ("plain", f"{plain['windows_per_s']:.2f} windows per second, over {plain['windows']} windows")
        )
        ratios = f"{plain['ratio']:.1f} × by the clock, {plain['processor_ratio']:.1f} × by processor time"
        lines.append(("engine / plain", ratios))
        difference = f"largest score difference among them {plain['largest_score_difference']:.1e}"
        lines.append(("same answers", f"{plain['same_answers']:.1%}; {difference}"))
    return lines


def _show(result: dict[str, Any], lines: Sequence[tuple[str, str]], form: str) -> None:
    if form == "json":
        click.echo(json.dumps(result, indent=2))
        return
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        click.echo(f"{name:<{width}}  {text}")


if __name__ == "__main__":
    bench()
