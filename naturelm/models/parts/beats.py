"""BEATs: a transformer over patches of a log-mel spectrogram (Chen et al. 2022, arXiv 2212.09058).

Axes: B batch · S samples · T frames · M mel bins · P patches · D model width · H heads · K width of one head ·
G groups of the position convolution · N blocks of positions
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from naturelm.models.parts.compiled import Compiled
from naturelm.models.parts.fbank import SAMPLE_RATE_HZ, beats_features, frame_count
from naturelm.models.parts.linear import linear


@dataclass(frozen=True)
class BeatsConfig:
    """Sizes of a BEATs encoder, named as in published checkpoints; the defaults are BEATs iter3+'s."""

    input_patch_size: int = 16
    embed_dim: int = 512
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800
    mel_bins: int = 128
    dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    # Each layer passes back to those before it so much of its gradient; 1 is all of it.
    layer_wise_gradient_decay_ratio: float = 1.0

    def patch_count(self, samples: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> int:
        """Patches that so many samples give; a rest smaller than a patch is left out."""
        rows = frame_count(samples, sample_rate_hz) // self.input_patch_size
        return rows * (self.mel_bins // self.input_patch_size)


class Beats(nn.Module):
    """Sound to one vector per 160 ms × 16 mel bins.

    ``forward(waveforms_BS)`` takes float ``[batch, samples]`` in [-1, 1] at 16 kHz and returns
    ``[batch, patches, encoder_embed_dim]``; patch ``t * 8 + f`` is time step ``t``, frequency band ``f``.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        patch, width = config.input_patch_size, config.encoder_embed_dim
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, kernel_size=patch, stride=patch, bias=False)
        self.patch_norm = nn.LayerNorm(config.embed_dim)
        self.patch_projection = nn.Linear(config.embed_dim, width)
        self.position_conv = PositionConv(width, config.conv_pos, config.conv_pos_groups)
        self.norm = nn.LayerNorm(width)
        self.relative_bias = RelativeBias(
            config.encoder_attention_heads, config.num_buckets, config.max_distance
        )
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, waveforms_BS: Tensor) -> Tensor:
        return self.encode_features(beats_features(waveforms_BS, mel_bins=self.config.mel_bins))

    def encode_features(self, features_BTM: Tensor) -> Tensor:
        """Encode what :func:`naturelm.models.parts.fbank.beats_features` gives."""
        features_BTM = features_BTM.to(self.patch_embedding.weight.dtype)
        x_BPD = self._embed_patches(features_BTM)
        x_BPD = self.dropout(self.patch_projection(self.patch_norm(x_BPD)))
        x_BPD = self.dropout(self.norm(x_BPD + self.position_conv(x_BPD)))
        bias_HPP = self.relative_bias(x_BPD.shape[1]).contiguous()
        decay = self.config.layer_wise_gradient_decay_ratio
        for layer in self.layers:
            # A random number is drawn only in training, so that inference leaves the generator alone.
            if self.training and torch.rand(()).item() < self.config.encoder_layerdrop:
                continue
            if decay != 1.0 and x_BPD.requires_grad:
                x_BPD = _ScaledGradient.apply(x_BPD, decay)
            x_BPD = layer(x_BPD, bias_HPP)
        return x_BPD

    def _embed_patches(self, features_BTM: Tensor) -> Tensor:
        """The patch convolution, whose patches do not overlap, as one matrix product: several times faster."""
        patch = self.config.input_patch_size
        rows, columns = features_BTM.shape[1] // patch, features_BTM.shape[2] // patch
        whole_BTM = features_BTM[:, : rows * patch, : columns * patch]
        patches = whole_BTM.unflatten(2, (columns, patch)).unflatten(1, (rows, patch)).transpose(2, 3)
        return linear(patches.flatten(3).flatten(1, 2), self.patch_embedding.weight.flatten(1))


class _ScaledGradient(torch.autograd.Function):
    """The same values; their gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None


class PositionConv(nn.Module):
    """Convolutional position embedding; its kernel is weight-normalised over all but the kernel axis.

    Libraries have no fast kernel for many groups of few channels. Where no gradient is wanted, `_BLOCK` neighbouring
    outputs of a group are therefore one row of a matrix product: of the inputs they see with a banded matrix that
    holds the kernel `_BLOCK` times, each one input further down.
    """

    # A longer block reads its inputs less often, but multiplies by more zeros and stores a larger matrix.
    _BLOCK: Mapping[str, int] = {"cuda": 16, "cpu": 8}

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        std = math.sqrt(4 / (kernel * width))
        self.weight_v = nn.Parameter(torch.randn(width, width // groups, kernel) * std)
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(width))
        # Not a buffer: it follows from the weights, and a checkpoint holds none.
        self._banded: tuple[tuple[Any, ...], Tensor] | None = None

    def forward(self, x_BPD: Tensor) -> Tensor:
        device = x_BPD.device.type
        if torch.is_grad_enabled() or torch.is_autocast_enabled(device):
            return F.gelu(self._convolve(x_BPD))
        return F.gelu(self._multiply(x_BPD))

    def _convolve(self, x_BPD: Tensor) -> Tensor:
        device = x_BPD.device.type
        # On CPUs with AMX, oneDNN's bfloat16 convolution is wrong where a group has few channels.
        dtype = torch.float32 if device == "cpu" else x_BPD.dtype
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device) and device != "cpu"):
            y_BDP = F.conv1d(
                x_BPD.transpose(1, 2).to(dtype),
                self._weight().to(dtype),
                self.bias.to(dtype),
                padding=self.kernel // 2,
                groups=self.groups,
            ).to(x_BPD.dtype)
        # An even kernel gives one position too many.
        return y_BDP[..., : x_BPD.shape[1]].transpose(1, 2)

    def _multiply(self, x_BPD: Tensor) -> Tensor:
        batch, length, _ = x_BPD.shape
        block = self._BLOCK.get(x_BPD.device.type, 8)
        dtype = x_BPD.dtype
        banded_GIO = self._banded_weight(block, x_BPD.device, dtype)
        blocks = -(-length // block)
        before = self.kernel // 2
        after = blocks * block + self.kernel - 1 - before - length
        padded_BPD = F.pad(x_BPD.to(dtype), (0, 0, before, max(0, after)))
        seen_BNGCI = padded_BPD.unflatten(2, (self.groups, -1)).unfold(1, block + self.kernel - 1, block)
        rows_GNI = seen_BNGCI[:, :blocks].permute(2, 0, 1, 4, 3).reshape(self.groups, batch * blocks, -1)
        if x_BPD.device.type == "cpu":
            # `bmm` is left to MKL, which is two to four times slower here than oneDNN on AMD processors.
            y_GNO = torch.stack(
                [linear(rows, banded.t()) for rows, banded in zip(rows_GNI, banded_GIO, strict=True)]
            )
        else:
            y_GNO = torch.bmm(rows_GNI, banded_GIO)
        y_BPD = y_GNO.unflatten(2, (block, -1)).unflatten(1, (batch, blocks)).permute(1, 2, 3, 0, 4)
        y_BPD = y_BPD.reshape(batch, blocks * block, -1)[:, :length]
        return (y_BPD + self.bias.to(dtype)).to(x_BPD.dtype)

    def _banded_weight(self, block: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """``[groups, (block + kernel - 1) * channels, block * channels]``, made again when the weights change."""
        weights = (self.weight_v, self.weight_g)
        key = (block, device, dtype, *(state for weight in weights for state in _state(weight)))
        if self._banded is None or self._banded[0] != key:
            self._banded = None
            kernel_GKCO = self._weight().to(dtype).unflatten(0, (self.groups, -1)).permute(0, 3, 2, 1)
            groups, kernel, channels, _ = kernel_GKCO.shape
            banded = kernel_GKCO.new_zeros(groups, block + kernel - 1, channels, block, channels)
            for first in range(block):
                banded[:, first : first + kernel, :, first] = kernel_GKCO
            self._banded = (key, banded.flatten(3).flatten(1, 2))
        return self._banded[1]

    def _weight(self) -> Tensor:
        v = self.weight_v.float()
        return self.weight_g.float() * v / v.norm(dim=(0, 1), keepdim=True)


def _state(weight: Tensor) -> tuple[int, int]:
    """Changes when the weight does."""
    # Private in torch 2.13: PyTorch counts changes in place there, except of tensors made in inference mode. Without
    # the counter a matrix is never found unchanged.
    version = 0 if weight.is_inference() else getattr(weight, "_version", next(_NEVER_SAME))
    return weight.data_ptr(), version


_NEVER_SAME = itertools.count(-1, -1)


class RelativeBias(nn.Module):
    """Attention bias by distance between patches (T5's bidirectional buckets), one table for all layers."""

    def __init__(self, heads: int, buckets: int, max_distance: int) -> None:
        super().__init__()
        self.buckets, self.max_distance = buckets, max_distance
        self.weight = nn.Parameter(torch.randn(buckets, heads) * 0.02)

    def forward(self, length: int) -> Tensor:
        """Bias ``[heads, length, length]``, computed once per batch and used by every layer."""
        positions = torch.arange(length, device=self.weight.device)
        distance_PP = positions.unsqueeze(0) - positions.unsqueeze(1)
        return F.embedding(self._bucket(distance_PP), self.weight).permute(2, 0, 1)

    def _bucket(self, distance_PP: Tensor) -> Tensor:
        half = self.buckets // 2
        exact = half // 2
        far_PP = distance_PP.abs()
        # In this order of operations, so that rounding puts every distance into the bucket it was trained in.
        log_PP = torch.log(far_PP.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        log_PP = exact + (log_PP * (half - exact)).long()
        near_PP = torch.where(far_PP < exact, far_PP, log_PP.clamp(max=half - 1))
        return near_PP + half * (distance_PP > 0)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, normalised after residuals that deep-norm scales (arXiv 2203.00555)."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.residual_scale = (2 * config.encoder_layers) ** 0.25
        self.attention = GatedAttention(width, config.encoder_attention_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BPD: Tensor, bias_HPP: Tensor) -> Tensor:
        # float32 is for comparing: its sums stay those of the plain operations.
        is_plain = torch.is_grad_enabled() or x_BPD.dtype == torch.float32
        project, attend, finish = _PLAIN if is_plain else _COMPILED
        return finish(x_BPD, attend(*project(x_BPD, self.attention), bias_HPP), self)


def _project(x_BPD: Tensor, attention: GatedAttention) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return attention.project(x_BPD)


def _finish(x_BPD: Tensor, y_BHPK: Tensor, layer: EncoderLayer) -> Tensor:
    attended_BPD = layer.dropout(layer.attention.out_proj(y_BHPK.transpose(1, 2).flatten(2)))
    x_BPD = layer.attention_norm(x_BPD * layer.residual_scale + attended_BPD)
    fed_BPD = layer.dropout(layer.fc2(F.gelu(layer.fc1(x_BPD))))
    return layer.final_norm(x_BPD * layer.residual_scale + fed_BPD)


class GatedAttention(nn.Module):
    """Self-attention whose position bias is gated by the query (WavLM's GRU gate, arXiv 2110.13900)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.gate_linear = nn.Linear(width // heads, 8)
        self.gate_scale = nn.Parameter(torch.ones(1, heads, 1, 1))

    def project(self, x_BPD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[B, H, P, K]``, and the gate ``[B, H, P, 1]`` of the position bias."""
        q_BHPK, k_BHPK, v_BHPK = (
            projection(x_BPD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        update_BHP1, reset_BHP1 = (
            self.gate_linear(q_BHPK).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        )
        return q_BHPK, k_BHPK, v_BHPK, update_BHP1 * (reset_BHP1 * self.gate_scale - 1.0) + 2.0


def attend_masked(
    q_BHPK: Tensor, k_BHPK: Tensor, v_BHPK: Tensor, gate_BHP1: Tensor, bias_HPP: Tensor
) -> Tensor:
    """Attention with the gated bias written out as a mask."""
    if q_BHPK.device.type == "cpu" and q_BHPK.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        return _attend_head_by_head(q_BHPK, k_BHPK, v_BHPK, gate_BHP1, bias_HPP)
    mask_BHPP = (gate_BHP1 * bias_HPP).to(q_BHPK.dtype)
    return F.scaled_dot_product_attention(q_BHPK, k_BHPK, v_BHPK, attn_mask=mask_BHPP)


def _attend_head_by_head(
    q_BHPK: Tensor, k_BHPK: Tensor, v_BHPK: Tensor, gate_BHP1: Tensor, bias_HPP: Tensor
) -> Tensor:
    """As `attend_masked`, twice as fast in bfloat16: one head's scores stay in a core's cache, in float32.

    PyTorch's attention multiplies in bfloat16 no faster than in float32 on CPUs without AMX; single products do.
    """
    y_BHPK = torch.empty_like(q_BHPK)
    scale = q_BHPK.shape[-1] ** -0.5
    for window in range(q_BHPK.shape[0]):
        for head, bias_PP in enumerate(bias_HPP):
            scores_PP = torch.mm(q_BHPK[window, head], k_BHPK[window, head].t()).float().mul_(scale)
            shares_PP = scores_PP.addcmul_(gate_BHP1[window, head], bias_PP).softmax(-1).to(q_BHPK.dtype)
            y_BHPK[window, head] = shares_PP @ v_BHPK[window, head]
    return y_BHPK


def attend_flexibly(
    q_BHPK: Tensor, k_BHPK: Tensor, v_BHPK: Tensor, gate_BHP1: Tensor, bias_HPP: Tensor
) -> Tensor:
    """As `attend_masked`, the bias gated where scores are formed: no mask in memory. Fast only when compiled."""
    gate_BHP = gate_BHP1.squeeze(-1)

    def gated(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + gate_BHP[b, h, i] * bias_HPP[h, i, j]

    return flex_attention(q_BHPK, k_BHPK, v_BHPK, score_mod=gated)


_PLAIN: tuple[Callable[..., Any], ...] = (_project, attend_masked, _finish)
# Attention is compiled by itself: PyTorch's compiler takes only tensors in memory into the function of the scores.
_COMPILED = (Compiled(_project), Compiled(attend_flexibly, plain=attend_masked), Compiled(_finish))
