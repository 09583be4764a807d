"""Every way to store matrices multiplies as the plain product, as exactly as its numbers allow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naturelm.errors import NaturelmError
from naturelm.models.parts.weights import WEIGHT_KINDS, quantize_rows, weight_kind

FP8_STEP = 2.0**-4  # half the distance of neighbouring numbers with 3 bits after the leading one


@given(
    rows=st.integers(1, 20),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 20),
    exponent=st.integers(-20, 20),
)
def test_fp8_products_are_the_plain_ones_to_the_bits_that_fp8_has(
    rows: int, inputs: int, outputs: int, exponent: int
) -> None:
    generator = torch.Generator().manual_seed(rows + 100 * inputs)
    x_NI = torch.randn(rows, inputs, generator=generator) * 2.0**exponent
    weight_OI = torch.randn(outputs, inputs, generator=generator)
    kind = WEIGHT_KINDS["fp8"]
    ours_NO = kind.multiply(kind.prepare(x_NI), kind.store(weight_OI))
    assert ours_NO.dtype == torch.bfloat16
    # Each factor is off by a step at most, and the least numbers of a row by a step of its largest's scale.
    largest = x_NI.abs().amax(1, keepdim=True) * weight_OI.abs().amax(1)
    bound_NO = (x_NI.abs() @ weight_OI.abs().t()) * (2 * FP8_STEP + FP8_STEP**2 + 2**-8)
    bound_NO += inputs * largest * 2.0**-16
    assert ((ours_NO.double() - x_NI.double() @ weight_OI.double().t()).abs() <= bound_NO).all()


def test_a_row_of_zeros_stays_zero_and_the_largest_number_is_kept_exactly() -> None:
    values, scales = quantize_rows(torch.tensor([[0.0, 0.0], [1.0, -3.0]]))
    assert torch.isfinite(scales).all()
    assert (values.float() * scales)[0].tolist() == [0.0, 0.0]
    assert (values.float() * scales)[1, 1].item() == pytest.approx(-3.0, rel=1e-6)


def test_fp8_takes_half_the_bytes_of_bfloat16() -> None:
    weight_OI = torch.randn(64, 256).bfloat16()
    plain, fp8 = (WEIGHT_KINDS[name].store(weight_OI).nbytes for name in ("plain", "fp8"))
    assert plain == weight_OI.nbytes
    assert fp8 == plain / 2 + 64 * 4


def test_a_device_without_fp8_and_an_unknown_kind_are_refused_in_a_sentence() -> None:
    with pytest.raises(NaturelmError, match=r"'fp8' need a GPU of compute capability 8.9 .*; give 'plain'"):
        weight_kind("fp8", torch.device("cpu"))
    with pytest.raises(NaturelmError, match="weights are 'int3'; give plain or fp8"):
        weight_kind("int3", torch.device("cpu"))
    assert weight_kind("plain", torch.device("cpu")).name == "plain"
