"""The model that training begins with, and which of its parts train."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from naturelm.errors import NaturelmError
from naturelm.models import checkpoint as weights
from naturelm.models import presets
from naturelm.models.naturelm.config import NatureLMConfig
from naturelm.models.naturelm.model import NatureLM
from naturelm.models.parts.llama import load_llama, load_tokenizer
from naturelm.storage import location
from naturelm.training.config import ModelStart, Part, TrainConfig
from naturelm.training.store import CONFIG_FILE, RunStore
from naturelm.training.tensors import load_weights

_CHECKPOINT = re.compile(r"(.*?)/checkpoints/step-(\d{8})/?")


def make_model(start: ModelStart, seed: int, device: torch.device) -> NatureLM:
    """The model that `start` describes, on a device, the parts that train set apart.

    What trains is float32; on a GPU the rest is bfloat16. Random weights depend on `seed` alone.

    Raises
    ------
    NaturelmError
        A checkpoint, LLM or weight file is missing, damaged or of other shapes than it says.
    """
    torch.manual_seed(seed)
    narrow = device.type == "cuda" and "llm" not in start.trainable
    llm_dtype = torch.bfloat16 if narrow else torch.float32
    if start.checkpoint is not None and is_run(start.checkpoint):
        model = load_run(start.checkpoint)[0]
    elif start.checkpoint is not None:
        model = NatureLM.read(start.checkpoint, start.llm, llm_dtype)
    else:
        model = _new_model(start, llm_dtype)
    set_parts(model, start.trainable)
    for parameter in model.parameters():
        if device.type == "cuda" and not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    if device.type == "cpu":
        # Its gradient is cheaper there.
        model.language_model.set_attn_implementation("eager")
    return model.to(device)


def load_run(checkpoint: str, best: bool = False) -> tuple[NatureLM, TrainConfig, int]:
    """The model of a run's checkpoint on the CPU, the run's settings, and the checkpoint's step.

    Raises
    ------
    NaturelmError
        There is no such run or checkpoint, or its weights do not fit.
    """
    match = _CHECKPOINT.fullmatch(checkpoint)
    store = RunStore(match.group(1) if match else checkpoint)
    config = store.config()
    steps = store.steps()
    if not steps:
        raise NaturelmError(f"{store.storage}: has no checkpoint yet; train on")
    step = int(match.group(2)) if match else steps[-1]
    if best and not match:
        step = int(store.state(step).best.get("step", step))
    if step not in steps:
        raise NaturelmError(
            f"{store.storage}: has no checkpoint of step {step}; there are {', '.join(map(str, steps))}"
        )
    model = make_model(config.model, config.seed, torch.device("cpu"))
    targets = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
    weights = {name: tensor for name, tensor in store.weights(step).items() if not name.startswith("heads.")}
    load_weights(targets, weights, f"{store.storage}, step {step}")
    return model, config, step


def check_start(start: ModelStart) -> NatureLMConfig:
    """The model's settings, and `make_model`'s errors as far as they show without loading weights."""
    if start.beats is not None and not Path(start.beats).is_file():
        raise NaturelmError(
            f"{start.beats}: there is no such file; give model.beats the file of BEATs' weights"
        )
    if start.checkpoint is None:
        return _new_shape(start)[0]
    if is_run(start.checkpoint):
        return check_start(RunStore(start.checkpoint).config().model)
    directory = presets.fetch(presets.resolve(start.checkpoint))
    config = NatureLMConfig.from_file(directory / "config.json")
    presets.fetch_llm(start.llm if start.llm is not None else config.llama_path, directory)
    return config


def is_run(checkpoint: str) -> bool:
    """Whether this is the directory of a run, not of a model."""
    # A model's name on the hub is a path that is not there.
    return (location(checkpoint) / CONFIG_FILE).is_file()


def part_of(name: str) -> Part:
    """The part that a parameter of the model belongs to, by its name."""
    first = name.split(".", 1)[0]
    if first == "beats":
        return "beats"
    if first in ("audio_norm", "qformer"):
        return "qformer"
    if first == "audio_projection":
        return "projection"
    return "lora" if "lora_" in name else "llm"


def set_parts(model: NatureLM, trainable: Collection[Part]) -> None:
    """Let the parameters of some parts take gradients, and those of the others none."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in trainable)


def train_mode(model: NatureLM, trainable: Collection[Part]) -> None:
    """Put the parts that train into training mode and the others out of it: no dropout, no layerdrop."""
    model.eval()
    model.beats.train("beats" in trainable)
    model.qformer.train("qformer" in trainable)
    model.llama.train("llm" in trainable)
    for module in model.llama.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout.train("lora" in trainable)


def checkpoint_activations(model: NatureLM) -> None:
    """Keep only the layers' inputs in a training step and compute the rest again in the backward pass."""
    for layer in [*model.beats.layers, *model.language_model.model.layers]:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def cosine_filters(count: int, size: int) -> Tensor:
    """Two-dimensional cosines ``[count, 1, size, size]``, as image codecs describe patches.

    A small encoder that begins with them learns from its first steps on; with random filters it takes thousands.

    Raises
    ------
    NaturelmError
        If `count` is no square of a number up to `size`.
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
    # The mean, several times larger than all else, would drown it in the norm that follows.
    filters[0] *= 0.05
    return filters


def _new_model(start: ModelStart, llm_dtype: torch.dtype) -> NatureLM:
    config, llm_directory, pretrained = _new_shape(start)
    tokenizer = load_tokenizer(llm_directory)
    if pretrained:
        llama = load_llama(llm_directory, llm_dtype)
    else:
        shape = LlamaConfig.from_pretrained(llm_directory, local_files_only=True)
        llama = LlamaForCausalLM._from_config(shape, dtype=llm_dtype)
    model = NatureLM(config, llama, tokenizer)
    if start.patch_filters == "cosine":
        filters = model.beats.patch_embedding.weight
        with torch.no_grad():
            filters.copy_(cosine_filters(filters.shape[0], filters.shape[-1]))
    if start.beats is not None:
        tensors = weights.read_tensors(Path(start.beats))
        own = {f"beats.{name}": tensor for name, tensor in tensors.items()}
        weights.load_published(nn.ModuleDict({"beats": model.beats}), own, start.beats)
    return model


def _new_shape(start: ModelStart) -> tuple[NatureLMConfig, Path, bool]:
    """Sizes of a new model, the directory of its LLM, and whether the LLM's weights are taken from there."""
    if isinstance(start.new, dict):
        config, directory = NatureLMConfig.from_dict(start.new, "model.new"), Path()
    else:
        directory = Path(presets.resolve(str(start.new)).path)
        config = NatureLMConfig.from_file(directory / "config.json")
    named = start.llm if start.llm is not None else config.llama_path
    return config, presets.fetch_llm(named, directory), start.llm is not None
