"""Window-level Q-Former: a third of a second of BEATs features becomes a few vectors (arXiv 2310.13289).

Axes: B batch · P patches · D features' width · N windows · W patches of one window · Q queries · E own width
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel


@dataclass(frozen=True)
class QFormerConfig:
    """Sizes of the Q-Former; the defaults are BERT-base's with two layers, as published."""

    hidden_size: int = 768
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    num_hidden_layers: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1


class WindowQFormer(nn.Module):
    """Cuts features into windows and lets learned queries attend to each.

    ``forward(features_BPD)`` returns ``[batch, windows * queries, hidden_size]``; patches that do not fill a
    last window are unused.
    """

    def __init__(
        self,
        config: QFormerConfig,
        feature_width: int,
        queries: int,
        window_patches: int,
        stride_patches: int,
    ) -> None:
        super().__init__()
        self.window_patches, self.stride_patches = window_patches, stride_patches
        self.queries = nn.Parameter(torch.randn(1, queries, config.hidden_size) * 0.02)
        self.bert = Blip2QFormerModel(
            Blip2QFormerConfig(
                encoder_hidden_size=feature_width, cross_attention_frequency=1, **asdict(config)
            )
        )

    def forward(self, features_BPD: Tensor) -> Tensor:
        batch = features_BPD.shape[0]
        windows_BNDW = features_BPD.unfold(1, self.window_patches, self.stride_patches)
        windows_NWD = windows_BNDW.flatten(0, 1).transpose(1, 2)
        queries_NQE = self.queries.expand(windows_NWD.shape[0], -1, -1)
        out_NQE = self.bert(query_embeds=queries_NQE, encoder_hidden_states=windows_NWD).last_hidden_state
        return out_NQE.reshape(batch, -1, out_NQE.shape[-1])

    def token_count(self, patches: int) -> int:
        """Vectors that so many patches give."""
        if patches < self.window_patches:
            return 0
        return ((patches - self.window_patches) // self.stride_patches + 1) * self.queries.shape[1]
