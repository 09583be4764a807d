"""BEATs with the published code's layout of its computation, which ours is measured against."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.models.parts.beats import Beats, EncoderLayer
from naturelm.models.parts.fbank import beats_features


def encode_patches(beats: Beats, waveforms_BS: Tensor) -> Tensor:
    """What ``beats(waveforms_BS)`` returns.

    Filterbanks of one waveform after the other; the position bias of all rows in memory, gated into another tensor of
    that size in every layer; attention weights in memory, their softmax kept in range by the published 1/32 and 32.
    """
    features_BTM = torch.cat([beats_features(row_S[None]) for row_S in waveforms_BS])
    x_BPD = beats.patch_embedding(features_BTM.to(beats.patch_embedding.weight.dtype).unsqueeze(1))
    x_BPD = beats.patch_projection(beats.patch_norm(x_BPD.flatten(2).transpose(1, 2)))
    x_BPD = beats.norm(x_BPD + beats.position_conv(x_BPD))
    rows, patches, width = x_BPD.shape
    heads = beats.config.encoder_attention_heads
    bias_NPP = beats.relative_bias(patches).unsqueeze(0).repeat(rows, 1, 1, 1).view(-1, patches, patches)
    for layer in beats.layers:
        layer = cast(EncoderLayer, layer)
        attention = layer.attention
        q_NPK, k_NPK, v_NPK = (
            projection(x_BPD)
            .view(rows, patches, heads, -1)
            .transpose(1, 2)
            .reshape(rows * heads, patches, -1)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        scaled_NPK = q_NPK * (q_NPK.shape[-1] ** -0.5 / 32)
        weights_NPP = torch.bmm(scaled_NPK, k_NPK.transpose(1, 2))
        weights_NPP = (weights_NPP - weights_NPP.max(dim=-1, keepdim=True)[0]) * 32
        gates_BHP8 = attention.gate_linear(q_NPK.view(rows, heads, patches, -1))
        update, reset = gates_BHP8.unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        gate_NP1 = (update * (reset * attention.gate_scale - 1.0) + 2.0).view(-1, patches, 1)
        weights_NPP = weights_NPP + gate_NP1 * bias_NPP
        y_NPK = torch.bmm(F.softmax(weights_NPP.float(), dim=-1).to(x_BPD.dtype), v_NPK)
        y_BPD = y_NPK.view(rows, heads, patches, -1).transpose(1, 2).reshape(rows, patches, width)
        x_BPD = layer.attention_norm(x_BPD * layer.residual_scale + attention.out_proj(y_BPD))
        x_BPD = layer.final_norm(x_BPD * layer.residual_scale + layer.fc2(F.gelu(layer.fc1(x_BPD))))
    return x_BPD
