"""A run's weights in the published layout, which `NatureLM.from_pretrained` and other programs load."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from naturelm.errors import NaturelmError
from naturelm.models import presets
from naturelm.training.initial_model import is_run, load_run
from naturelm.training.settings import ModelStart
from naturelm.training.store import RunStore


def write_checkpoint(
    checkpoint: str, out: Path, best: bool = False, with_llm: bool = False, dtype: str = "float32"
) -> int:
    """Write a checkpoint of a run in the published layout; returns its step.

    Parameters
    ----------
    checkpoint
        The run's storage, whose last checkpoint is taken, or a checkpoint within it.
    out
        Directory to write, new or empty.
    best
        The best checkpoint in place of the last.
    with_llm
        Also write the base LLM; always done where there is no other copy of it.
    dtype
        Of the written weights.

    Raises
    ------
    NaturelmError
        There is no such run or checkpoint, or `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NaturelmError(f"{out}: is not empty; give a new directory")
    model, config, step = load_run(checkpoint, best)
    named = _hub_llm(config.model, model.config.llama_path)
    if named is not None:
        model.config = dataclasses.replace(model.config, llama_path=named)
    kind: torch.dtype = getattr(torch, dtype)
    model.save_pretrained(out, with_llm=with_llm or named is None, dtype=kind)
    return step


def _hub_llm(start: ModelStart, llama_path: str) -> str | None:
    """The hub's name of the base LLM; None where it was trained or newly made, or was given as a directory."""
    if "llm" in start.trainable or (start.new is not None and start.llm is None):
        return None
    if start.llm is None and start.checkpoint is not None:
        if is_run(start.checkpoint):
            return _hub_llm(RunStore(start.checkpoint).config().model, llama_path)
        if (Path(presets.resolve(start.checkpoint).path) / llama_path).is_dir():
            return None
    named = start.llm or llama_path
    return None if Path(named).is_dir() else named
