"""BEATs gives the same in half precision as in single, and its quick ways what the plain formulas give."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naturelm.models.parts import beats
from naturelm.models.parts.beats import (
    Beats,
    BeatsConfig,
    PositionConv,
    attend_flexibly,
    attend_masked,
)


@pytest.mark.parametrize(("width", "kernel"), [(192, 16), (768, 128)], ids=["pocket", "released"])
@pytest.mark.parametrize("autocast", [True, False])
def test_position_convolution_in_bfloat16_is_that_of_float32(width, kernel, autocast):
    torch.manual_seed(0)
    conv = PositionConv(width, kernel, groups=16)
    x_BPD = torch.randn(4, 62, width)
    with torch.no_grad():
        expected_BPD = conv(x_BPD)
        if autocast:
            with torch.autocast("cpu", torch.bfloat16):
                half_BPD = conv(x_BPD)
        else:
            half_BPD = conv.to(torch.bfloat16)(x_BPD.to(torch.bfloat16)).float()
    assert (half_BPD - expected_BPD).norm() < 0.02 * expected_BPD.norm()


@settings(max_examples=30)
@given(
    kernel=st.integers(1, 40),
    groups=st.sampled_from([1, 2, 4]),
    channels=st.integers(1, 5),
    windows=st.integers(1, 3),
    length=st.integers(1, 70),
    block=st.sampled_from([1, 3, 8, 16, 64]),
)
def test_banded_products_are_the_convolution(
    kernel: int, groups: int, channels: int, windows: int, length: int, block: int
) -> None:
    torch.manual_seed(kernel)
    conv = PositionConv(groups * channels, kernel, groups).double()
    conv._BLOCK = {"cpu": block}  # type: ignore[misc]
    x_BPD = torch.randn(windows, length, groups * channels, dtype=torch.float64)
    weight = conv.weight_g * conv.weight_v / conv.weight_v.norm(dim=(0, 1), keepdim=True)
    y_BDP = torch.nn.functional.conv1d(
        x_BPD.transpose(1, 2), weight, conv.bias, padding=kernel // 2, groups=groups
    )
    expected_BPD = torch.nn.functional.gelu(y_BDP[..., :length].transpose(1, 2))
    with torch.no_grad():
        # The kernel is normalised in float32, whatever the type.
        torch.testing.assert_close(conv(x_BPD), expected_BPD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("counted", [True, False])
def test_a_changed_kernel_is_seen_by_the_next_window(counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not counted:  # as with a PyTorch that does not count changes in place
        state = beats._state
        monkeypatch.setattr(
            beats,
            "_state",
            lambda weight: state(SimpleNamespace(data_ptr=weight.data_ptr, is_inference=weight.is_inference)),
        )
    conv = PositionConv(16, 8, 4)
    x_BPD = torch.randn(1, 20, 16)
    with torch.no_grad():
        conv(x_BPD)
        conv.weight_g.mul_(2)
        changed_BPD = conv(x_BPD)
    torch.testing.assert_close(changed_BPD, conv(x_BPD).detach())  # with gradients: the convolution


@settings(max_examples=15)
@given(
    windows=st.integers(1, 3),
    heads=st.integers(1, 3),
    length=st.integers(1, 40),
    width=st.sampled_from([16, 24, 64]),
)
def test_attention_that_gates_scores_is_attention_with_the_bias_written_out(
    windows: int, heads: int, length: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(length)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, v = (random(windows, heads, length, width) for _ in range(3))
    gate, bias = random(windows, heads, length, 1), random(heads, length, length)
    written_out = ((q @ k.transpose(-1, -2)) * width**-0.5 + gate * bias).softmax(-1) @ v
    torch.testing.assert_close(attend_masked(q, k, v, gate, bias), written_out)
    torch.testing.assert_close(attend_flexibly(q, k, v, gate, bias), written_out)


def test_the_layers_that_a_gpu_compiles_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    config = BeatsConfig(
        embed_dim=32,
        encoder_layers=2,
        encoder_embed_dim=64,
        encoder_ffn_embed_dim=96,
        encoder_attention_heads=4,
        conv_pos=16,
        conv_pos_groups=4,
    )
    model = Beats(config).double().eval()
    x_BPD = torch.randn(2, 24, 64, dtype=torch.float64)
    bias_HPP = model.relative_bias(24)
    with torch.no_grad():
        for layer in model.layers:
            plain_BPD = layer(x_BPD, bias_HPP)
            projected = beats._project(x_BPD, layer.attention)
            attended_BHPK = attend_flexibly(*projected, bias_HPP)
            torch.testing.assert_close(beats._finish(x_BPD, attended_BHPK, layer), plain_BPD)
            x_BPD = plain_BPD


@pytest.mark.slow
def test_attention_as_a_gpu_runs_it_can_be_compiled() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 24, 64).unflatten(-1, (4, -1)).transpose(1, 2) for _ in range(3))
    gate, bias = torch.rand(2, 4, 24, 1), torch.randn(4, 24, 24)
    with torch.inference_mode():
        compiled = torch.compile(attend_flexibly)(q, k, v, gate, bias)
    torch.testing.assert_close(compiled, attend_masked(q, k, v, gate, bias), atol=1e-5, rtol=1e-4)


def test_bfloat16_attention_on_a_cpu_is_that_of_float32() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 40, 16) for _ in range(3))
    gate, bias = torch.rand(2, 3, 40, 1) * 2 + 1, torch.randn(3, 40, 40)
    with torch.no_grad():
        expected = attend_masked(q, k, v, gate, bias)
        half = attend_masked(*(tensor.bfloat16() for tensor in (q, k, v, gate, bias))).float()
    assert (half - expected).norm() < 0.02 * expected.norm()
