"""A Llama whose layers hold their matrices as a weight kind stores them, made tensor by tensor.

What is multiplied with the same rows is one matrix: query, key and value, and gate and up. The engine takes these as
they are; by itself each layer computes the whole product and returns its rows of it. Nothing is stored twice.

Axes: O outputs · I inputs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from naturelm.models.parts.llama import new_llama
from naturelm.models.parts.weights import Stored, WeightKind

# Of each layer, the matrices that are multiplied with the same rows.
PRODUCTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)


class QuantizedLinear(nn.Module):
    """Some rows of a stored matrix, in place of a linear layer without bias.

    Parameters
    ----------
    kind : WeightKind
        How it is stored.
    stored : Stored
        The whole matrix, packed.
    rows : slice
        Which of its outputs are this layer's.
    """

    def __init__(self, kind: WeightKind, stored: Stored, rows: slice) -> None:
        super().__init__()
        self.kind, self.stored, self.rows = kind, stored, rows

    def forward(self, x: Tensor) -> Tensor:
        product = self.kind.multiply(self.kind.prepare(x.flatten(0, -2)), self.stored)
        return product[:, self.rows].unflatten(0, x.shape[:-1])


def stored_product(projections: Sequence[nn.Module]) -> Stored | None:
    """The matrix that these layers share; None where they are not quantised."""
    first = projections[0]
    if not isinstance(first, QuantizedLinear):
        return None
    assert all(cast(QuantizedLinear, other).stored is first.stored for other in projections)
    return first.stored


def kind_of(llama: LlamaForCausalLM) -> WeightKind | None:
    """How a Llama's matrices are stored; None where they are not quantised."""
    projection: Any = llama.model.layers[0].self_attn.q_proj
    return projection.kind if isinstance(projection, QuantizedLinear) else None


def quantized_llama(
    config: LlamaConfig,
    kind: WeightKind,
    dtype: torch.dtype,
    device: torch.device,
    plain: Callable[[str], Tensor],
    stored: Callable[[str], Stored],
) -> LlamaForCausalLM:
    """A Llama on a device, made of tensors that are read one after the other.

    Parameters
    ----------
    config
        Its shape.
    kind
        Of the matrices of its layers.
    dtype
        Of all else.
    device
        Where it is to be.
    plain
        A tensor by its name, of those that are not quantised.
    stored
        A matrix by its layer's name (``model.layers.0.mlp.up_proj``), not packed.
    """
    llama = new_llama(config, dtype, "meta")
    for name, projections in products(llama):
        parts = [stored(f"{name}.{projection}") for projection in projections]
        whole = kind.pack(_joined(parts, dtype, device))
        first = 0
        for projection, part in zip(projections, parts, strict=True):
            rows = slice(first, first + len(part.values))
            llama.set_submodule(f"{name}.{projection}", QuantizedLinear(kind, whole, rows))
            first = rows.stop
    for name, parameter in list(llama.named_parameters()):
        tensor = plain(name).to(device=device, dtype=dtype)
        module, _, last = name.rpartition(".")
        # The embedding may have a token more than the base LLM's.
        if name.endswith("embed_tokens.weight") and len(tensor) != len(parameter):
            llama.set_input_embeddings(nn.Embedding(len(tensor), tensor.shape[1], device="meta"))
        setattr(llama.get_submodule(module), last, nn.Parameter(tensor, requires_grad=False))
    # Made on the meta device, so its table of rotations is empty.
    rotary: Any = llama.model.rotary_emb
    with torch.device(device):
        llama.model.rotary_emb = type(rotary)(config)
    return llama.eval()


def products(llama: LlamaForCausalLM) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each layer's name and names of matrices within it that are multiplied with the same rows."""
    for number in range(len(llama.model.layers)):
        for projections in PRODUCTS:
            yield f"model.layers.{number}", projections


def _joined(parts: Sequence[Stored], dtype: torch.dtype, device: torch.device) -> Stored:
    values = torch.cat([part.values.to(device) for part in parts])
    scales = [part.scales.to(device) for part in parts if part.scales is not None]
    return Stored(values, torch.cat(scales) if scales else None, dtype)


class WithoutAdapters(nn.Module):
    """A Llama in the place of one with adapters, its tensors under the names that they have there."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = llama

    def get_base_model(self) -> LlamaForCausalLM:
        return cast(LlamaForCausalLM, self.base_model.model)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self.get_base_model()(*arguments, **named)

    def generate(self, *arguments: Any, **named: Any) -> Any:
        return self.get_base_model().generate(*arguments, **named)
