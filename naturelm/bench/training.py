"""`naturelm bench train`: how fast training steps are, and what memory they take."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from naturelm.bench.inference import peak_memory_gb
from naturelm.synthetic.stand_ins import QUESTIONS, made_up_windows, random_full_size
from naturelm.training.data import Loaded
from naturelm.training.initial_model import checkpoint_activations, make_model, set_parts
from naturelm.training.objective import Objective
from naturelm.training.settings import TrainConfig, parse
from naturelm.training.step import Trainer, Worker

_ANSWERS = ("Green Treefrog", "None", "A dog barks while rain falls.", "Tawny Owl, European Robin")


def bench_train(
    model: str,
    random_weights: bool,
    llm_layers: int,
    batch: int,
    micro_batch: int | None,
    steps: int,
    activation_checkpointing: bool,
    device: str | None,
) -> dict[str, Any]:
    """Take steps on sound that is in memory already, and measure them; the first two are left out.

    Parameters
    ----------
    model, random_weights, llm_layers
        Preset or directory; or the released model's shape with random weights and so many LLM layers.
    batch, micro_batch, steps
        As in a run's `optimisation`.
    activation_checkpointing
        As in `run`.
    device
        `cuda` or `cpu`; the GPU where there is one.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = _config(model, batch, micro_batch, steps)
    made = (
        _random_weights(config, llm_layers, place)
        if random_weights
        else make_model(config.model, config.seed, place)
    )
    if activation_checkpointing:
        checkpoint_activations(made)
    trainer = Trainer(config, Objective(made), Worker(device=place))
    examples = [
        Loaded(
            str(i), "detection", window, ((QUESTIONS[i % len(QUESTIONS)], _ANSWERS[i % len(_ANSWERS)]),), ()
        )
        for i, window in enumerate(made_up_windows(made, batch))
    ]
    seconds = []
    for number in range(steps + 2):
        began = time.perf_counter()
        result = trainer.step(number, examples)  # reads the loss, so it waits for the device
        seconds.append(time.perf_counter() - began)
    step_s = statistics.median(seconds[2:])
    return {
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        "parameters": sum(p.numel() for p in made.parameters()),
        "parameters_trained": sum(p.numel() for p in trainer.trained.values()),
        "batch": batch,
        "micro_batch": micro_batch or batch,
        "activation_checkpointing": activation_checkpointing,
        "seconds_per_step": step_s,
        "examples_per_s": batch / step_s,
        "positions_per_s": _positions(trainer, examples) / step_s,
        "answer_tokens_per_s": result.tokens / step_s,
        "peak_memory_gb": peak_memory_gb(place),
    }


def _config(model: str, batch: int, micro_batch: int | None, steps: int) -> TrainConfig:
    values = {
        "model": {"checkpoint": model},
        "data": {"manifests": ["none"]},
        "optimisation": {"steps": steps + 2, "batch": batch, "micro_batch": micro_batch},
        "run": {"storage": "none"},
    }
    return parse(values, "bench")


def _random_weights(config: TrainConfig, llm_layers: int, device: torch.device) -> Any:
    made = random_full_size(str(device), torch.bfloat16, llm_layers)
    set_parts(made, config.model.trainable)
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return made


def _positions(trainer: Trainer, examples: list[Loaded]) -> int:
    """Positions that the LLM reads: prompts, sound and answers, padding left out."""
    batch = trainer.prepare(examples)
    around = sum(len(prompt.head) + len(prompt.tail) for prompt in batch.prompts)
    return around + batch.tokens + len(batch.prompts) * trainer.objective.model.audio_tokens
