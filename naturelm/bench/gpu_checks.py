"""What only a GPU runs (graphs, compiled functions, kernels, FP8), checked against the plain path.

Half precision rounds, so equality cannot be asked for: a quick way must come as near to the result in higher precision
as the plain way does. A check returns plain numbers and ``ok``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from naturelm.engine.buffer import DecodeBuffer
from naturelm.engine.decoder import Decoder
from naturelm.models.parts.beats import BeatsConfig, EncoderLayer, PositionConv, RelativeBias
from naturelm.models.parts.compiled import plain_functions
from naturelm.models.parts.weights import WEIGHT_KINDS

Check = Callable[[torch.device, bool], dict[str, Any]]
"""From a device, and whether to use full sizes, to numbers and ``ok``."""

# A quick way may be so many times as far from the exact result as the plain one, and this much in any case.
_TIMES_AS_FAR = 1.5
_ALWAYS_ALLOWED = 1e-3
# The tensor cores add FP8 products with some 14 bits, and write bfloat16.
_FP8_ALLOWED = 1e-2


@torch.inference_mode()
def position_convolution(device: torch.device, full_size: bool) -> dict[str, Any]:
    """Banded products against the libraries' convolution."""
    conv = _random(PositionConv(*((768, 128, 16) if full_size else (48, 16, 4))), device)
    x_BPD = _noise(4, 496 if full_size else 40, conv.bias.numel(), device=device)

    def convolve(conv: PositionConv, x_BPD: Tensor) -> Tensor:
        with torch.enable_grad():  # with gradients it is PyTorch's own
            return conv(x_BPD.clone()).detach()

    half = x_BPD.bfloat16()
    exact = convolve(copy.deepcopy(conv).double(), x_BPD.double())
    conv = conv.bfloat16()
    return _compare(conv(half), convolve(copy.deepcopy(conv), half), exact)


@torch.inference_mode()
def encoder_layer(device: torch.device, full_size: bool) -> dict[str, Any]:
    """A compiled layer of BEATs, its attention without a mask, against the plain one."""
    small = BeatsConfig(encoder_embed_dim=64, encoder_ffn_embed_dim=96, encoder_attention_heads=4)
    config = BeatsConfig() if full_size else small
    layer = _random(EncoderLayer(config).eval(), device)
    # The batch that the engine encodes at once, so that nothing is compiled twice.
    x_BPD = _noise(32, 496 if full_size else 24, config.encoder_embed_dim, device=device)
    bias = _random(
        RelativeBias(config.encoder_attention_heads, config.num_buckets, config.max_distance), device
    )
    bias_HPP = bias(x_BPD.shape[1]).contiguous()
    with plain_functions():
        exact = layer(x_BPD, bias_HPP)
        layer, half, bias_half = layer.bfloat16(), x_BPD.bfloat16(), bias_HPP.bfloat16()
        plain = layer(half, bias_half)
    return _compare(layer(half, bias_half), plain, exact)


@torch.inference_mode()
def prefill(device: torch.device, full_size: bool) -> dict[str, Any]:
    """Reading prompts with fused functions against PyTorch's operations."""
    exact_decoder, decoder = _decoders(device, full_size)
    x_RLD = _noise(8, 62, decoder.embedding.shape[1], device=device) * 0.02

    def read(decoder: Decoder) -> Tensor:
        return decoder.prefill(x_RLD.to(decoder.dtype), decoder.new_kv(8, 62).zero_(), 0)

    with plain_functions():
        exact, plain = read(exact_decoder), read(decoder)
    return _compare(read(decoder), plain, exact)


