"""Measuring: the engine alone, the whole job, and decoding.

`bench_engine` runs where there are only torch, transformers, peft, numpy and safetensors; the others need the whole
package. Every function returns plain numbers, ready for JSON; `naturelm bench` prints them.
"""

from __future__ import annotations

import copy
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from naturelm.bench.baselines import answer_plainly
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery
from naturelm.errors import NaturelmError
from naturelm.models.parts.linear import linear, quicken
from naturelm.synthetic.stand_ins import made_up_windows

if TYPE_CHECKING:
    from naturelm.config.archive import ArchiveConfig
    from naturelm.models.answer import Answer
    from naturelm.models.base import LanguageModel

# -- the engine --------------------------------------------------------------------------------------------


def bench_engine(
    model: LanguageModel,
    queries: Sequence[EngineQuery],
    windows: int,
    batch_size: int | None = None,
    num_beams: int = 1,
    plain_windows: int = 0,
    repeats: int = 3,
    weights: str = "plain",
) -> dict[str, Any]:
    """Measure the engine on windows of made-up sound that are already in memory.

    Parameters
    ----------
    model : LanguageModel
        Whose engine to measure.
    queries : sequence of EngineQuery
        Queries for every window.
    windows : int
        How many windows a run answers.
    batch_size, num_beams, weights
        As for `Engine`.
    plain_windows : int
        Windows that are also answered the plain way, one at a time and query by query, in turns with the engine; 0
        for none.
    repeats : int
        Runs; medians are reported.

    Returns
    -------
    dict
        Rates, times in seconds, counts; see docs/explanation/engine.md.
    """
    device = model.device
    waveforms = made_up_windows(model, windows)
    few = waveforms[:plain_windows]
    answer_plainly(model, queries, num_beams, few[:1])  # warm-up

    engine = Engine(model, queries, num_beams=num_beams, batch_size=batch_size, weights=weights)
    first_tokens = copy.copy(engine)
    first_tokens.ask([replace(query, max_new_tokens=1) for query in queries])
    first_tokens.batch_size = engine.batch_size
    warm = waveforms[: engine.batch_size]
    engine.answer(warm)
    first_tokens.answer(warm)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def encode() -> None:
        with torch.inference_mode():
            for start in range(0, windows, engine.batch_size):
                engine.encode(torch.from_numpy(waveforms[start : start + engine.batch_size]))

    answers: list[list[Answer]] = []
    plain_answers: list[list[Answer]] = []
    times: dict[str, list[float]] = {
        name: [] for name in ("engine", "encode", "first_token", "plain", "host")
    }
    cpu_times: dict[str, list[float]] = {"engine": [], "plain": []}
    for _ in range(repeats):
        if plain_windows:
            _quicken_encoder(model, False)
            plain_answers = _timed(
                times["plain"],
                lambda: answer_plainly(model, queries, num_beams, few),
                device,
                cpu_times["plain"],
            )
            _quicken_encoder(model, True)
        answers = _timed(times["engine"], lambda: engine.answer(waveforms), device, cpu_times["engine"])
        _timed(times["first_token"], lambda: first_tokens.answer(waveforms), device)
        _timed(times["encode"], encode, device)
        _timed(times["host"], partial(_remake_answers, model, answers), device)
    latency: list[float] = []
    for _ in range(repeats + 1):
        _timed(latency, lambda: engine.answer(waveforms[:1]), device)
    median = {name: statistics.median(values) for name, values in times.items() if values}

    rate = windows / median["engine"]
    result: dict[str, Any] = {
        "machine": machine(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights": engine.decoder.kind.name,
        "queries": len(queries),
        "labels": [len(query.labels) for query in queries],
        "max_new_tokens": [query.max_new_tokens for query in queries],
        "tokens_answered": statistics.mean(len(answer.token_ids) for row in answers for answer in row),
        "prompt_tokens": [engine.prompt_tokens(query) for query in queries],
        "num_beams": num_beams,
        "windows": windows,
        "batch_size": engine.batch_size,
        "windows_per_s": rate,
        "times_real_time": rate * model.natural_window_s,
        "latency_s": statistics.median(latency[1:]),
        "peak_memory_gb": peak_memory_gb(device),
        "parts_s_per_window": {
            "encode": median["encode"] / windows,
            "prefill": (median["first_token"] - median["encode"]) / windows,
            "decode": (median["engine"] - median["first_token"] - median["host"]) / windows,
            "host": median["host"] / windows,
        },
        "runs_s": times,
    }
    result["roofline"] = _roofline(model, engine, answers, rate)
    if plain_windows:
        plain_rate = plain_windows / median["plain"]
        plain_cpu_s, cpu_s = statistics.median(cpu_times["plain"]), statistics.median(cpu_times["engine"])
        result["plain"] = {
            "windows": plain_windows,
            "windows_per_s": plain_rate,
            "ratio": rate / plain_rate,
            "processor_ratio": plain_cpu_s / plain_windows / (cpu_s / windows),
            **_agreement(answers, plain_answers),
        }
    return result


def _quicken_encoder(model: LanguageModel, on: bool) -> None:
    """Switch the engine's way of multiplying on or off in the parts that the plain path shares with it."""
    for module in model.audio_modules():
        quicken(module, on)


def _remake_answers(model: LanguageModel, answers: Sequence[Sequence[Answer]]) -> None:
    """Repeat what the host does with generated tokens."""
    for row in answers:
        for answer in row:
            model.make_answer(answer.token_ids, np.log(answer.token_scores).tolist())


def _agreement(ours: Sequence[Sequence[Answer]], theirs: Sequence[Sequence[Answer]]) -> dict[str, float]:
    pairs = [pair for rows in zip(ours, theirs, strict=False) for pair in zip(*rows, strict=True)]
    same = [a.token_ids == b.token_ids for a, b in pairs]
    differences = [abs(a.score - b.score) for (a, b), is_same in zip(pairs, same, strict=True) if is_same]
    return {
        "same_answers": statistics.mean(same),
        "largest_score_difference": max(differences, default=float("nan")),
    }


def _roofline(
    model: LanguageModel, engine: Any, answers: Sequence[Sequence[Answer]], rate: float
) -> dict[str, float]:
    """What the arithmetic and the memory of this device, both measured here, would allow."""
    decoder = engine.decoder
    flops_per_s, bytes_per_s = measure_peaks(decoder.device, decoder.dtype)
    head_flops = 2 * decoder.lm_head.numel()
    token_flops = 2 * decoder.matrix_numbers
    free = [query for query in engine.queries if not query.labels]
    rows = engine.batch_size * len(free) * engine.num_beams
    lengths = [
        len(answer.token_ids)
        for row in answers
        for answer, query in zip(row, engine.queries, strict=True)
        if not query.labels
    ]
    slots = max((engine.prompt_tokens(query) for query in free), default=0)
    step_s = max(
        rows * (token_flops + head_flops) / flops_per_s,
        (decoder.weight_bytes + rows * slots * decoder.kv_bytes) / bytes_per_s,
    )
    encode_s = encode_flops(model) / flops_per_s
    prefill_s = (engine.tokens_read * token_flops + len(engine.queries) * head_flops) / flops_per_s
    decode_s = max(0, max(lengths, default=0) - 1) * step_s / engine.batch_size
    bound = 1 / (encode_s + prefill_s + decode_s)
    return {
        "flops_per_s": flops_per_s,
        "bytes_per_s": bytes_per_s,
        "encode_s_per_window": encode_s,
        "prefill_s_per_window": prefill_s,
        "decode_s_per_window": decode_s,
        "windows_per_s": bound,
        "share": rate / bound,
    }


def encode_flops(model: LanguageModel) -> float:
    """Floating-point operations of encoding one window (matrix products and convolutions)."""
    waveform = torch.zeros(1, model.natural_window_samples, device=model.device)
    # With gradients the layers are PyTorch's own, whose operations the counter knows.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        model.encode_audio(waveform)
    return float(counter.get_total_flops())


def measure_peaks(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of a large matrix product and bytes/s of a large copy (read and write), on this device."""
    on_gpu = device.type == "cuda"
    size, elements = (8192, 1 << 30) if on_gpu else (1024, 1 << 26)
    with torch.inference_mode():
        a = torch.randn(size, size, device=device, dtype=dtype)
        source = torch.zeros(elements, device=device, dtype=torch.uint8)
        target = torch.empty_like(source)
        products: list[float] = []
        copies: list[float] = []
        for _ in range(6):
            _timed(products, lambda: linear(a, a), device)
            _timed(copies, lambda: target.copy_(source), device)
    return 2 * size**3 / min(products[1:]), 2 * elements / min(copies[1:])


# -- encoding ----------------------------------------------------------------------------------------------


def bench_encode(model: LanguageModel, windows: int, repeats: int = 3) -> dict[str, Any]:
    """Measure the audio branch: unchanged, as the engine runs it, and in the published layout, in turns.

    Parameters
    ----------
    model : LanguageModel
        Whose audio branch.
    windows : int
        Windows encoded at once.
    repeats : int
        Runs; medians are reported.

    Returns
    -------
    dict
        Seconds per window of each, by the clock and by processor time (which other programs disturb less), and how
        many times faster the engine's is than the published layout.
    """
    device = model.device
    waveforms_BS = torch.randn(windows, model.natural_window_samples, device=device) * 0.1
    ways: dict[str, tuple[bool, Callable[[], torch.Tensor]]] = {
        "published_layout": (False, lambda: model.encode_as_published(waveforms_BS)),
        "model": (False, lambda: model.encode_audio(waveforms_BS)),
        "engine": (True, lambda: model.encode_audio(waveforms_BS)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    cpu_times: dict[str, list[float]] = {name: [] for name in ways}
    outputs = {}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, (quick, way) in ways.items():
                _quicken_encoder(model, quick)
                outputs[name] = _timed(times[name], way, device, cpu_times[name])
    seconds = {name: statistics.median(values[1:]) / windows for name, values in times.items()}
    cpu_seconds = {name: statistics.median(values[1:]) / windows for name, values in cpu_times.items()}
    difference = (outputs["engine"] - outputs["published_layout"]).abs().max() / outputs["engine"].abs().max()
    return {
        "machine": machine(device),
        "windows": windows,
        "seconds_per_window": seconds,
        "processor_seconds_per_window": cpu_seconds,
        "ratio": seconds["published_layout"] / seconds["engine"],
        "processor_ratio": cpu_seconds["published_layout"] / cpu_seconds["engine"],
        "largest_relative_difference": float(difference),
        "runs_s": times,
        "peak_memory_gb": peak_memory_gb(device),
    }


# -- the job, and decoding ---------------------------------------------------------------------------------


def bench_pipeline(paths: Sequence[Path], config: ArchiveConfig) -> dict[str, Any]:
    """Run the archive job on recordings into a temporary directory.

    Parameters
    ----------
    paths : sequence of Path
        Recordings and directories.
    config : ArchiveConfig
        As for `naturelm process`.

    Returns
    -------
    dict
        `windows_per_s` counts from the first segment committed to the last: start-up happens once a night. `wall_s`
        includes everything.
    """
    from naturelm.archive.figures import Counts
    from naturelm.archive.job import process_archive
    from naturelm.archive.progress import Progress

    class Stopwatch(Progress):
        marks: list[tuple[float, int]]

        def update(self, counts: Counts) -> None:
            super().update(counts)
            self.marks.append((time.perf_counter(), counts.windows))

    progress = Stopwatch()
    progress.marks = []
    with TemporaryDirectory(prefix="naturelm-bench-") as out:
        counts = process_archive(paths, Path(out) / "tables", config, progress)
    (first_s, first_windows), (last_s, last_windows) = progress.marks[0], progress.marks[-1]
    rate = (last_windows - first_windows) / (last_s - first_s) if last_s > first_s else float("nan")
    return {
        "machine": machine(),
        "recordings": dict(counts.recordings),
        "windows": counts.windows,
        "sound_s": counts.sound_s,
        "wall_s": counts.wall_s,
        "windows_per_s": rate,
        "times_real_time": rate * config.windows.hop_s,
        "times_real_time_with_start": counts.times_real_time,
        "peak_memory_gb": peak_memory_gb(),
    }


def bench_decode(paths: Sequence[Path]) -> dict[str, Any]:
    """Decode and resample recordings as the job does, on one thread, and discard the sound.

    Parameters
    ----------
    paths : sequence of Path
        Recordings and directories.

    Returns
    -------
    dict
        For each format and sample rate: files, hours, × real time per core (by processor time) and by the clock.
    """
    from naturelm.audio.streaming import decode
    from naturelm.recordings import scan
    from naturelm.windows import SAMPLE_RATE_HZ

    kinds: dict[str, list[float]] = {}
    failed = 0
    for recording in scan(list(paths)):
        if not recording.has_sound:
            failed += 1
            continue
        kind = f"{recording.format} {recording.sample_rate_hz} Hz × {recording.channels}"
        totals = kinds.setdefault(kind, [0.0, 0.0, 0.0, 0.0])
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        samples = sum(len(block) for block in decode(recording.absolute_path))
        totals[0] += 1
        totals[1] += samples / SAMPLE_RATE_HZ
        totals[2] += time.process_time() - cpu_s
        totals[3] += time.perf_counter() - wall_s
    return {
        "machine": machine(),
        "kinds": {
            kind: {
                "files": int(files),
                "hours": sound_s / 3600,
                "times_real_time_per_core": sound_s / cpu_s,
                "times_real_time": sound_s / wall_s,
            }
            for kind, (files, sound_s, cpu_s, wall_s) in sorted(kinds.items())
        },
        "not_ok": failed,
        "peak_memory_gb": peak_memory_gb(),
    }


# -- helpers ------------------------------------------------------------------------------------------------


def _timed(
    times: list[float], run: Callable[[], Any], device: torch.device, cpu_times: list[float] | None = None
) -> Any:
    """Run and record the seconds it took; on a GPU until its work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start, cpu_start = time.perf_counter(), time.process_time()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    times.append(time.perf_counter() - start)
    if cpu_times is not None:
        cpu_times.append(time.process_time() - cpu_start)
    return result


def median_s(run: Callable[[], Any], device: torch.device, runs: int = 3) -> float:
    """Median seconds of a function, which has run once before."""
    times: list[float] = []
    for _ in range(runs + 1):
        _timed(times, run, device)
    return statistics.median(times[1:])


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """The hardware and versions that a number was measured with."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    if device is not None:
        found["torch"] = torch.__version__
        found["threads"] = torch.get_num_threads()
        found["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def peak_memory_gb(device: torch.device | None = None) -> float:
    """Most memory held so far, in 10^9 bytes: the GPU's where there is one, else this process's."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        raise NaturelmError("benchmarks need a system that reports a process's memory: Linux, macOS or WSL")
    import resource

    # Kilobytes, except on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
