"""Matrix products of inference on a CPU, by the faster of the two libraries that PyTorch carries.

For float32 PyTorch calls MKL, which on AMD processors leaves their widest instructions unused: measured on a Zen 5
core, MKL does 105 GFLOP/s and oneDNN 235, on products of 16 rows and more (docs/benchmarks). Below that MKL is quicker.
"""

from __future__ import annotations

import logging
import platform
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ROWS_FOR_ONEDNN = 16
_LOG = logging.getLogger(__name__)


@cache
def has_onednn() -> bool:
    """Whether this processor and this PyTorch multiply with oneDNN; the log reports once where only PyTorch cannot."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    # Private in torch 2.13: PyTorch's own compiler calls this operator for the same purpose.
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return True
    _LOG.warning(
        "PyTorch %s has no mkldnn._linear_pointwise: matrix products on this CPU are slower",
        torch.__version__,
    )
    return False


@cache
def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself: elsewhere it takes longer than float32."""
    # Private, as below: without them float32 is chosen.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, quicker where no gradient is wanted: same result but for rounding."""
    if (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()  # the operator has none
        and x.numel() >= _ROWS_FOR_ONEDNN * x.shape[-1]
        and has_onednn()
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


class _InferenceLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def quicken(module: nn.Module, on: bool = True) -> None:
    """Let the plain linear layers of a module multiply by `linear` when no gradient is wanted; or no longer.

    Nothing else about them changes: neither weights nor names, nor training.
    """
    plain, quick = (nn.Linear, _InferenceLinear) if on else (_InferenceLinear, nn.Linear)
    for child in module.modules():
        if type(child) is plain:
            child.__class__ = quick
