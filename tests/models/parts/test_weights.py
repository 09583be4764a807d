"""Every way to store matrices multiplies as the plain product, as exactly as its numbers allow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naturelm.errors import NaturelmError
from naturelm.models.parts import quantized_int8
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
    with pytest.raises(
        NaturelmError, match=r"'fp8' need a GPU of compute capability 8.9 .*; give 'bf16' or 'int8'"
    ):
        weight_kind("fp8", torch.device("cpu"))
    with pytest.raises(NaturelmError, match="weights are 'int3'; give plain, fp8, int8"):
        weight_kind("int3", torch.device("cpu"))
    assert weight_kind("plain", torch.device("cpu")).name == "plain"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [True, False])
@given(rows=st.integers(1, 20), inputs=st.integers(1, 70), outputs=st.integers(1, 40))
def test_int8_products_are_the_plain_ones_to_the_bits_that_int8_has(
    dtype: torch.dtype, packed: bool, rows: int, inputs: int, outputs: int
) -> None:
    generator = torch.Generator().manual_seed(rows + 100 * inputs)
    x_NI = torch.randn(rows, inputs, generator=generator).to(dtype)
    weight_OI = torch.randn(outputs, inputs, generator=generator).to(dtype)
    kind = WEIGHT_KINDS["int8"]
    stored = kind.store(weight_OI)
    ours_NO = kind.multiply(kind.prepare(x_NI), kind.pack(stored) if packed else stored)
    assert ours_NO.dtype == dtype
    # Each number is off by half a scale at most: a row's largest / 254.
    x, w = x_NI.double().abs(), weight_OI.double().abs()
    x_step, w_step = x.amax(1, keepdim=True) / 254, w.amax(1, keepdim=True) / 254
    bound_NO = x.sum(1, keepdim=True) * w_step.t() + x_step * w.sum(1) + inputs * x_step * w_step.t()
    expected_NO = x_NI.double() @ weight_OI.double().t()
    assert ((ours_NO.double() - expected_NO).abs() <= bound_NO + expected_NO.abs() * 2**-6 + 1e-6).all()


def test_int8_takes_half_the_bytes_of_bfloat16_packed_or_not() -> None:
    kind = WEIGHT_KINDS["int8"]
    stored = kind.store(torch.randn(64, 256).bfloat16())
    assert stored.nbytes == kind.pack(stored).nbytes == 64 * 256 + 64 * 4


@pytest.mark.skipif(not quantized_int8.has_int8_products(), reason="no 8-bit products in this processor")
def test_numbers_of_the_largest_size_do_not_overflow() -> None:
    values_OI, x_NI = torch.full((8, 4096), 127).to(torch.int8), torch.full((3, 4096), -127).to(torch.int8)
    product = quantized_int8.multiply_int8(
        x_NI, torch.ones(3, 1), quantized_int8.pack_int8(values_OI), torch.ones(8, 1), torch.float32
    )
    assert (product == -127 * 127 * 4096).all()
