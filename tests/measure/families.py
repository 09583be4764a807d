"""Measures the engine against the plain path on SALMONN's and LTU's small weights: python tests/measure/families.py.

32 windows with some prompts each, in this process on the CPU. The plain path is what the published code does: one
window and one prompt per call of `generate`. Both are timed alternately; the answers must be the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery
from naturelm.models import load_model
from naturelm.models.answer import Answer
from naturelm.models.base import LanguageModel, require_language_model
from tests.paths import LTU_PARITY, SALMONN_PARITY, SMALL_MODEL

WINDOWS = 32
TOKENS = 24
PROMPTS = (
    "What is the main sound in the audio?",
    "Please describe the audio in detail.",
    "Which animals are in the audio?",
    "Where was the audio recorded?",
)
CASES: dict[str, tuple[Path, dict[str, Any]]] = {
    "SALMONN, 4 beams": (SALMONN_PARITY, {"num_beams": 4}),
    "SALMONN, greedy": (SALMONN_PARITY, {"num_beams": 1}),
    "LTU, greedy, penalty 1.1": (LTU_PARITY / "release", {"num_beams": 1, "repetition_penalty": 1.1}),
    "NatureLM, 2 beams": (SMALL_MODEL, {"num_beams": 2}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=4, choices=range(1, len(PROMPTS) + 1))
    given = parser.parse_args()
    prompts = PROMPTS[: given.prompts]
    print(json.dumps({name: measure(*case, prompts, given.rounds) for name, case in CASES.items()}, indent=2))


def measure(path: Path, search: dict[str, Any], prompts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Median seconds of both paths, and the median of the ratios of neighbouring runs."""
    model = require_language_model(load_model(path, device="cpu"))
    sounds = np.random.default_rng(0).normal(0, 0.1, (WINDOWS, 160_000)).astype(np.float32)
    engine = Engine(model, [EngineQuery(prompt, TOKENS) for prompt in prompts], **search)
    by_engine, by_generate = engine.answer(sounds), plainly(model, sounds, prompts, search)
    seconds: dict[str, list[float]] = {name: [] for name in ("engine", "generate")}
    for _ in range(rounds):
        seconds["generate"].append(timed(lambda: plainly(model, sounds, prompts, search)))
        seconds["engine"].append(timed(lambda: engine.answer(sounds)))
    ratios = [a / b for a, b in zip(seconds["generate"], seconds["engine"], strict=True)]
    same = [
        a.token_ids == b.token_ids
        for x, y in zip(by_engine, by_generate, strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    return {
        "engine_s": round(statistics.median(seconds["engine"]), 2),
        "generate_s": round(statistics.median(seconds["generate"]), 2),
        "times_as_fast": round(statistics.median(ratios), 1),
        "range": [round(min(ratios), 1), round(max(ratios), 1)],
        "same_answers": f"{sum(same)} of {len(same)}",
    }


def plainly(
    model: LanguageModel, sounds: np.ndarray, prompts: Sequence[str], search: dict[str, Any]
) -> list[list[Answer]]:
    """Each window and prompt in a call of its own."""
    return [
        [model.generate(torch.from_numpy(sound[None]), [prompt], TOKENS, **search)[0] for prompt in prompts]
        for sound in sounds
    ]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
