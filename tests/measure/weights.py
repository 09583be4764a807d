"""Measures what 8-bit weights cost in accuracy: python tests/measure/weights.py [--esc10 DIR].

Three models against their float32 answers: the small parity checkpoint (random weights), pocket on sounds made by code
and on ESC-10's fold 5, and the released model's shapes with two layers of random weights.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from naturelm.audio.streaming import decode
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery
from naturelm.models import load_model
from naturelm.models.parts.weights import WEIGHT_KINDS
from naturelm.synthetic.stand_ins import QUESTIONS, made_up_windows, random_full_size
from tests.paths import SMALL_MODEL

KINDS = {"float32": ("auto", torch.float32), "bf16": ("bf16", None), "int8": ("int8", None)}
PROMPTS = 200


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--esc10", type=Path, help="Directory of ESC-10: esc10.csv and audio.")
    given = parser.parse_args()
    found: dict[str, Any] = {
        "small parity checkpoint": answers_of(str(SMALL_MODEL), 12),
        "pocket": answers_of("pocket", 32),
        "two layers of 8B shapes": layer_error(),
    }
    if given.esc10 is not None:
        found["pocket on ESC-10, fold 5"] = esc10(given.esc10)
    print(json.dumps(found, indent=2))


def answers_of(name: str, tokens: int) -> dict[str, Any]:
    """Equal answers to 200 prompts about 25 sounds, and scores of those that are equal."""
    answers, logits = {}, {}
    for kind, (weights, dtype) in KINDS.items():
        model = load_model(name, device="cpu", weights=weights, dtype=dtype)
        windows = made_up_windows(model, PROMPTS // len(QUESTIONS))
        with torch.inference_mode():
            audio_BAD = model.encode_audio(torch.from_numpy(windows[:8]))
            prompts = [model.prompt_tokens(question) for question in QUESTIONS]
            logits[kind] = model.answer_logits(audio_BAD, prompts, [(5,)] * len(prompts))[:, 0].float()
        rows = Engine(model, [EngineQuery(question, tokens) for question in QUESTIONS]).answer(windows)
        answers[kind] = [answer for row in rows for answer in row]
    plain = answers["float32"]
    return {
        kind: {
            "equal": statistics.mean(a.token_ids == b.token_ids for a, b in zip(plain, ours, strict=True)),
            "equal_first_token": statistics.mean(
                a.token_ids[:1] == b.token_ids[:1] for a, b in zip(plain, ours, strict=True)
            ),
            "largest_score_change": max(
                (
                    abs(a.score - b.score)
                    for a, b in zip(plain, ours, strict=True)
                    if a.token_ids == b.token_ids
                ),
                default=None,
            ),
            "logits_error": relative(logits[kind], logits["float32"]),
        }
        for kind, ours in answers.items()
        if kind != "float32"
    }


def layer_error() -> dict[str, float]:
    """Error of the first logits of two random layers of full size, their matrices rounded and their rows too."""
    torch.manual_seed(0)
    model = random_full_size("cpu", torch.float32, 2)
    windows = torch.from_numpy(made_up_windows(model, 4))
    prompt = model.prompt_tokens(QUESTIONS[0])

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return model.answer_logits(audio_BAD, [prompt] * 4, [(5,)] * 4)[:, 0].float()

    with torch.inference_mode():
        audio_BAD = model.encode_audio(windows)
    plain = logits()
    kind = WEIGHT_KINDS["int8"]
    for module in model.language_model.model.layers.modules():
        if type(module) is torch.nn.Linear and module.weight.shape[0] > model.config.lora_rank:
            stored = kind.pack(kind.store(module.weight.data))
            module.forward = (
                lambda x, stored=stored: kind.multiply(  # type: ignore[method-assign]
                    kind.prepare(x.flatten(0, -2)), stored
                ).unflatten(0, x.shape[:-1])
            )
    return {"int8": relative(logits(), plain)}


def esc10(directory: Path) -> dict[str, Any]:
    """Share of fold 5's clips whose closed list names their category."""
    with open(directory / "esc10.csv", newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["fold"] == "5"]
    labels = tuple(sorted({row["category"].replace("_", " ").capitalize() for row in rows}))
    sounds = []
    for row in rows:
        samples = np.concatenate(list(decode(directory / "audio" / row["filename"])))[:160_000]
        sounds.append(np.pad(samples, (0, 160_000 - len(samples))))
    windows = np.stack(sounds).astype(np.float32)
    found: dict[str, Any] = {}
    chosen: dict[str, list[str]] = {}
    query = EngineQuery(
        "What is the common name for the focal species in the audio? Answer:", 16, labels=labels
    )
    for kind, (weights, dtype) in KINDS.items():
        model = load_model("pocket", device="cpu", weights=weights, dtype=dtype)
        answers = [row[0] for row in Engine(model, [query]).answer(windows)]
        chosen[kind] = [answer.text for answer in answers]
        right = [
            a.text == row["category"].replace("_", " ").capitalize()
            for a, row in zip(answers, rows, strict=True)
        ]
        same = [a == b for a, b in zip(chosen["float32"], chosen[kind], strict=True)]
        found[kind] = {
            "clips": len(rows),
            "right": statistics.mean(right),
            "as_float32": statistics.mean(same),
        }
    return found


def relative(ours: torch.Tensor, plain: torch.Tensor) -> float:
    return float((ours - plain).norm() / plain.norm())


if __name__ == "__main__":
    main()