@torch.inference_mode()
def decode_steps(device: torch.device, full_size: bool) -> dict[str, Any]:
    """Steps from one recorded graph, with the decoding kernel, against steps without either."""
    exact_decoder, decoder = _decoders(device, full_size)
    rows, slots, prompt = 24, 64, 40
    kv = _noise(*decoder.new_kv(rows, slots).shape, device=device)
    lengths_R1 = torch.arange(rows, device=device).unsqueeze(1) + 1
    tokens_R = torch.arange(rows, device=device)

    def decode(buffer: DecodeBuffer) -> Tensor:
        buffer.kv[:, :, :rows, :, :slots] = kv.to(buffer.kv.dtype)
        buffer.mask_RS[:rows] = torch.arange(buffer.slots, device=device) < lengths_R1
        logits = [
            buffer.step(tokens_R + step, lengths_R1.squeeze(1) + step, prompt + step).clone()
            for step in range(3)
        ]
        return torch.stack(logits)

    with plain_functions():
        exact, plain = (decode(DecodeBuffer(one, rows, slots)) for one in (exact_decoder, decoder))
    return _compare(decode(DecodeBuffer.on(decoder, rows, slots)), plain, exact)


@torch.inference_mode()
def fp8_products(device: torch.device, full_size: bool) -> dict[str, Any]:
    """FP8 products of the tensor cores against the same numbers multiplied in float32."""
    kind = WEIGHT_KINDS["fp8"]
    missing = kind.missing(device)
    if missing is not None:
        return {"ok": True, "left_out": f"needs {missing}"}
    inputs, outputs = (4096, 6144) if full_size else (256, 128)
    noise_RI = _noise(256 + outputs, inputs, device=device)
    x_NI, stored = noise_RI[:256], kind.store(noise_RI[256:])
    numbers, scales = kind.prepare(x_NI)
    assert stored.scales is not None
    exact = (numbers.float() @ stored.values.float().t()) * scales * stored.scales.t()
    difference = _distance(kind.multiply((numbers, scales), stored), exact)
    return {"ok": difference <= _FP8_ALLOWED, "difference": difference}


@torch.inference_mode()
def fp8_prefill(device: torch.device, full_size: bool) -> dict[str, Any]:
    """Reading prompts with FP8 weights, rows quantised in fused functions, against quantising them plainly."""
    missing = WEIGHT_KINDS["fp8"].missing(device)
    if missing is not None:
        return {"ok": True, "left_out": f"needs {missing}"}
    exact_decoder, decoder = _decoders(device, full_size, "fp8")
    x_RLD = _noise(8, 62, decoder.embedding.shape[1], device=device) * 0.02

    def read(decoder: Decoder) -> Tensor:
        return decoder.prefill(x_RLD.to(decoder.dtype), decoder.new_kv(8, 62).zero_(), 0)

    with plain_functions():
        exact, plain = read(exact_decoder), read(decoder)
    return _compare(read(decoder), plain, exact)


CHECKS: tuple[Check, ...] = (
    position_convolution,
    encoder_layer,
    prefill,
    decode_steps,
    fp8_products,
    fp8_prefill,
)


def _decoders(device: torch.device, full_size: bool, weights: str = "plain") -> tuple[Decoder, Decoder]:
    """Two layers of a random Llama in float32, and in bfloat16 with these weights."""
    # Llama-3.1-8B's sizes, so that nothing is compiled twice.
    sizes = (4096, 14336, 32, 8) if full_size else (64, 96, 4, 2)
    width, mlp_width, heads, kv_heads = sizes
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=width,
        intermediate_size=mlp_width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=1e-5,
    )
    torch.manual_seed(0)
    with torch.device(device):
        exact = LlamaForCausalLM(config).eval()
    half = copy.deepcopy(exact).bfloat16()
    return Decoder(exact), Decoder(half, weights)


def _random(module: Any, device: torch.device) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.05)
    return module.to(device)


def _noise(*shape: int, device: torch.device) -> Tensor:
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(*shape, generator=generator, device=device)


def _compare(quick: Tensor, plain: Tensor, exact: Tensor) -> dict[str, Any]:
    quick_away, plain_away = _distance(quick, exact), _distance(plain, exact)
    return {
        "ok": quick_away <= max(_TIMES_AS_FAR * plain_away, _ALWAYS_ALLOWED),
        "difference": quick_away,
        "plain_difference": plain_away,
    }


def _distance(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference, relative to the exact one's."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())
