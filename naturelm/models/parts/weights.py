"""How the language model's matrices are stored, and multiplied with: one kind for a whole model.

A product has two halves, so that a GPU can fuse the first one with what computes its rows (a norm, an activation):
`prepare` turns rows into what the kind multiplies (for FP8: numbers and a scale for each row), `multiply` is the
matrix product. A kind is three small functions and what it needs of a device; the decoder knows no kind.

Axes: N rows · I inputs · O outputs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.errors import NaturelmError
from naturelm.models.parts import quantized_int8
from naturelm.models.parts.linear import linear

FP8 = torch.float8_e4m3fn
FP8_LARGEST = torch.finfo(FP8).max
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Stored:
    """A weight matrix as a kind stores it.

    Attributes
    ----------
    values : Tensor
        ``[O, I]`` in the kind's type.
    scales : Tensor, optional
        float32 ``[O, 1]``: what the rows of `values` are multiplied by.
    dtype : torch.dtype
        Of products, where `values` do not say.
    """

    values: Tensor
    scales: Tensor | None = None
    dtype: torch.dtype = torch.bfloat16

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)


@dataclass(frozen=True)
class WeightKind:
    """A way to store matrices and to multiply by them.

    Attributes
    ----------
    name : str
        As an `Engine` is given it.
    bytes_per_weight : float
        Of the matrices of the language model's layers.
    store : callable
        ``Tensor [O, I] -> Stored``.
    prepare : callable
        ``Tensor [N, I] -> prepared``; elementwise within rows, so that it fuses.
    multiply : callable
        ``(prepared, Stored) -> Tensor [N, O]`` in the rows' type.
    missing : callable
        What the device lacks for this kind, in words, or None.
    pack : callable
        ``Stored -> Stored``, in the order in which the device multiplies it; cannot be undone.
    """

    name: str
    bytes_per_weight: float
    store: Callable[[Tensor], Stored]
    prepare: Callable[[Tensor], Any]
    multiply: Callable[[Any, Stored], Tensor]
    missing: Callable[[torch.device], str | None]
    pack: Callable[[Stored], Stored] = lambda stored: stored


def weight_kind(name: str, device: torch.device) -> WeightKind:
    """The kind of that name, if the device can use it.

    Raises
    ------
    NaturelmError
        There is no such kind, or the device lacks what it needs.
    """
    if name not in WEIGHT_KINDS:
        raise NaturelmError(f"weights are {name!r}; give {', '.join(WEIGHT_KINDS)}")
    kind = WEIGHT_KINDS[name]
    missing = kind.missing(device)
    if missing is not None:
        raise NaturelmError(f"weights {name!r} need {missing}; give 'bf16' or 'int8'")
    return kind


def as_stored(weights: str, dtype: torch.dtype | None) -> tuple[str | None, torch.dtype | None]:
    """What a user's word for the weights means: the kind, None for what a checkpoint holds, and the type of the rest.

    Raises
    ------
    NaturelmError
        There is no such word, or it contradicts `dtype`.
    """
    if weights == "auto":
        return None, dtype
    if weights == "bf16":
        if dtype not in (None, torch.bfloat16):
            raise NaturelmError("weights are bf16 and dtype is float32; leave out one of them")
        return "plain", torch.bfloat16
    if weights not in WEIGHT_KINDS or weights == "plain":
        words = ", ".join(["auto", "bf16", *(name for name in WEIGHT_KINDS if name != "plain")])
        raise NaturelmError(f"weights are {weights!r}; give one of {words}")
    return weights, dtype


# -- plain: in the model's own type ------------------------------------------------------------------------


def _multiply_plain(x_NI: Tensor, stored: Stored) -> Tensor:
    return linear(x_NI, stored.values)


def _as_it_is(x_NI: Tensor) -> Tensor:
    return x_NI


# -- FP8: numbers of 8 bits (4 of them exponent), one scale for each row of both factors --------------------------


def quantize_rows(x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """FP8 numbers ``[N, I]`` and float32 scales ``[N, 1]`` whose product is the rows, to 4 significant bits."""
    x_NI = x_NI.float()
    # A row of zeros has scale 1, not 0, so that nothing is divided by zero.
    largest_N1 = x_NI.abs().amax(dim=-1, keepdim=True)
    scale_N1 = torch.where(largest_N1 > 0, largest_N1 / FP8_LARGEST, 1.0)
    return (x_NI / scale_N1).clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8), scale_N1


def _store_fp8(weight_OI: Tensor) -> Stored:
    # Some rows at a time, into what is made first: what quantising needs between is small and leaves no gaps.
    values_OI = torch.empty_like(weight_OI, dtype=FP8)
    scales_O1 = weight_OI.new_empty(len(weight_OI), 1, dtype=torch.float32)
    for start in range(0, len(weight_OI), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        values_OI[rows], scales_O1[rows] = quantize_rows(weight_OI[rows])
    return Stored(values_OI, scales_O1)


def _multiply_fp8(prepared: tuple[Tensor, Tensor], stored: Stored) -> Tensor:
    x_NI, scale_N1 = prepared
    assert stored.scales is not None
    if x_NI.device.type == "cuda":
        by_rows = F.ScalingType.RowWise
        return F.scaled_mm(
            x_NI,
            stored.values.t(),
            scale_N1,
            by_rows,
            stored.scales.t(),
            by_rows,
            output_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
    # The same numbers, multiplied in float32: how FP8 is checked where no card has it.
    return ((x_NI.float() @ stored.values.float().t()) * scale_N1 * stored.scales.t()).to(torch.bfloat16)


def _missing_for_fp8(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        return "a GPU of compute capability 8.9 or later (Ada, Hopper, Blackwell)"
    if not hasattr(F, "scaled_mm"):
        return f"a PyTorch with torch.nn.functional.scaled_mm, which {torch.__version__} lacks"
    return None


# -- int8: whole numbers of 8 bits, one scale for each row of both factors ------------------------------------------


def _store_int8(weight_OI: Tensor) -> Stored:
    return Stored(*quantized_int8.int8_rows(weight_OI), weight_OI.dtype)


def _multiply_int8(prepared: tuple[Tensor, Tensor], stored: Stored) -> Tensor:
    assert stored.scales is not None
    return quantized_int8.multiply_int8(*prepared, stored.values, stored.scales, stored.dtype)


def _pack_int8(stored: Stored) -> Stored:
    return Stored(quantized_int8.pack_int8(stored.values), stored.scales, stored.dtype)


WEIGHT_KINDS: dict[str, WeightKind] = {
    "plain": WeightKind("plain", 2.0, Stored, _as_it_is, _multiply_plain, lambda device: None),
    "fp8": WeightKind("fp8", 1.0, _store_fp8, quantize_rows, _multiply_fp8, _missing_for_fp8),
    "int8": WeightKind(
        "int8",
        1.0,
        _store_int8,
        quantized_int8.int8_rows,
        _multiply_int8,
        lambda device: None,
        _pack_int8,
    ),
}
