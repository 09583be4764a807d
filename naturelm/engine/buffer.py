"""Keys and values of rows that are being decoded, and one decoding step over all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.engine.decoder import Attend, Decoder
from naturelm.errors import first_line, is_out_of_memory

_LOG = logging.getLogger(__name__)

# CUDA graphs are recorded for these numbers of rows.
_GRAPH_ROWS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
# A buffer has a multiple of so many slots: attention reads them in aligned groups.
SLOT_STEP = 16
# Without the kernel of `naturelm.engine.attention` there is also a graph for each multiple of so many visible slots.
_GRAPH_SLOT_STEP = 64
# Of attention's outputs, which are of the order of 1, in half precision.
_KERNEL_TOLERANCE = 0.05


def graph_rows(rows: int) -> int:
    """Rows of a GPU's buffer for so many: the next number that graphs are recorded for."""
    return next((bucket for bucket in _GRAPH_ROWS if bucket >= rows), rows)


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
        self.slots = -(-slots // SLOT_STEP) * SLOT_STEP
        # Zeros, because attention multiplies what a mask hides by 0, and 0 · NaN is NaN.
        self.kv = decoder.new_kv(self.rows, self.slots).zero_()
        self.mask_RS = torch.zeros(self.rows, self.slots, dtype=torch.bool, device=device)
        # Rows that nobody reads decode too in a graph: they see something, so that no NaN is stored in them.
        self.mask_RS[:, 0] = True

    @classmethod
    def on(cls, decoder: Decoder, rows: int, slots: int) -> DecodeBuffer:
        """The buffer for the decoder's device."""
        kind = GraphedDecodeBuffer if decoder.device.type == "cuda" else DecodeBuffer
        return kind(decoder, rows, slots)

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored."""
        return self.kv.nbytes + self.mask_RS.nbytes

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

    def _step(
        self,
        tokens_R: Tensor,
        positions_R: Tensor,
        slots: slice | Tensor,
        visible: int,
        attend: Attend | None = None,
    ) -> Tensor:
        rows = tokens_R.numel()
        hidden_RLD = self.decoder.forward(
            self.decoder.embed(tokens_R).unsqueeze(1),
            positions_R.unsqueeze(1),
            self.kv[:, :, :rows],
            slots,
            visible,
            self.mask_RS[:rows, None, :visible] if attend is None else None,
            attend,
        )
        return self.decoder.logits(hidden_RLD[:, 0])

    def _round_up_rows(self, rows: int) -> int:
        return rows


class GraphedDecodeBuffer(DecodeBuffer):
    """A decode buffer whose steps replay as CUDA graphs, which take a tenth of the time to launch.

    There is a graph for each number of rows in `_GRAPH_ROWS` (rows beyond the live ones compute what nobody reads),
    recorded when first needed.
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
        self._attend_newest = attention_kernel(decoder.device, decoder.dtype, decoder.group, decoder.head_dim)

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._logits_RV.nbytes

    def step(self, tokens_R: Tensor, positions_R: Tensor, slot: int) -> Tensor:
        count = tokens_R.numel()
        self.mask_RS[:count, slot] = True
        self._tokens_R[:count] = tokens_R
        self._positions_R[:count] = positions_R
        self._slot.fill_(slot)
        rows, visible = self._round_up_rows(count), self._round_up_slots(slot + 1)
        if (rows, visible) not in self._graphs:

            def step() -> None:
                tokens_R, positions_R = self._tokens_R[:rows], self._positions_R[:rows]
                logits_RV = self._step(tokens_R, positions_R, self._slot, visible, self._attend(rows))
                self._logits_RV[:rows] = logits_RV

            self._graphs[rows, visible] = self._record(step)
        self._graphs[rows, visible].replay()
        return self._logits_RV[:count]

    def _attend(self, rows: int) -> Attend | None:
        kernel = self._attend_newest
        if kernel is None:
            return None
        mask_RS = self.mask_RS[:rows]
        return lambda q, keys, values: kernel(q, keys, values, mask_RS, self._slot)

    def _record(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        # Recording needs every library warmed up, on a separate stream.
        side, current = _warm_up_stream(self.decoder.device), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            step()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads (a loader that pins memory) may continue meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        self._pool = graph.pool()
        return graph

    def _round_up_rows(self, rows: int) -> int:
        return graph_rows(rows)

    def _round_up_slots(self, slots: int) -> int:
        if self._attend_newest is not None:
            return self.slots
        return min(self.slots, -(-slots // _GRAPH_SLOT_STEP) * _GRAPH_SLOT_STEP)


@cache
def _warm_up_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all graphs: cuBLAS keeps tens of megabytes for every stream that it has run on."""
    return torch.cuda.Stream(device)


@cache
def attention_kernel(
    device: torch.device, dtype: torch.dtype, group: int, head_dim: int
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None:
    """`attend_newest` where it runs for such heads on this device and agrees with PyTorch's attention, else None."""
    if head_dim < 16 or head_dim & (head_dim - 1):
        return None
    try:
        from naturelm.engine.attention import attend_newest

        generator = torch.Generator(device).manual_seed(0)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device).to(dtype)

        rows, heads, slots, newest = 3, 2, 5 * SLOT_STEP, 4 * SLOT_STEP + 3
        # Queries as the decoder has them: beside the keys, in one tensor.
        q_RHGK = noise(rows, heads * (group + 1), head_dim)[:, : heads * group].unflatten(1, (heads, group))
        keys_RHSK, values_RHSK = noise(2, rows, heads, slots, head_dim)
        mask_RS = torch.rand(rows, slots, generator=generator, device=device) < 0.5
        mask_RS[:, 0] = True
        slot = torch.full((1,), newest, device=device)
        found = attend_newest(q_RHGK, keys_RHSK, values_RHSK, mask_RS, slot)
        seen = slice(newest + 1)
        expected = F.scaled_dot_product_attention(
            q_RHGK.float(),
            keys_RHSK[:, :, seen].float(),
            values_RHSK[:, :, seen].float(),
            attn_mask=mask_RS[:, None, None, seen],
        )
        works = bool((found.float() - expected).abs().max() <= _KERNEL_TOLERANCE)
    except Exception as error:  # Triton and the compilers behind it raise many kinds of errors
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
    else:
        if works:
            return attend_newest
        reason = "it differs from PyTorch's attention"
    _LOG.warning("no decoding kernel here (%s); PyTorch's attention decodes", reason)
    return None
