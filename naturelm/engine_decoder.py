"""Llama's forward pass over explicit key-value buffers, as the engine needs it.

The weights are those of a `transformers.LlamaForCausalLM`; only the way through them is ours: query, key and value
in one matrix product, no masks rebuilt per step, key-value buffers that can be shared, forked and compacted, and
decode steps that replay as CUDA graphs.

Axes: R rows · L new tokens of each row · S slots of the buffer · D model width · V vocabulary ·
H query heads · N key-value heads · G query heads per key-value head · K width of one head
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.models.linear import linear

# CUDA graphs are recorded for these numbers of rows, and for visible slots in steps of `_SLOT_STEP`.
_GRAPH_ROWS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
_SLOT_STEP = 64


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


class DecodeBuffer:
    """Keys, values and masks of the rows that generate together, and their decode step.

    Attributes
    ----------
    kv : Tensor
        Buffer of `Decoder.new_kv`.
    mask_RS : Tensor
        bool, true where a row sees a slot. Every row sees slot 0 always: attention over nothing would be NaN.
    """

    def __init__(self, decoder: Decoder, rows: int, slots: int) -> None:
        device = decoder.device
        self.decoder = decoder
        self.rows = self._round_up_rows(rows)
        self.slots = -(-slots // _SLOT_STEP) * _SLOT_STEP
        # Zeros, because attention multiplies what a mask hides by 0, and 0 · NaN is NaN.
        self.kv = decoder.new_kv(self.rows, self.slots).zero_()
        self.mask_RS = torch.zeros(self.rows, self.slots, dtype=torch.bool, device=device)
        self.mask_RS[:, 0] = True

    @classmethod
    def on(cls, decoder: Decoder, rows: int, slots: int) -> DecodeBuffer:
        """The buffer for the decoder's device."""
        kind = GraphedDecodeBuffer if decoder.device.type == "cuda" else DecodeBuffer
        return kind(decoder, rows, slots)

    def fits(self, rows: int, slots: int) -> bool:
        """Whether so many rows with so many slots go in."""
        return rows <= self.rows and slots <= self.slots

    def keep(self, rows_R: Tensor) -> None:
        """Move the rows `rows_R` (int64, on the device) to the front, in that order; the others are lost."""
        count = rows_R.numel()
        for layer in self.kv:
            layer[:, :count] = layer[:, rows_R]
        self.mask_RS[:count] = self.mask_RS[rows_R]

    def fork(self, rows: int, copies: int, slots: int) -> None:
        """Copy the first `rows` rows behind themselves until there are `copies` of each (copy-major)."""
        for copy in range(1, copies):
            self.kv[:, :, copy * rows : (copy + 1) * rows, :, :slots] = self.kv[:, :, :rows, :, :slots]
            self.mask_RS[copy * rows : (copy + 1) * rows] = self.mask_RS[:rows]

    def reorder(self, rows_R: Tensor, slots: slice) -> None:
        """Within the given slots row i takes what row ``rows_R[i]`` held: a beam moves with what it said."""
        count = rows_R.numel()
        for layer in self.kv:
            layer[:, :count, :, slots] = layer[:, :, :, slots].index_select(1, rows_R)

    def step(self, tokens_R: Tensor, positions_R: Tensor, slot: int) -> Tensor:
        """Logits float32 ``[R, V]`` after one more token in each of the first R rows, kept in `slot`."""
        rows = tokens_R.numel()
        self.mask_RS[:rows, slot] = True
        return self._step(tokens_R, positions_R, slice(slot, slot + 1), slot + 1).float()

    def _step(self, tokens_R: Tensor, positions_R: Tensor, slots: slice | Tensor, visible: int) -> Tensor:
        rows = tokens_R.numel()
        hidden_RLD = self.decoder.forward(
            self.decoder.embed(tokens_R).unsqueeze(1),
            positions_R.unsqueeze(1),
            self.kv[:, :, :rows],
            slots,
            visible,
            self.mask_RS[:rows, None, :visible],
        )
        return self.decoder.logits(hidden_RLD[:, 0])

    def _round_up_rows(self, rows: int) -> int:
        return rows


class GraphedDecodeBuffer(DecodeBuffer):
    """A decode buffer whose steps replay as CUDA graphs, which take a tenth of the time to launch.

    There is a graph for each number of rows in `_GRAPH_ROWS` (rows beyond the live ones compute what nobody reads)
    and each multiple of `_SLOT_STEP` visible slots, recorded when first needed.
    """

    def __init__(self, decoder: Decoder, rows: int, slots: int) -> None:
        super().__init__(decoder, rows, slots)
        device = decoder.device
        self._tokens_R = torch.zeros(self.rows, dtype=torch.int64, device=device)
        self._positions_R = torch.zeros(self.rows, dtype=torch.int64, device=device)
        self._slot = torch.zeros(1, dtype=torch.int64, device=device)
        # One for all graphs: logits of a large vocabulary are the largest tensors of a step.
        self._logits_RV = torch.zeros(self.rows, decoder.lm_head.shape[0], dtype=torch.float32, device=device)
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    def step(self, tokens_R: Tensor, positions_R: Tensor, slot: int) -> Tensor:
        count = tokens_R.numel()
        self.mask_RS[:count, slot] = True
        self._tokens_R[:count] = tokens_R
        self._positions_R[:count] = positions_R
        self._slot.fill_(slot)
        rows, visible = self._round_up_rows(count), (slot // _SLOT_STEP + 1) * _SLOT_STEP
        if (rows, visible) not in self._graphs:

            def step() -> None:
                tokens_R, positions_R = self._tokens_R[:rows], self._positions_R[:rows]
                self._logits_RV[:rows] = self._step(tokens_R, positions_R, self._slot, visible)

            self._graphs[rows, visible] = self._record(step)
        self._graphs[rows, visible].replay()
        return self._logits_RV[:count]

    def _record(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        # Recording wants every library warmed up, on a stream of its own.
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            step()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads (a loader that pins memory) may go on meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        self._pool = graph.pool()
        return graph

    def _round_up_rows(self, rows: int) -> int:
        return next((bucket for bucket in _GRAPH_ROWS if bucket >= rows), rows)
