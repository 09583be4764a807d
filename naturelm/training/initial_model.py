"""The model that training begins with, and which of its parts train."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from naturelm.errors import NaturelmError
from naturelm.models import presets
from naturelm.models.base import LanguageModel
from naturelm.models.config import LanguageModelConfig
from naturelm.models.parts.llama import load_llama, load_llama_config, load_tokenizer, new_llama
from naturelm.storage import location
from naturelm.training.settings import ModelStart, TrainConfig
from naturelm.training.store import CONFIG_FILE, RunStore
from naturelm.training.tensors import load_weights

_CHECKPOINT = re.compile(r"(.*?)/checkpoints/step-(\d{8})/?")


def make_model(start: ModelStart, seed: int, device: torch.device) -> LanguageModel:
    """The model that `start` describes, on a device, its trained parts taking gradients.

    What trains is float32; on a GPU the rest is bfloat16. Random weights depend on `seed` alone.

    Raises
    ------
    NaturelmError
        A checkpoint, LLM or weight file is missing, damaged or of other shapes than its settings.
    """
    torch.manual_seed(seed)
    narrow = device.type == "cuda" and "llm" not in start.trainable
    llm_dtype = torch.bfloat16 if narrow else torch.float32
    if start.checkpoint is not None and is_run(start.checkpoint):
        model = load_run(start.checkpoint)[0]
    elif start.checkpoint is not None:
        model = _described(start)[0].read(start.checkpoint, start.llm, llm_dtype, **start.part_files)
    else:
        model = _new_model(start, llm_dtype)
    model.merging_alpha = start.merging_alpha
    set_parts(model, start.trainable)
    for parameter in model.parameters():
        if device.type == "cuda" and not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    if device.type == "cpu":
        # Eager attention has a cheaper gradient there.
        model.language_model.set_attn_implementation("eager")
    return model.to(device)


def load_run(checkpoint: str, best: bool = False) -> tuple[LanguageModel, TrainConfig, int]:
    """The model of a run's checkpoint on the CPU, the run's settings, and the checkpoint's step.

    Raises
    ------
    NaturelmError
        The run or checkpoint does not exist, or its weights do not fit.
    """
    match = _CHECKPOINT.fullmatch(checkpoint)
    store = RunStore(match.group(1) if match else checkpoint)
    config = store.config()
    steps = store.steps()
    if not steps:
        raise NaturelmError(f"{store.storage}: has no checkpoint yet; continue training")
    step = int(match.group(2)) if match else steps[-1]
    if best and not match:
        step = int(store.state(step).best.get("step", step))
    if step not in steps:
        raise NaturelmError(
            f"{store.storage}: has no checkpoint of step {step}; there are {', '.join(map(str, steps))}"
        )
    model = make_model(config.model, config.seed, torch.device("cpu"))
    targets = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
    tensors = {name: tensor for name, tensor in store.weights(step).items() if not name.startswith("heads.")}
    load_weights(targets, tensors, f"{store.storage}, step {step}")
    return model, config, step


def check_start(start: ModelStart) -> LanguageModelConfig:
    """The model's settings, and `make_model`'s errors as far as they are known without loading weights."""
    model_class, config = _described(start)
    parts = model_class.part_names()
    for part in start.trainable:
        if part not in parts:
            raise NaturelmError(
                f"model.trainable names {part!r}, which {model_class.__name__} does not have; "
                f"its parts are {', '.join(parts)}"
            )
    for part in start.part_files:
        if part not in parts:
            raise NaturelmError(
                f"model.part_files names {part!r}, which {model_class.__name__} does not have; its parts are "
                f"{', '.join(parts)}"
            )
    if start.beats is not None:
        if "beats" not in parts:
            raise NaturelmError(
                f"model.beats is set, but {model_class.__name__} has no BEATs encoder; leave it out"
            )
        if not Path(start.beats).is_file():
            raise NaturelmError(
                f"{start.beats}: there is no such file; give model.beats the file of BEATs' weights"
            )
    return config


def is_run(checkpoint: str) -> bool:
    """Whether this is the directory of a run, not of a model."""
    # A model's name on the hub is a path that does not exist.
    return (location(checkpoint) / CONFIG_FILE).is_file()


def set_parts(model: LanguageModel, trainable: Collection[str]) -> None:
    """Let the parameters of some parts take gradients, and those of the others none."""
    for part, modules in model.parts().items():
        for module in modules:
            module.requires_grad_(part in trainable)


def train_mode(model: LanguageModel, trainable: Collection[str]) -> None:
    """Put the parts that train into training mode and the others into evaluation mode: no dropout, no layerdrop."""
    model.eval()
    for part, modules in model.parts().items():
        for module in modules:
            module.train(part in trainable)


def checkpoint_activations(model: LanguageModel) -> None:
    """Keep only the layers' inputs in a training step and compute the rest again in the backward pass."""
    for layers in model.layers().values():
        for layer in layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def cosine_filters(count: int, size: int) -> Tensor:
    """Two-dimensional cosines ``[count, 1, size, size]``, as image codecs use.

    A small encoder that starts with them learns from its first steps; with random filters it takes thousands.

    Raises
    ------
    NaturelmError
        `count` is not the square of a number up to `size`.
    """
    kept = math.isqrt(count)
    if kept * kept != count or kept > size:
        raise NaturelmError(
            f"{count} patch filters of {size} × {size} cannot be cosines; give a beats_cfg.embed_dim that is the "
            f"square of a number up to {size}, or patch_filters: random"
        )
    place, order = torch.arange(size) + 0.5, torch.arange(kept)
    basis = torch.cos(torch.pi * order[:, None] * place / size) * (2 / size) ** 0.5
    filters = torch.einsum("ui,vj->uvij", basis, basis).reshape(count, 1, size, size)
    # The mean, several times larger than the rest, would dominate the norm that follows.
    filters[0] *= 0.05
    return filters


