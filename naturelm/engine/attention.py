"""Attention of one new token in each row over that row's keys and values: a kernel for GPUs, in Triton.

A decoding step reads all keys and values once, and little else: it is bound by that. PyTorch's attention reads as many
slots as the shape has, and a mask for each; this kernel reads the slots up to the newest token, whose number it takes
from the device, so that one CUDA graph serves every step.

Axes: R rows · H key-value heads · G query heads of each · S slots · K width of one head
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Slots read at once by one program, and the least height of a matrix product on tensor cores.
_SLOTS_AT_ONCE = 32
_LEAST_ROWS = 16


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    q_ptr,
    keys_ptr,
    values_ptr,
    mask_ptr,
    slot_ptr,
    out_ptr,
    q_row,
    q_head,
    q_group,
    kv_row,
    kv_head,
    kv_slot,
    mask_row,
    scale,
    heads: tl.constexpr,
    group: tl.constexpr,
    width: tl.constexpr,
    padded: tl.constexpr,
    at_once: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    last = tl.load(slot_ptr)
    g = tl.arange(0, padded)
    k = tl.arange(0, width)
    q_at = row * q_row + head * q_head + g[:, None] * q_group + k[None, :]
    q = tl.load(q_ptr + q_at, mask=g[:, None] < group, other=0.0)
    start_of_row = row * kv_row + head * kv_head
    largest = tl.full([padded], -1e30, tl.float32)
    total = tl.zeros([padded], tl.float32)
    sums = tl.zeros([padded, width], tl.float32)
    for start in range(0, last + 1, at_once):
        slot = start + tl.arange(0, at_once)
        seen = tl.load(mask_ptr + row * mask_row + slot, mask=slot <= last, other=0) != 0
        at = start_of_row + slot.to(tl.int64) * kv_slot
        # What is not seen is not read either.
        keys = tl.load(keys_ptr + at[None, :] + k[:, None], mask=seen[None, :], other=0.0)
        scores = tl.dot(q, keys, input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, -1e30)
        higher = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.where(seen[None, :], tl.exp(scores - higher[:, None]), 0.0)
        shrunk = tl.exp(largest - higher)
        total = total * shrunk + tl.sum(weights, 1)
        values = tl.load(values_ptr + at[:, None] + k[None, :], mask=seen[:, None], other=0.0)
        sums = sums * shrunk[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        largest = higher
    out = (sums / total[:, None]).to(out_ptr.dtype.element_ty)
    out_at = ((row * heads + head) * group + g[:, None]) * width + k[None, :]
    tl.store(out_ptr + out_at, out, mask=g[:, None] < group)


def attend_newest(
    q_RHGK: Tensor, keys_RHSK: Tensor, values_RHSK: Tensor, mask_RS: Tensor, slot: Tensor
) -> Tensor:
    """Attention ``[R, H, G, K]`` of queries over the slots up to `slot` that a row's mask shows.

    Parameters
    ----------
    q_RHGK : Tensor
        Queries, with a stride of 1 along K; K a power of two, at least 16.
    keys_RHSK, values_RHSK : Tensor
        One layer of a buffer; strides are the same, and 1 along K.
    mask_RS : Tensor
        bool, true where a row sees a slot; each row sees one at least.
    slot : Tensor
        int64 ``[1]``, on the device: the newest token's slot.
    """
    rows, heads, group, width = q_RHGK.shape
    out = torch.empty_like(q_RHGK, memory_format=torch.contiguous_format)
    _attend[(rows, heads)](
        q_RHGK,
        keys_RHSK,
        values_RHSK,
        mask_RS,
        slot,
        out,
        q_RHGK.stride(0),
        q_RHGK.stride(1),
        q_RHGK.stride(2),
        keys_RHSK.stride(0),
        keys_RHSK.stride(1),
        keys_RHSK.stride(2),
        mask_RS.stride(0),
        width**-0.5,
        heads=heads,
        group=group,
        width=width,
        padded=max(_LEAST_ROWS, triton.next_power_of_2(group)),
        at_once=_SLOTS_AT_ONCE,
    )
    return out
