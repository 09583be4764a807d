"""Checkpoints: the names of published tensors, and loading that leaves nothing unsaid.

A published release holds the trained tensors (audio branch, LoRA, token embedding) and not the base LLM; a
training checkpoint may hold the base LLM too. Both are read through the tables below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naturelm.errors import NaturelmError

# Published name -> name in our module; {} stands for a layer number, None for a tensor that is not used.
NATURELM_KEYS: dict[str, str | None] = {
    # BEATs
    "beats.patch_embedding.weight": "beats.patch_embedding.weight",
    "beats.layer_norm.weight": "beats.patch_norm.weight",
    "beats.layer_norm.bias": "beats.patch_norm.bias",
    "beats.post_extract_proj.weight": "beats.patch_projection.weight",
    "beats.post_extract_proj.bias": "beats.patch_projection.bias",
    "beats.encoder.pos_conv.0.weight_g": "beats.position_conv.weight_g",
    "beats.encoder.pos_conv.0.weight_v": "beats.position_conv.weight_v",
    "beats.encoder.pos_conv.0.bias": "beats.position_conv.bias",
    "beats.encoder.layer_norm.weight": "beats.norm.weight",
    "beats.encoder.layer_norm.bias": "beats.norm.bias",
    "beats.encoder.layers.{}.self_attn.relative_attention_bias.weight": "beats.relative_bias.weight",
    "beats.encoder.layers.{}.self_attn.q_proj.weight": "beats.layers.{}.attention.q_proj.weight",
    "beats.encoder.layers.{}.self_attn.q_proj.bias": "beats.layers.{}.attention.q_proj.bias",
    "beats.encoder.layers.{}.self_attn.k_proj.weight": "beats.layers.{}.attention.k_proj.weight",
    "beats.encoder.layers.{}.self_attn.k_proj.bias": "beats.layers.{}.attention.k_proj.bias",
    "beats.encoder.layers.{}.self_attn.v_proj.weight": "beats.layers.{}.attention.v_proj.weight",
    "beats.encoder.layers.{}.self_attn.v_proj.bias": "beats.layers.{}.attention.v_proj.bias",
    "beats.encoder.layers.{}.self_attn.out_proj.weight": "beats.layers.{}.attention.out_proj.weight",
    "beats.encoder.layers.{}.self_attn.out_proj.bias": "beats.layers.{}.attention.out_proj.bias",
    "beats.encoder.layers.{}.self_attn.grep_linear.weight": "beats.layers.{}.attention.gate_linear.weight",
    "beats.encoder.layers.{}.self_attn.grep_linear.bias": "beats.layers.{}.attention.gate_linear.bias",
    "beats.encoder.layers.{}.self_attn.grep_a": "beats.layers.{}.attention.gate_scale",
    "beats.encoder.layers.{}.self_attn_layer_norm.weight": "beats.layers.{}.attention_norm.weight",
    "beats.encoder.layers.{}.self_attn_layer_norm.bias": "beats.layers.{}.attention_norm.bias",
    "beats.encoder.layers.{}.fc1.weight": "beats.layers.{}.fc1.weight",
    "beats.encoder.layers.{}.fc1.bias": "beats.layers.{}.fc1.bias",
    "beats.encoder.layers.{}.fc2.weight": "beats.layers.{}.fc2.weight",
    "beats.encoder.layers.{}.fc2.bias": "beats.layers.{}.fc2.bias",
    "beats.encoder.layers.{}.final_layer_norm.weight": "beats.layers.{}.final_norm.weight",
    "beats.encoder.layers.{}.final_layer_norm.bias": "beats.layers.{}.final_norm.bias",
    "beats.predictor.weight": None,
    "beats.predictor.bias": None,
    "ln_audio.weight": "audio_norm.weight",
    "ln_audio.bias": "audio_norm.bias",
    # Q-Former
    "audio_query_tokens": "qformer.queries",
    "audio_Qformer.bert.embeddings.position_ids": None,
    "audio_Qformer.bert.embeddings.LayerNorm.weight": "qformer.bert.layernorm.weight",
    "audio_Qformer.bert.embeddings.LayerNorm.bias": "qformer.bert.layernorm.bias",
    **{
        f"audio_Qformer.bert.encoder.layer.{{}}.{published}.{kind}": (
            f"qformer.bert.encoder.layer.{{}}.{ours}.{kind}"
        )
        for published, ours in {
            "attention.self.query": "attention.attention.query",
            "attention.self.key": "attention.attention.key",
            "attention.self.value": "attention.attention.value",
            "attention.output.dense": "attention.output.dense",
            "attention.output.LayerNorm": "attention.output.LayerNorm",
            "crossattention.self.query": "crossattention.attention.query",
            "crossattention.self.key": "crossattention.attention.key",
            "crossattention.self.value": "crossattention.attention.value",
            "crossattention.output.dense": "crossattention.output.dense",
            "crossattention.output.LayerNorm": "crossattention.output.LayerNorm",
            "intermediate_query.dense": "intermediate_query.dense",
            "output_query.dense": "output_query.dense",
            "output_query.LayerNorm": "output_query.LayerNorm",
        }.items()
        for kind in ("weight", "bias")
    },
    "audio_llama_proj.weight": "audio_projection.weight",
    "audio_llama_proj.bias": "audio_projection.bias",
    # Language model: adapters and embedding
    "llama_embed_tokens.weight": "llama.base_model.model.model.embed_tokens.weight",
    **{
        f"llama_model.base_model.model.model.layers.{{}}.self_attn.{name}": (
            f"llama.base_model.model.model.layers.{{}}.self_attn.{name}"
        )
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj")
        for name in (f"{projection}.lora_A.default.weight", f"{projection}.lora_B.default.weight")
    },
}

# The base LLM, as training checkpoints hold it beside the rest.
BASE_LLM_KEYS: dict[str, str] = {
    f"llama_model.base_model.model.{name}": f"llama.base_model.model.{name}"
    for name in (
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
        *(
            f"model.layers.{{}}.{name}.weight"
            for name in (
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "self_attn.q_proj.base_layer",
                "self_attn.k_proj.base_layer",
                "self_attn.v_proj.base_layer",
                "self_attn.o_proj.base_layer",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
                "input_layernorm",
                "post_attention_layernorm",
            )
        ),
    )
}

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_LISTED = 5


def our_name(published: str) -> str | None:
    """Our module's name of a published tensor, or None for one that is not used.

    Raises
    ------
    KeyError
        If the family has no such tensor.
    """
    for table in (NATURELM_KEYS, BASE_LLM_KEYS):
        if published in table:
            return table[published]
        template, numbers = _NUMBER.sub("{}", published), _NUMBER.findall(published)
        if template in table:
            ours = table[template]
            return ours if ours is None else ours.format(*numbers)
    raise KeyError(published)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a torch file read without running any code in it.

    A torch file may hold the tensors under ``model`` or ``state_dict``, as BEATs' own checkpoints do.

    Raises
    ------
    NaturelmError
        If the file cannot be read or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise NaturelmError(f"{path}: there is no such file; a checkpoint needs it") from error
    except Exception as error:  # both readers raise many kinds of errors for a damaged file
        reason = str(error).split("\n", 1)[0][:120]
        raise NaturelmError(f"{path}: holds no readable weights ({reason}); fetch the file again") from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise NaturelmError(f"{path}: holds something else than named tensors; give a model checkpoint")
    return content


def load_published(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy published tensors into a module, all or none; only the base LLM may be left out.

    Parameters
    ----------
    module
        The model, or a part of it under its own name (``nn.ModuleDict({"beats": ...})``).
    tensors
        Published name -> tensor, of any floating type.
    where
        The checkpoint's path, for errors.

    Raises
    ------
    NaturelmError
        If tensors are missing, unknown or of another shape; one message names them.
    """
    targets = module.state_dict(keep_vars=True)
    found: dict[str, Tensor] = {}
    unknown, misshaped = [], []
    for name in sorted(tensors, key=_by_number):
        try:
            ours = our_name(name)
        except KeyError:
            unknown.append(name)
            continue
        if ours is None:
            continue
        if ours not in targets:
            unknown.append(name)
        elif targets[ours].shape != tensors[name].shape:
            misshaped.append(f"{name} {list(tensors[name].shape)} instead of {list(targets[ours].shape)}")
        else:
            # Layers share one relative bias under many names: the last wins, as when each is copied in turn.
            found[ours] = tensors[name]
    wrong_shape = {our_name(entry.split(" ", 1)[0]) for entry in misshaped}
    missing = [
        published
        for ours in targets.keys() - found.keys() - wrong_shape
        if not is_base_llm(published := published_name(ours))
    ]
    problems = [
        _listing(sorted(names, key=_by_number), kind)
        for names, kind in ((missing, "missing"), (unknown, "unknown"), (misshaped, "of another shape"))
        if names
    ]
    if problems:
        raise NaturelmError(
            f"{where} does not fit the model its config.json describes: {'; '.join(problems)}; "
            "give a checkpoint whose tensors and sizes belong together"
        )
    with torch.no_grad():
        for ours, tensor in found.items():
            targets[ours].copy_(tensor)


def published_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors by their published names, without the base LLM, as a release holds them."""
    named = {published_name(ours): tensor for ours, tensor in module.state_dict().items()}
    return {name: tensor.contiguous() for name, tensor in named.items() if not is_base_llm(name)}


def published_name(ours: str) -> str:
    """The published name of one of our tensors."""
    numbers = _NUMBER.findall(ours)
    published = _PUBLISHED[_NUMBER.sub("{}", ours)]
    # The shared relative bias stands under the first layer's name.
    return published.format(*(numbers or ["0"]))


def is_base_llm(published: str) -> bool:
    """Whether a published name belongs to the base LLM, which releases leave to its own repository."""
    return published in BASE_LLM_KEYS or _NUMBER.sub("{}", published) in BASE_LLM_KEYS


def _listing(names: Iterable[str], kind: str) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {kind} ({', '.join(names[:_LISTED])}{more})"


def _by_number(name: str) -> list[Any]:
    """Sort key that puts layer 10 after layer 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split(".")]


# Releases' names come last, so that the token embedding is written as `llama_embed_tokens`.
_PUBLISHED: dict[str, str] = {
    ours: published for table in (BASE_LLM_KEYS, NATURELM_KEYS) for published, ours in table.items() if ours
}
