"""`naturelm bench gpu`: what one GPU does, in a few minutes, the most important first.

It needs torch, transformers, peft, safetensors, numpy and click; the archive job and training are measured where their
libraries are there too. What only a GPU runs is checked against the plain path before anything is measured. Every part
is guarded and timed: one that fails is reported, and the others run.
"""

from __future__ import annotations

import gc
import json
import time
import traceback
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from naturelm.bench.gpu_checks import CHECKS
from naturelm.bench.inference import bench_engine, machine, measure_peaks, median_s
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery
from naturelm.errors import NaturelmError, first_line
from naturelm.models import load_model
from naturelm.models.base import require_language_model
from naturelm.models.parts.compiled import compile_seconds, plain_functions
from naturelm.synthetic.sounds import background, owl
from naturelm.synthetic.stand_ins import (
    FULL_SIZE,
    QUESTIONS,
    made_up_labels,
    made_up_windows,
    random_full_size,
)
from naturelm.windows import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from naturelm.models.base import LanguageModel

# As an archive job asks them by default: the most tokens of the two answers.
_SHIPPED = (EngineQuery(QUESTIONS[0], 32), EngineQuery(QUESTIONS[1], 40))
# Windows are encoded so many at a time here: as one batch of a whole card.
_ENCODED = 256
# Another program holds the memory for so long.
_HELD_S = 6.0
# What stays free then: less than any batch needs.
_LEFT_BYTES = 32 << 20


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes
    ----------
    name : str
        As in the results.
    expected_s : float
        What it takes on an H100; it is left out where less time remains.
    run : callable
        Returns plain numbers, ready for JSON.
    line : callable
        What is printed of them.
    needs_gpu : bool
        It means nothing on a CPU.
    """

    name: str
    expected_s: float
    run: Callable[[], dict[str, Any]]
    line: Callable[[dict[str, Any]], str]
    needs_gpu: bool = False


class GpuBench:
    """The parts, and the model that they share.

    Parameters
    ----------
    model_name : str
        ``naturelm-8b`` with random weights, made on the device; or a preset or directory with its own.
    device : torch.device
        Where to measure. On a CPU, parts that mean nothing there are left out.
    llm_layers : int
        Of ``naturelm-8b``; fewer than 32 where the memory is small.
    windows : int
        In the longest run.
    """

    def __init__(self, model_name: str, device: torch.device, llm_layers: int, windows: int) -> None:
        self.model_name, self.device, self.llm_layers, self.windows = model_name, device, llm_layers, windows
        self._model: LanguageModel | None = None

    @property
    def model(self) -> LanguageModel:
        if self._model is None:
            raise NaturelmError("there is no model, since making it failed")
        return self._model

    def parts(self) -> list[Part]:
        """All parts, the most important first; those that change or free the model are last."""

        def engine(name: str, expected_s: float, queries: Sequence[EngineQuery], **options: Any) -> Part:
            return Part(name, expected_s, lambda: self.engine(queries, **options), _engine_line)

        same = [EngineQuery(question, 8) for question in QUESTIONS]
        labels = EngineQuery(QUESTIONS[2], labels=made_up_labels(200))
        few, some = max(1, self.windows // 8), max(1, self.windows // 2)
        return [
            Part("model", 15, self.make_model, lambda r: f"made in {r['seconds']:.1f} s, {r['gb']:.1f} GB"),
            Part("peaks", 2, self.peaks, lambda r: f"{r['tflops']:.0f} TFLOP/s, {r['tb_per_s']:.2f} TB/s"),
            Part("checks", 40, self.checks, _checks_line),
            Part("encode", 5, self.encode, _encode_line),
            engine("1 query, 8 tokens", 12, same[:1], repeats=2),
            engine("4 queries, 8 tokens", 15, same[:4], windows=some),
            engine("2 queries as shipped", 15, _SHIPPED, windows=some),
            Part("profile", 10, self.profile, _profile_line),
            Part("24 GB", 10, lambda: self.small_card(24), _card_line, needs_gpu=True),
            Part("20 GB", 10, lambda: self.small_card(20), _card_line, needs_gpu=True),
            Part("memory held by another", 20, self.memory_held, _held_line, needs_gpu=True),
            engine("200 labels", 12, [labels], windows=few),
            engine("200 labels, peaked", 6, [labels], windows=few, sharpen=8.0),
            Part("FP8: 1 query, 8 tokens", 15, self.fp8, _engine_line, needs_gpu=True),
            engine("1 query, 30 tokens", 12, [EngineQuery(QUESTIONS[1], 30)], windows=some),
            engine("1 query, 2 beams", 10, same[:1], num_beams=2, windows=some),
            Part("FP8: 12 GB", 10, lambda: self.small_card(12, "fp8"), _card_line, needs_gpu=True),
            Part("job, pocket", 20, self.job, lambda r: f"{r['windows_per_s']:.0f} windows/s"),
            Part("training", 25, self.training, lambda r: f"{r['examples_per_s']:.0f} examples/s"),
        ]

    # -- the parts ---------------------------------------------------------------------------------------------

    def make_model(self) -> dict[str, Any]:
        """The model, its adapters merged for good: every engine here shares its weights."""
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        start = time.perf_counter()
        if self.model_name == FULL_SIZE:
            model = random_full_size(str(self.device), dtype, self.llm_layers)
        else:
            model = require_language_model(load_model(self.model_name, device=self.device, dtype=dtype))
        model.merge_adapters()
        seconds = time.perf_counter() - start
        self._model = model
        gigabytes = sum(parameter.nbytes for parameter in model.parameters()) / 1e9
        return {"model": self.model_name, "seconds": seconds, "gb": gigabytes, **machine(self.device)}

    def peaks(self) -> dict[str, Any]:
        flops_per_s, bytes_per_s = measure_peaks(self.device, self.model.dtype)
        return {"tflops": flops_per_s / 1e12, "tb_per_s": bytes_per_s / 1e12}

    def checks(self) -> dict[str, Any]:
        """Each way that only a GPU takes, against the plain one."""
        results: dict[str, Any] = {}
        for check in CHECKS:
            try:
                results[check.__name__] = check(self.device, self.device.type == "cuda")
            except Exception as error:  # one that cannot run must not hide the others
                results[check.__name__] = {
                    "ok": False,
                    "error": f"{type(error).__name__}: {first_line(error)}",
                }
        return {"checks": results, "compile_s": compile_seconds()}

    def encode(self) -> dict[str, Any]:
        """The audio branch alone: as the engine runs it, uncompiled, and its parts."""
        count = min(self.windows, _ENCODED)
        engine = Engine(self.model, [EngineQuery(QUESTIONS[0], 1)], batch_size=count)
        waveforms_BS = torch.from_numpy(made_up_windows(self.model, count)).to(self.device)

        def milliseconds(run: Callable[[], Any]) -> float:
            return median_s(run, self.device) / count * 1e3

        with torch.inference_mode():
            result = {
                "windows": count,
                "ms_per_window": milliseconds(lambda: engine.encode(waveforms_BS)),
            }
            with plain_functions():
                result["plain_ms_per_window"] = milliseconds(lambda: engine.encode(waveforms_BS))
        return result

    def engine(
        self,
        queries: Sequence[EngineQuery],
        windows: int | None = None,
        num_beams: int = 1,
        repeats: int = 1,
        weights: str = "plain",
        sharpen: float = 1.0,
    ) -> dict[str, Any]:
        """`bench_engine`; with `sharpen` the logits are so many times larger, as peaked as a trained model's."""
        head = self.model.merged_language_model().get_output_embeddings().weight.data
        with _scaled(head, sharpen):
            return bench_engine(
                self.model,
                queries,
                windows or self.windows,
                num_beams=num_beams,
                repeats=repeats,
                weights=weights,
            )

    def fp8(self) -> dict[str, Any]:
        return self.engine([EngineQuery(QUESTIONS[0], 8)], weights="fp8")

    def profile(self) -> dict[str, Any]:
        """Where the time of one batch goes, kernel by kernel."""
        from torch.profiler import ProfilerActivity, profile

        on_gpu = self.device.type == "cuda"
        engine = Engine(self.model, [EngineQuery(QUESTIONS[0], 8)])
        waveforms = made_up_windows(self.model, min(self.windows, engine.batch_size))
        engine.answer(waveforms)
        activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
        with profile(activities=[activity]) as profiler:
            engine.answer(waveforms)
            if on_gpu:
                torch.cuda.synchronize(self.device)
        kernels = [
            {
                "name": event.key[:120],
                "calls": event.count,
                "ms": (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3,
            }
            for event in profiler.key_averages()
        ]
        kernels.sort(key=lambda kernel: -kernel["ms"])
        return {"windows": len(waveforms), "kernels": kernels[:40], "ms": sum(k["ms"] for k in kernels)}

    def small_card(self, gigabytes: float, weights: str = "plain") -> dict[str, Any]:
        """The shipped queries on a card of so many 10^9 bytes, the rest of this one being occupied.

        Other weights than plain ones take the model's place, which is of no use after it.
        """
        engine = None
        if weights != "plain":
            # Made while there is room: a job loads such weights from files that are already so small.
            engine = Engine(self.model, _SHIPPED, weights=weights, take_weights=True)
            self._model = None
        held = _occupy(gigabytes * 1e9, self.device)
        try:
            torch.cuda.reset_peak_memory_stats(self.device)
            if engine is None:
                engine = Engine(self.model, _SHIPPED)
            else:
                engine.ask(_SHIPPED)  # plans the batch again
            planned = engine.batch_size
            waveforms = made_up_windows(engine.model, 2 * planned)
            seconds = median_s(lambda: engine.answer(waveforms), self.device, runs=1)
            peak = torch.cuda.max_memory_allocated(self.device) - held.nbytes
        finally:
            del held
        return {
            "planned_batch": planned,
            "batch_size": engine.batch_size,
            "windows_per_s": len(waveforms) / seconds,
            "peak_memory_gb": peak / 1e9,
        }

    def memory_held(self) -> dict[str, Any]:
        """All of the card's memory is taken before a batch, and comes back after a while."""
        waveforms = made_up_windows(self.model, min(self.windows, _ENCODED))
        engine = Engine(self.model, _SHIPPED)
        planned = engine.batch_size
        _free(self.device)
        held = [_take_all(self.device)]

        def release() -> None:
            held.clear()
            torch.cuda.empty_cache()

        timer = Timer(_HELD_S, release)
        timer.start()
        start = time.perf_counter()
        try:
            answers = engine.answer(waveforms)
        finally:
            timer.join()
        return {
            "held_s": _HELD_S,
            "seconds": time.perf_counter() - start,
            "windows": len(waveforms),
            "answered": sum(answer is not None for row in answers for answer in row) // len(_SHIPPED),
            "planned_batch": planned,
            "batch_size": engine.batch_size,
        }

    def job(self) -> dict[str, Any]:
        """`naturelm process` with pocket in this process, over recordings of 16 kHz made here."""
        from naturelm.bench.inference import bench_pipeline
        from naturelm.config.loading import load_archive_config

        settings = load_archive_config(None, {"model": {"name": "pocket"}, "job": {"workers": 0}})
        with TemporaryDirectory(prefix="naturelm-bench-") as directory:
            _write_recordings(Path(directory), *((16, 1800) if self.device.type == "cuda" else (2, 60)))
            return bench_pipeline([Path(directory)], settings)

    def training(self) -> dict[str, Any]:
        """Stage 2's steps, on a model made for it: this one goes first."""
        from naturelm.bench.training import bench_train

        self._model = None
        _free(self.device)
        on_gpu = self.device.type == "cuda"
        return bench_train(
            model=self.model_name,
            random_weights=self.model_name == FULL_SIZE,
            llm_layers=self.llm_layers,
            batch=32 if on_gpu else 2,
            micro_batch=None,
            steps=4 if on_gpu else 1,
            activation_checkpointing=False,
            device=str(self.device),
        )


def bench_gpu(
    out: Path,
    minutes: float = 4.0,
    model_name: str = FULL_SIZE,
    device: str | None = None,
    llm_layers: int = 32,
    windows: int = 1024,
    only: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure one GPU, and write what was measured after every part.

    Parameters
    ----------
    out : Path
        Directory for ``gpu.json`` and ``gpu.md``.
    minutes : float
        A part begins only if it should end within so many.
    model_name, device, llm_layers, windows
        As for `GpuBench`; the GPU by default.
    only : sequence of str
        Names of the parts to run beside making the model; all by default.
    report : callable
        Gets a line for each part as it ends.

    Returns
    -------
    dict
        Part's name -> its numbers, ``seconds``, and ``error`` or ``left_out`` where it has none.

    Raises
    ------
    NaturelmError
        There is no GPU and no `device` was given, or no part of such a name.
    """
    if device is None and not torch.cuda.is_available():
        raise NaturelmError("PyTorch finds no GPU here; to try the command out give --device cpu")
    place = torch.device(device or "cuda")
    parts = GpuBench(model_name, place, llm_layers, windows).parts()
    names = [part.name for part in parts]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise NaturelmError(f"--only has no part {unknown[0]!r}; the parts are {'; '.join(names)}")
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    began = time.perf_counter()
    for part in parts:
        if only and part.name not in (*only, "model"):
            continue
        start = time.perf_counter()
        result: dict[str, Any]
        if part.needs_gpu and place.type != "cuda":
            result = {"left_out": "needs a GPU"}
        elif (start - began) + part.expected_s > minutes * 60:
            result = {"left_out": "no time left"}
        else:
            result = _guarded(part)
            # Outside the handler, where no traceback holds tensors.
            _free(place)
        result["seconds_taken"] = time.perf_counter() - start
        results[part.name] = result
        report(f"[{time.perf_counter() - began:5.0f} s] {part.name}: {_summary(part, result)}")
        (out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(_markdown(parts, results), encoding="utf-8")
    return results


def failures(results: dict[str, Any]) -> list[str]:
    """Names of the parts that failed, and of the checks that found a difference."""
    failed = [name for name, result in results.items() if "error" in result]
    checks = results.get("checks", {}).get("checks", {})
    return failed + [name for name, check in checks.items() if not check["ok"]]


# -- helpers ------------------------------------------------------------------------------------------------


def _guarded(part: Part) -> dict[str, Any]:
    try:
        return part.run()
    except Exception as error:  # whatever it is, the other parts are still worth measuring
        return {
            "error": f"{type(error).__name__}: {first_line(error)}",
            "traceback": traceback.format_exc().splitlines()[-40:],
        }


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def _occupy(card_bytes: float, device: torch.device) -> Tensor:
    """Memory that leaves a card of so many bytes, with what this process takes of it."""
    _free(device)
    free, total = torch.cuda.mem_get_info(device)
    used = total - free
    if not used < card_bytes < total:
        own = torch.cuda.memory_allocated(device)
        raise NaturelmError(
            f"a card of {card_bytes / 1e9:g} GB is not simulated: this one has {total / 1e9:.0f} GB, of which "
            f"{used / 1e9:.1f} are in use, {own / 1e9:.1f} of them by tensors of this process"
        )
    return torch.empty(int(total - card_bytes), dtype=torch.uint8, device=device)


def _take_all(device: torch.device) -> Tensor:
    """All of a card's memory that is free, but for little."""
    free, _ = torch.cuda.mem_get_info(device)
    return torch.empty(max(0, free - _LEFT_BYTES), dtype=torch.uint8, device=device)


def _write_recordings(directory: Path, count: int, seconds: int) -> None:
    """WAV files of the model's rate and 16 bits: one minute of noise and owls, again and again."""
    rng = np.random.default_rng(0)
    minute = np.concatenate([owl(rng, SAMPLE_RATE_HZ, 10.0), background(rng, SAMPLE_RATE_HZ, 50.0)])
    pcm = (np.clip(minute, -1, 1) * 32_767).astype("<i2").tobytes()
    for number in range(count):
        with wave.open(str(directory / f"BOX1_20240601_{number:02d}0000.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE_HZ)
            for _ in range(seconds // 60):
                file.writeframesraw(pcm)


@contextmanager
def _scaled(weight: Tensor, factor: float) -> Iterator[None]:
    """A matrix times a power of two, and back again."""
    weight.mul_(factor)
    try:
        yield
    finally:
        weight.div_(factor)


def _engine_line(result: dict[str, Any]) -> str:
    parts = result["parts_s_per_window"]
    bounds = result["roofline"]
    shares = " · ".join(
        f"{name} {parts[name] * 1e3:.2f} ({bounds[f'{name}_s_per_window'] * 1e3:.2f})"
        for name in ("encode", "prefill", "decode")
    )
    return (
        f"{result['windows_per_s']:.0f} windows/s of {bounds['windows_per_s']:.0f} at the roofline, batches of "
        f"{result['batch_size']}; ms a window (bounds): {shares}"
    )


def _encode_line(result: dict[str, Any]) -> str:
    return f"{result['ms_per_window']:.3f} ms a window, uncompiled {result['plain_ms_per_window']:.3f}"


def _profile_line(result: dict[str, Any]) -> str:
    first = ", ".join(f"{kernel['name'][:40]} {kernel['ms']:.0f}" for kernel in result["kernels"][:5])
    return f"{result['ms']:.0f} ms for {result['windows']} windows: {first}"


def _checks_line(result: dict[str, Any]) -> str:
    wrong = [f"{name} ({check})" for name, check in result["checks"].items() if not check["ok"]]
    passed = f"{len(result['checks']) - len(wrong)} of {len(result['checks'])} agree with the plain path"
    return "; ".join([f"{passed}, {result['compile_s']:.0f} s of compiling", *wrong])


def _card_line(result: dict[str, Any]) -> str:
    return (
        f"{result['windows_per_s']:.0f} windows/s, batches of {result['batch_size']} "
        f"(planned {result['planned_batch']}), peak {result['peak_memory_gb']:.1f} GB"
    )


def _held_line(result: dict[str, Any]) -> str:
    return (
        f"{result['answered']} of {result['windows']} windows answered in {result['seconds']:.1f} s, the memory being "
        f"held for {result['held_s']:.0f} s; batches of {result['batch_size']} (planned {result['planned_batch']})"
    )


def _summary(part: Part, result: dict[str, Any]) -> str:
    if "error" in result:
        return f"failed: {result['error']}"
    if "left_out" in result:
        return f"left out: {result['left_out']}"
    return part.line(result)


def _markdown(parts: Sequence[Part], results: dict[str, Any]) -> str:
    made = results.get("model", {})
    lines = [
        f"# {made.get('device', 'GPU')}, {made.get('model', '')}, torch {torch.__version__}",
        "",
        "| part | measured | seconds |",
        "|---|---|---|",
    ]
    for part in parts:
        if part.name in results:
            result = results[part.name]
            summary = _summary(part, result).replace("|", "\\|")
            lines.append(f"| {part.name} | {summary} | {result['seconds_taken']:.1f} |")
    for name, check in results.get("checks", {}).get("checks", {}).items():
        lines.append(f"| check: {name.replace('_', ' ')} | {json.dumps(check)} | |")
    return "\n".join(lines) + "\n"
