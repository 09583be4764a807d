"""Low-rank adapters in a Llama (Hu et al. 2021, arXiv 2106.09685): put in by peft, scaled, and merged.

All that this package knows of peft's insides is here: a layer with adapters holds its own weights in ``base_layer`` and
the adapters in the modules ``lora_A``, ``lora_B`` and ``lora_dropout``, each under the name ``default``. Published
checkpoints name their tensors by it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, cast

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from naturelm.models.parts.llama import new_llama

_ADAPTER = "default"
_PARTS = ("lora_A", "lora_B", "lora_dropout")
# Tensors of a PeftModel around a Llama; {} stands for a layer's number.
LORA_NAMES = tuple(
    f"base_model.model.model.layers.{{}}.self_attn.{projection}.{adapter}.{_ADAPTER}.weight"
    for projection in ("q_proj", "k_proj", "v_proj", "o_proj")
    for adapter in ("lora_A", "lora_B")
)
BASE_NAMES = tuple(
    f"base_model.model.{name}.weight"
    for name in (
        "lm_head",
        "model.embed_tokens",
        "model.norm",
        *(
            f"model.layers.{{}}.{name}"
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
)
_SHARE = "adapter_share"
EMBEDDING = "base_model.model.model.embed_tokens.weight"

_log = logging.getLogger(__name__)


def add_lora(
    llama: LlamaForCausalLM, rank: int, alpha: int, dropout: float, targets: Sequence[str]
) -> PeftModel:
    """Put adapters into a Llama, in place; the base's parameters stop training."""
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets)
    )
    with warnings.catch_warnings():
        # peft reads a property of transformers that is deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        return cast(PeftModel, get_peft_model(llama, config))


def adapter_layers(module: nn.Module) -> list[nn.Module]:
    """The layers that have adapters."""
    return [layer for layer in module.modules() if all(hasattr(layer, name) for name in _PARTS)]


def adapter_modules(module: nn.Module) -> list[nn.Module]:
    """The modules of all adapters: their matrices and dropout."""
    return [getattr(layer, name) for layer in adapter_layers(module) for name in _PARTS]


def set_share(module: nn.Module, share: float, alpha: float, rank: int) -> None:
    """Let `share` of the adapters' product act, 1 as trained; earlier shares leave nothing behind."""
    layers = adapter_layers(module)
    if all(isinstance(getattr(layer, "scaling", None), dict) for layer in layers):
        for layer in layers:
            cast(dict[str, float], layer.scaling)[_ADAPTER] = share * alpha / rank
        return
    # Right with any version, but a product more in every layer.
    _log.warning(
        "peft %s has no LoraLayer.scaling; adapters are scaled at their output, which is slower",
        peft.__version__,
    )
    for layer in layers:
        out = cast(nn.ModuleDict, layer.lora_B)[_ADAPTER]
        if not hasattr(out, _SHARE):
            out.register_forward_hook(_scale_output)
        setattr(out, _SHARE, share)


def _scale_output(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * getattr(module, _SHARE)


@torch.no_grad()
def plain_llama(
    adapted: LlamaForCausalLM, scale: float | None = None, dtype: torch.dtype | None = None
) -> LlamaForCausalLM:
    """A Llama without adapters, for inference; parameters that stay as they are, are those of the one given.

    Parameters
    ----------
    adapted
        A Llama with adapters in place.
    scale
        Factor of the adapters' product, which is added to the base's weights in float32; left out where not given.
    dtype
        Of the result; by default that of the base.
    """
    dtype = dtype or adapted.dtype
    tensors: dict[str, Tensor] = {}
    for name, tensor in adapted.state_dict(keep_vars=True).items():
        if any(part in name for part in _PARTS):
            continue
        if scale is not None and ".base_layer." in name:
            layer = adapted.get_submodule(name.rsplit(".", 2)[0])
            tensor = tensor.float() + scale * _product(layer)
        tensors[name.replace(".base_layer.", ".")] = tensor.to(dtype)
    plain = new_llama(adapted.config, dtype, "meta")
    rows, width = tensors["model.embed_tokens.weight"].shape
    plain.model.embed_tokens = nn.Embedding(rows, width, device="meta")
    plain.load_state_dict(tensors, strict=True, assign=True)
    # Made on the meta device, so its table of rotations is empty; the source's is the same.
    plain.model.rotary_emb = adapted.model.rotary_emb
    plain.generation_config = adapted.generation_config
    return plain.eval()


@torch.no_grad()
def merge(adapted: LlamaForCausalLM, scale: float) -> None:
    """Add the adapters' product, times `scale`, to the base's weights for good; the adapters become zero."""
    for layer in adapter_layers(adapted):
        weight = cast(nn.Linear, layer.base_layer).weight
        weight.data = (weight.data.float() + scale * _product(layer)).to(weight.dtype)
        cast(nn.Linear, cast(nn.ModuleDict, layer.lora_B)[_ADAPTER]).weight.zero_()


def _product(layer: nn.Module) -> Tensor:
    first, second = (cast(Tensor, getattr(layer, name)[_ADAPTER].weight) for name in ("lora_A", "lora_B"))
    return second.float() @ first.float()