def _new_model(start: ModelStart, llm_dtype: torch.dtype) -> LanguageModel:
    model_class, config, llm_directory = _new_shape(start)
    tokenizer = load_tokenizer(llm_directory)
    # Without `llm`, the directory gives the LLM's shape only.
    llama = (
        load_llama(llm_directory, llm_dtype)
        if start.llm is not None
        else new_llama(load_llama_config(llm_directory), llm_dtype)
    )
    model = model_class(config, llama, tokenizer)
    if start.patch_filters == "cosine":
        filters = model.patch_filters
        if filters is None:
            raise NaturelmError(
                f"model.patch_filters is set, but {model_class.__name__} has no patch filters; leave it out"
            )
        with torch.no_grad():
            filters.copy_(cosine_filters(filters.shape[0], filters.shape[-1]))
    if start.beats is not None:
        model.load_part("beats", Path(start.beats))
    for part, place in start.part_files.items():
        model.load_part(part, Path(place))
    return model


def _described(start: ModelStart) -> tuple[type[LanguageModel], LanguageModelConfig]:
    """The class and settings of the model that training starts with; its files exist."""
    if start.checkpoint is None:
        return _new_shape(start)[:2]
    if is_run(start.checkpoint):
        return _described(RunStore(start.checkpoint).config().model)
    source = presets.resolve(start.checkpoint)
    file = presets.fetch(source) / "config.json"
    if file.is_file():
        model_class, config = _read_shape(presets.read_config(file), str(file))
    else:
        # Older publications, of one torch file, have the sizes of their family.
        model_class, config = _read_shape({"family": presets.family_of(source).name}, str(source.path))
    llm = next(name for name in (start.llm, source.llm, config.llama_path) if name is not None)
    presets.fetch_llm(llm, file.parent)
    return model_class, config


def _new_shape(start: ModelStart) -> tuple[type[LanguageModel], LanguageModelConfig, Path]:
    """Class and sizes of a new model, and the directory of its LLM."""
    if isinstance(start.new, dict):
        values, where, directory = start.new, "model.new", Path()
    else:
        directory = Path(presets.resolve(str(start.new)).path)
        values, where = presets.read_config(directory / "config.json"), str(directory / "config.json")
    model_class, config = _read_shape(values, where)
    named = start.llm if start.llm is not None else config.llama_path
    return model_class, config, presets.fetch_llm(named, directory)


def _read_shape(values: Mapping[str, Any], where: str) -> tuple[type[LanguageModel], LanguageModelConfig]:
    family = presets.family_in(values, where)
    model_class = family.load()
    if not issubclass(model_class, LanguageModel):
        raise NaturelmError(
            f"{where}: is of the family {family.name}, a classifier, which cannot be trained; give a language model"
        )
    return model_class, model_class.config_from(values, where)
