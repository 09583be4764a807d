"""A model's memory is known before it is loaded, and what does not fit is one sentence with what does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from naturelm.errors import NaturelmError
from naturelm.models import NatureLM, load_model
from naturelm.models.presets import resolve
from naturelm.models.sizes import Room, choose_weights, sizes_of
from naturelm.synthetic.stand_ins import random_full_size
from tests.paths import SMALL_MODEL

FULL = resolve("naturelm-8b")


def _cpu(gigabytes: float, has_bfloat16: bool = True) -> Room:
    return Room(gigabytes * 1e9, False, has_bfloat16)


def test_the_released_model_has_the_sizes_that_its_shapes_give() -> None:
    model = random_full_size("meta", torch.bfloat16)
    counts = {name: parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name}
    matrices = sum(
        n for name, n in counts.items() if ".layers." in name and "llama." in name and "norm" not in name
    )
    sizes = sizes_of(FULL)
    assert sizes is not None
    assert sizes.matrices == matrices
    assert sizes.others == pytest.approx(sum(counts.values()) - matrices, rel=1e-3)


def test_headers_of_files_give_the_numbers_of_the_model_in_them(tmp_path: Path) -> None:
    model = load_model(SMALL_MODEL, device="cpu")
    NatureLM.quantize(SMALL_MODEL, tmp_path / "int8", "int8")
    plain, quantized = sizes_of(resolve(SMALL_MODEL)), sizes_of(resolve(tmp_path / "int8"))
    assert plain is not None
    assert quantized is not None
    count = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if name.startswith("llama.") and "_proj." in name and "lora_" not in name
    )
    assert plain.matrices == quantized.matrices == count
    assert (plain.stored, quantized.stored) == (None, "int8")
    assert quantized.bytes_of("int8") < plain.bytes_of("bf16") < plain.bytes_of("float32")


def test_auto_is_bfloat16_where_it_fits_and_the_cpu_has_it_else_8_bits() -> None:
    assert choose_weights(FULL, "auto", "auto", _cpu(24)) == "bf16"
    assert choose_weights(FULL, "auto", "auto", _cpu(12)) == "int8"
    assert choose_weights(FULL, "auto", "auto", _cpu(40, has_bfloat16=False)) == "auto"  # float32
    assert choose_weights(FULL, "auto", "auto", _cpu(24, has_bfloat16=False)) == "int8"
    assert choose_weights(FULL, "auto", "float32", _cpu(40)) == "auto"
    assert choose_weights(FULL, "auto", "auto", Room(24e9, True, True)) == "auto"
    assert choose_weights(FULL, "auto", "auto", Room(12e9, True, True)) == "int8"


def test_a_small_model_and_an_unknown_one_stay_as_they_are() -> None:
    assert choose_weights(resolve("pocket"), "auto", "auto", _cpu(2)) == "auto"
    assert choose_weights(resolve("owner/model"), "auto", "auto", _cpu(1)) == "auto"
    assert choose_weights(FULL, "bf16", "auto", Room(None, False, False)) == "bf16"


def test_too_little_memory_is_a_sentence_with_the_choices_that_fit() -> None:
    with pytest.raises(
        NaturelmError,
        match=r"naturelm-8b needs about .* with weights bf16, and 14.0 GB are free; give --weights int8",
    ):
        choose_weights(FULL, "bf16", "auto", _cpu(14))
    with pytest.raises(
        NaturelmError, match=r"GPU memory .* 6.0 GB are free; it needs at least .* GB: end other"
    ):
        choose_weights(FULL, "auto", "auto", Room(6e9, True, True))
