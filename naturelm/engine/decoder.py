"""Llama's forward pass over explicit key-value buffers, as the engine needs it.

The weights are those of a `transformers.LlamaForCausalLM`; only the way through them is ours: query, key and value
in one matrix product, gate and up in another, what lies between the products fused on a GPU, no masks rebuilt per
step, and key-value buffers that can be shared, forked and compacted.

Axes: R rows · L new tokens of each row · N = R · L tokens · S slots of the buffer · D model width · V vocabulary ·
H query heads · G query heads per key-value head · K width of one head
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naturelm.errors import NaturelmError
from naturelm.models.parts.compiled import Compiled
from naturelm.models.parts.linear import linear
from naturelm.models.parts.quantized import kind_of, stored_product
from naturelm.models.parts.weights import Stored, WeightKind, weight_kind

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries ``[R, kv heads, G · L, K]`` over the keys and values ``[R, kv heads, S, K]`` of one layer."""


@dataclass(frozen=True)
class _Layer:
    input_norm: Tensor
    qkv: Stored
    out: Stored
    mlp_norm: Tensor
    gate_up: Stored
    down: Stored


class Decoder:
    """Forward pass of one Llama.

    Parameters
    ----------
    llm : transformers.LlamaForCausalLM
        With its adapters merged. It is not kept, only its weights: matrices that are multiplied together become views
        of one, so that none is stored twice.
    weights : str
        How the matrices of the layers are stored: a name in `naturelm.models.parts.weights.WEIGHT_KINDS`.
    release : bool
        Empty the matrices of `llm` that this decoder stores otherwise.

    Raises
    ------
    ValueError
        The model has biases in its projections, which no Llama this program reads has.
    NaturelmError
        The device cannot use such weights.
    """

    def __init__(self, llm: Any, weights: str = "plain", release: bool = False) -> None:
        config = llm.config
        if config.attention_bias or config.mlp_bias:
            raise ValueError(
                "the language model has biases in its projections; the engine reads Llama without them"
            )
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.group = self.heads // self.kv_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.mlp_width: int = config.intermediate_size
        self.norm_eps: float = config.rms_norm_eps
        self.embedding: Tensor = llm.get_input_embeddings().weight.detach()
        self.final_norm: Tensor = llm.model.norm.weight.detach()
        self.lm_head: Tensor = llm.get_output_embeddings().weight.detach()
        self.device, self.dtype = self.lm_head.device, self.lm_head.dtype
        self.kind = kind_of(llm) or weight_kind(weights, self.device)
        if weights not in ("plain", self.kind.name):
            raise NaturelmError(f"weights are {self.kind.name} already, not {weights}; leave it out")
        self._rotary = llm.model.rotary_emb
        self._fused = _fused(self.kind, self.norm_eps)
        self._layers = [self._take(layer, release) for layer in llm.model.layers]

    def _take(self, layer: Any, release: bool) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp

        def store(*projections: nn.Linear) -> Stored:
            if self.device.type == "cuda":
                # What the last matrix replaced goes back to the card: a smaller one in its place would leave a gap.
                torch.cuda.empty_cache()
            whole = stored_product(projections)
            if whole is not None:
                return whole
            stored = self.kind.store(_joined([projection.weight for projection in projections]))
            if release and stored.values.dtype != self.dtype:
                for projection in projections:
                    projection.weight.data = projection.weight.data.new_empty(0)
            return stored

        return _Layer(
            input_norm=layer.input_layernorm.weight.detach(),
            qkv=store(attention.q_proj, attention.k_proj, attention.v_proj),
            out=store(attention.o_proj),
            mlp_norm=layer.post_attention_layernorm.weight.detach(),
            gate_up=store(mlp.gate_proj, mlp.up_proj),
            down=store(mlp.down_proj),
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes that one decode step reads of the weights."""
        tensors: list[Any] = [self.lm_head, self.final_norm]
        tensors += [tensor for layer in self._layers for tensor in vars(layer).values()]
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def matrix_numbers(self) -> int:
        """Numbers in the matrices of all layers, however they are stored."""
        stored = [one for layer in self._layers for one in vars(layer).values() if isinstance(one, Stored)]
        return sum(one.values.numel() for one in stored)

    @property
    def kv_bytes(self) -> int:
        """Bytes that keys and values of one token take."""
        return len(self._layers) * 2 * self.kv_heads * self.head_dim * self.dtype.itemsize

    def new_kv(self, rows: int, slots: int) -> Tensor:
        """Key-value buffer ``[layers, 2, rows, kv_heads, slots, head_dim]``, its numbers not set."""
        shape = (len(self._layers), 2, rows, self.kv_heads, slots, self.head_dim)
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Input embeddings ``[..., D]`` of token ids."""
        return F.embedding(token_ids, self.embedding)

    def forward(
        self,
        x_RLD: Tensor,
        positions: Tensor,
        kv: Tensor,
        slots: slice | Tensor,
        visible: int,
        mask: Tensor | None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Run new tokens through the layers, writing their keys and values.

        Parameters
        ----------
        x_RLD : Tensor
            Input embeddings of the new tokens.
        positions : Tensor
            Position of each, int64 ``[R, L]`` or ``[1, L]``.
        kv : Tensor
            Buffer of `new_kv`, with R rows.
        slots : slice or Tensor
            Where in the buffer the new tokens go: the same L slots in every row.
        visible : int
            Attention reads the first so many slots.
        mask : Tensor, optional
            bool ``[R or 1, L, visible]``, true where a token sees a slot; all is seen where not given.
        attend : callable, optional
            Attention; by default `attend_masked` with `mask`.

        Returns
        -------
        Tensor
            Hidden states ``[R, L, D]``, not yet normalised.
        """
        rows, length, width = x_RLD.shape
        heads, kv_heads, group, fused = self.heads, self.kv_heads, self.group, self._fused
        multiply = self.kind.multiply
        if attend is None:
            attend = self.attend_masked(mask, length)
        cos_NK, sin_NK = (
            table.expand(rows, -1, -1).flatten(0, 1) for table in self._rotary(x_RLD, positions)
        )
        x_ND = x_RLD.reshape(-1, width)
        y: Any = None
        for layer, (keys, values) in zip(self._layers, kv, strict=True):
            x_ND, y = fused.norm(x_ND, y, layer.input_norm)
            qkv_NHK = multiply(y, layer.qkv).unflatten(-1, (-1, self.head_dim))
            qk_NHK = fused.rotate(qkv_NHK[:, : heads + kv_heads], cos_NK, sin_NK)
            q_NHK, k_NHK = qk_NHK[:, :heads], qk_NHK[:, heads:]
            v_NHK = qkv_NHK[:, heads + kv_heads :]
            keys[:, :, slots] = k_NHK.view(rows, length, kv_heads, -1).transpose(1, 2)
            values[:, :, slots] = v_NHK.view(rows, length, kv_heads, -1).transpose(1, 2)
            # The heads of a group go through attention as one head with `group` times the queries: no key is copied.
            q = q_NHK.view(rows, length, heads, -1).transpose(1, 2)
            q = q.reshape(rows, kv_heads, group * length, self.head_dim)
            y = attend(q, keys[:, :, :visible], values[:, :, :visible])
            y_ND = y.reshape(rows, heads, length, self.head_dim).transpose(1, 2).reshape(rows * length, -1)
            x_ND, y = fused.norm(x_ND, multiply(fused.prepare(y_ND), layer.out), layer.mlp_norm)
            y = multiply(fused.swiglu(multiply(y, layer.gate_up)), layer.down)
        return cast(Tensor, x_ND + y).view(rows, length, width)

    def attend_masked(self, mask: Tensor | None, length: int) -> Attend:
        """Attention that sees what a mask of `forward` shows."""
        added = None
        if mask is not None:
            mask = mask.repeat(1, self.group, 1) if length > 1 else mask
            # Written out once: attention would turn truth into numbers in every layer.
            added = torch.zeros(mask.shape, dtype=self.dtype, device=self.device)
            added = added.masked_fill_(~mask, -torch.inf).unsqueeze(1)

        def attend(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=added)

        return attend

    def prefill(self, x_RLD: Tensor, kv: Tensor, start: int) -> Tensor:
        """Causal forward of tokens at positions and slots from `start` on, over a full buffer before it."""
        length = x_RLD.shape[1]
        end = start + length
        positions = torch.arange(start, end, device=self.device).unsqueeze(0)
        seen = torch.arange(end, device=self.device) <= positions.view(-1, 1)
        return self.forward(x_RLD, positions, kv, slice(start, end), end, seen.unsqueeze(0))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[..., V]`` of hidden states ``[..., D]``, in the weights' type."""
        return linear(F.rms_norm(hidden, (hidden.shape[-1],), self.final_norm, self.norm_eps), self.lm_head)


class _Fused:
    """What lies between the matrix products of a layer, each function one pass over its tensors on a GPU."""

    def __init__(self, kind: WeightKind, norm_eps: float) -> None:
        prepare = kind.prepare

        def norm(x_ND: Tensor, weight_D: Tensor) -> Any:
            return prepare(F.rms_norm(x_ND, (x_ND.shape[-1],), weight_D, norm_eps))

        def add_norm(x_ND: Tensor, added_ND: Tensor, weight_D: Tensor) -> tuple[Tensor, Any]:
            x_ND = x_ND + added_ND
            return x_ND, prepare(F.rms_norm(x_ND, (x_ND.shape[-1],), weight_D, norm_eps))

        def swiglu(gate_up_NW: Tensor) -> Any:
            gate_NW, up_NW = gate_up_NW.chunk(2, dim=-1)
            return prepare(F.silu(gate_NW) * up_NW)

        self._norm, self._add_norm = Compiled(norm), Compiled(add_norm)
        self.swiglu = Compiled(swiglu)
        self.prepare: Callable[[Tensor], Any] = prepare if kind.name == "plain" else Compiled(prepare)
        self.rotate = Compiled(_rotate)

    def norm(self, x_ND: Tensor, added_ND: Tensor | None, weight_D: Tensor) -> tuple[Tensor, Any]:
        """The residual stream with what a product adds to it, and its norm, prepared for the next product."""
        if added_ND is None:
            return x_ND, self._norm(x_ND, weight_D)
        return self._add_norm(x_ND, added_ND, weight_D)


@cache
def _fused(kind: WeightKind, norm_eps: float) -> _Fused:
    """One for all decoders, so that a second engine compiles nothing."""
    return _Fused(kind, norm_eps)


def _rotate(qk_NHK: Tensor, cos_NK: Tensor, sin_NK: Tensor) -> Tensor:
    """Queries and keys, each turned by its position (rotary embedding, arXiv 2104.09864)."""
    low_NHK, high_NHK = qk_NHK.chunk(2, dim=-1)
    turned_NHK = torch.cat((-high_NHK, low_NHK), dim=-1)
    return qk_NHK * cos_NK.unsqueeze(1) + turned_NHK * sin_NK.unsqueeze(1)


def _joined(weights: Sequence[Tensor]) -> Tensor:
    """One matrix of several with the same inputs, which become views of it: none is stored twice."""
    if len(weights) == 1:
        return weights[0].detach()
    first = weights[0].data
    ends = [weight.data_ptr() + weight.nbytes for weight in weights]
    starts = [weight.data_ptr() for weight in weights]
    storages = {weight.untyped_storage().data_ptr() for weight in weights}
    if starts[1:] == ends[:-1] and len(storages) == 1 and all(weight.is_contiguous() for weight in weights):
        return first.as_strided((sum(len(weight) for weight in weights), first.shape[1]), first.stride())
    joined = torch.cat([weight.data for weight in weights])
    for weight, view in zip(weights, joined.split([len(weight) for weight in weights]), strict=True):
        weight.data = view
    return joined
