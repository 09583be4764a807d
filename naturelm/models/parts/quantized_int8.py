"""Products of 8-bit whole numbers: one scale for each row of both factors (W8A8).

On x86 processors oneDNN multiplies unsigned rows (zero is 128) by signed weights and scales the sums as it writes them;
GPUs have `torch._int_mm`. Elsewhere the same numbers are multiplied in float32, which is slow and gives the same.

Axes: N rows · I inputs · O outputs
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST = 127
_ZERO = 128
# `torch._int_mm` takes no fewer rows on a GPU.
_LEAST_ROWS_ON_GPU = 17
_GPU_MULTIPLE = 8


def int8_rows(x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """int8 numbers ``[N, I]`` and float32 scales ``[N, 1]`` whose product is the rows, to half a scale."""
    largest_N1 = x_NI.abs().amax(dim=-1, keepdim=True).float()
    scale_N1 = torch.where(largest_N1 > 0, largest_N1 / LARGEST, 1.0)
    return (x_NI / scale_N1).round().to(torch.int8), scale_N1


def pack_int8(values_OI: Tensor) -> Tensor:
    """Weights in the order in which oneDNN reads them; as they are where it does not multiply them."""
    if values_OI.device.type != "cpu" or values_OI.is_mkldnn or not has_int8_products():
        return values_OI
    return torch.ops.onednn.qlinear_prepack(values_OI, None)


def multiply_int8(
    x_NI: Tensor, scale_N1: Tensor, values_OI: Tensor, scales_O1: Tensor, dtype: torch.dtype
) -> Tensor:
    """Product ``[N, O]`` of `int8_rows` of rows and of weights, the weights packed or not, in `dtype`."""
    if values_OI.is_mkldnn:
        return _multiply_packed(x_NI, values_OI, scales_O1.view(-1), dtype).mul_(scale_N1)
    if x_NI.device.type == "cuda" and not (x_NI.shape[1] % _GPU_MULTIPLE or len(values_OI) % _GPU_MULTIPLE):
        rows = len(x_NI)
        x_NI = F.pad(x_NI, (0, 0, 0, max(0, _LEAST_ROWS_ON_GPU - rows)))
        sums_NO = torch._int_mm(x_NI, values_OI.t())[:rows]
    else:
        sums_NO = x_NI.float() @ values_OI.float().t()
    return (sums_NO * scale_N1 * scales_O1.t()).to(dtype)


def _multiply_packed(x_NI: Tensor, packed_OI: Tensor, scales_O: Tensor, dtype: torch.dtype) -> Tensor:
    # Flipping the highest bit adds 128.
    rows = x_NI.view(torch.uint8) ^ _ZERO
    zeros_O = torch.zeros(len(scales_O), dtype=torch.int32)
    return torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, _ZERO, packed_OI, scales_O, zeros_O, None, 1.0, 0, dtype, "none", [], ""
    )


@cache
def has_int8_products() -> bool:
    """Whether oneDNN multiplies 8-bit numbers here, and rightly: without VNNI its sums of two products overflow."""
    # Private in torch 2.13: `onednn`'s operators, which PyTorch's own quantised models call, and `_int_mm`, its only
    # product of 8-bit whole numbers for GPUs.
    if not hasattr(torch.ops.onednn, "qlinear_prepack") or not torch.backends.mkldnn.is_available():
        return False
    values_OI = torch.full((16, 64), LARGEST, dtype=torch.int8)
    x_NI = torch.full((2, 64), LARGEST, dtype=torch.int8)
    try:
        packed = torch.ops.onednn.qlinear_prepack(values_OI, None)
        sums_NO = _multiply_packed(x_NI, packed, torch.ones(16), torch.float32)
    except RuntimeError:
        return False
    return bool((sums_NO == 64 * LARGEST**2).all())
