"""CAV-MAE's audio encoder: a spectrogram transformer over patches (Gong et al. 2022, arXiv 2210.07839).

Axes: B batch · T frames · M mel bins · P patches · D model width · H heads · K width of one head
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naturelm.errors import NaturelmError
from naturelm.models.parts.linear import linear

# Layers of the audio branch and of the branch that audio and video share, together.
_LAYERS = 12
MEL_BINS = 128


@dataclass(frozen=True)
class AstConfig:
    """Sizes of the encoder, named as in published checkpoints; the defaults are the published ones."""

    embed_dim: int = 768
    num_heads: int = 12
    modality_specific_depth: int = 11
    audio_length: int = 1024
    patch_size: int = 16
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.modality_specific_depth >= _LAYERS:
            raise NaturelmError(
                f"audio_encoder: modality_specific_depth is {self.modality_specific_depth}; "
                f"expected fewer than all {_LAYERS} layers"
            )
        if self.embed_dim % self.num_heads or self.audio_length % self.patch_size:
            raise NaturelmError(
                f"audio_encoder: embed_dim {self.embed_dim} must be a multiple of num_heads {self.num_heads}, and "
                f"audio_length {self.audio_length} of patch_size {self.patch_size}"
            )

    @property
    def time_patches(self) -> int:
        """Patches side by side in time."""
        return self.audio_length // self.patch_size

    @property
    def frequency_patches(self) -> int:
        """Patches on top of each other in frequency."""
        return MEL_BINS // self.patch_size


class AudioEncoder(nn.Module):
    """Log-mel energies to one vector per 160 ms x 16 mel bins.

    ``forward(features_BTM)`` takes ``[batch, audio_length, 128]`` and returns ``[batch, patches, embed_dim]``;
    patch ``f * time_patches + t`` is frequency band ``f``, time step ``t``.
    """

    def __init__(self, config: AstConfig) -> None:
        super().__init__()
        self.config = config
        width, patch, own = config.embed_dim, config.patch_size, config.modality_specific_depth
        patches = config.frequency_patches * config.time_patches
        self.patch_embedding = nn.Conv2d(1, width, kernel_size=patch, stride=patch)
        self.position = nn.Parameter(torch.randn(1, patches, width) * 0.02)
        self.modality = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.audio_layers = nn.ModuleList(AstLayer(config) for _ in range(own))
        self.shared_layers = nn.ModuleList(AstLayer(config) for _ in range(_LAYERS - own))
        self.norm = nn.LayerNorm(width)

    def forward(self, features_BTM: Tensor) -> Tensor:
        x_BPD = self._embed_patches(features_BTM.to(self.position.dtype)) + self.position + self.modality
        for layer in (*self.audio_layers, *self.shared_layers):
            x_BPD = layer(x_BPD)
        return self.norm(x_BPD)

    def _embed_patches(self, features_BTM: Tensor) -> Tensor:
        """The patch convolution, whose patches do not overlap, as one matrix product."""
        size, columns, rows = self.config.patch_size, self.config.time_patches, self.config.frequency_patches
        # The published encoder puts frequency before time, in a patch and among patches.
        grid = features_BTM.transpose(1, 2).unflatten(1, (rows, size)).unflatten(3, (columns, size))
        patches = grid.transpose(2, 3).flatten(3).flatten(1, 2)
        return linear(patches, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)


class AstLayer(nn.Module):
    """Attention and feed-forward, each normalised before."""

    def __init__(self, config: AstConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.heads = config.num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, round(width * config.mlp_ratio))
        self.fc2 = nn.Linear(round(width * config.mlp_ratio), width)

    def forward(self, x_BPD: Tensor) -> Tensor:
        x_BPD = x_BPD + self._attend(self.attention_norm(x_BPD))
        return x_BPD + self.fc2(F.gelu(self.fc1(self.mlp_norm(x_BPD))))

    def _attend(self, x_BPD: Tensor) -> Tensor:
        heads_BPHK = self.qkv(x_BPD).unflatten(-1, (3, self.heads, -1))
        q_BHPK, k_BHPK, v_BHPK = (heads_BPHK[:, :, i].transpose(1, 2) for i in range(3))
        y_BHPK = F.scaled_dot_product_attention(q_BHPK, k_BHPK, v_BHPK)
        return self.out_proj(y_BHPK.transpose(1, 2).flatten(2))
