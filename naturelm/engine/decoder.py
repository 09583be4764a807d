"""Llama's forward pass over explicit key-value buffers, as the engine needs it.

The weights are those of a `transformers.LlamaForCausalLM`; only the way through them is ours: query, key and value
in one matrix product, no masks rebuilt per step, key-value buffers that can be shared, forked and compacted, and
decode steps that replay as CUDA graphs.

Axes: R rows · L new tokens of each row · S slots of the buffer · D model width · V vocabulary ·
H query heads · N key-value heads · G query heads per key-value head · K width of one head
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.models.parts.linear import linear


@dataclass(frozen=True)
class _Layer:
    input_norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


class Decoder:
    """Forward pass of one Llama.

    Parameters
    ----------
    llm : transformers.LlamaForCausalLM
        With its adapters merged. It is not kept, only its weights.

    Raises
    ------
    ValueError
        The model has biases in its projections, which no Llama this program reads has.
    """

    def __init__(self, llm: Any) -> None:
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
        self._rotary = llm.model.rotary_emb
        self._layers = [
            _Layer(
                input_norm=layer.input_layernorm.weight.detach(),
                qkv=torch.cat(
                    [
                        projection.weight.detach()
                        for projection in (
                            layer.self_attn.q_proj,
                            layer.self_attn.k_proj,
                            layer.self_attn.v_proj,
                        )
                    ]
                ),
                out=layer.self_attn.o_proj.weight.detach(),
                mlp_norm=layer.post_attention_layernorm.weight.detach(),
                gate=layer.mlp.gate_proj.weight.detach(),
                up=layer.mlp.up_proj.weight.detach(),
                down=layer.mlp.down_proj.weight.detach(),
            )
            for layer in llm.model.layers
        ]

    @property
    def weight_bytes(self) -> int:
        """Bytes that one decode step reads of the weights."""
        tensors = [self.lm_head, self.final_norm]
        tensors += [tensor for layer in self._layers for tensor in vars(layer).values()]
        return sum(tensor.nbytes for tensor in tensors)

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

        Returns
        -------
        Tensor
            Hidden states ``[R, L, D]``, not yet normalised.
        """
        rows, length, width = x_RLD.shape
        heads, kv_heads, group = self.heads, self.kv_heads, self.group
        cos, sin = self._rotary(x_RLD, positions)
        cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
        if mask is not None:
            # The heads of a group go through attention as one head with `group` times the queries: no key is copied.
            mask = mask.repeat(1, group, 1).unsqueeze(1) if length > 1 else mask.unsqueeze(1)
        for layer, (keys, values) in zip(self._layers, kv, strict=True):
            y = linear(F.rms_norm(x_RLD, (width,), layer.input_norm, self.norm_eps), layer.qkv)
            qk, v = y.view(rows, length, heads + 2 * kv_heads, self.head_dim).split(
                [heads + kv_heads, kv_heads], 2
            )
            low, high = qk.chunk(2, dim=-1)
            qk = qk * cos + torch.cat((-high, low), dim=-1) * sin
            q, k = qk.split([heads, kv_heads], 2)
            keys[:, :, slots] = k.transpose(1, 2)
            values[:, :, slots] = v.transpose(1, 2)
            q = q.transpose(1, 2).reshape(rows, kv_heads, group * length, self.head_dim)
            y = F.scaled_dot_product_attention(
                q, keys[:, :, :visible], values[:, :, :visible], attn_mask=mask
            )
            y = y.reshape(rows, heads, length, self.head_dim).transpose(1, 2).reshape(rows, length, -1)
            x_RLD = x_RLD + linear(y, layer.out)
            y = F.rms_norm(x_RLD, (width,), layer.mlp_norm, self.norm_eps)
            x_RLD = x_RLD + linear(F.silu(linear(y, layer.gate)) * linear(y, layer.up), layer.down)
        return x_RLD

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
