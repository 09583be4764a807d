"""NatureLM-audio: an audio-language model for bioacoustics (Robinson et al. 2024, arXiv 2411.07186).

Sound -> BEATs -> window-level Q-Former -> projection -> tokens among a prompt's words -> Llama with LoRA.

Axes: B batch · S samples · P patches · E width of BEATs · A audio tokens · D the LLM's width
"""

from __future__ import annotations

from typing import ClassVar, cast

from torch import Tensor, nn

from naturelm.errors import NaturelmError
from naturelm.models.audio_llama import AudioLlama
from naturelm.models.naturelm import published
from naturelm.models.naturelm.config import NatureLMConfig
from naturelm.models.naturelm.names import NAMES
from naturelm.models.parts.beats import Beats
from naturelm.models.parts.qformer import WindowQFormer


class NatureLM(AudioLlama):
    """BEATs and a window-level Q-Former before a Llama; sound is padded or cut to the window by default.

    ``NatureLM.from_pretrained("pocket")`` loads a preset, a directory or a hub id, as `naturelm.load_model` does.
    """

    config: NatureLMConfig
    config_class = NatureLMConfig
    names = NAMES
    audio_parts: ClassVar = {
        "beats": ("beats",),
        "qformer": ("audio_norm", "qformer"),
        "projection": ("audio_projection",),
    }
    audio_layers: ClassVar = {"beats": "beats.layers"}

    def make_audio_branch(self, token_width: int) -> None:
        config = self.config
        self.beats = Beats(config.beats)
        self.audio_norm = nn.LayerNorm(config.beats.encoder_embed_dim)
        self.qformer = WindowQFormer(
            config.qformer,
            config.beats.encoder_embed_dim,
            config.num_audio_query_token,
            config.window_patches,
            config.stride_patches,
        )
        self.audio_projection = nn.Linear(config.qformer.hidden_size, token_width)
        if self.audio_tokens < 1:
            raise NaturelmError(
                f"a window of {config.window_s:g} s gives no audio tokens; give a longer window_s"
            )

    def encode_features(self, waveforms_BS: Tensor, pad_to_window: bool = True) -> Tensor:
        return self.audio_norm(self.beats(self.fit_window(waveforms_BS, pad_to_window)))

    def project_features(self, features_BPE: Tensor) -> Tensor:
        return self.audio_projection(self.qformer(features_BPE))

    def encode_as_published(self, waveforms_BS: Tensor) -> Tensor:
        features_BPE = self.audio_norm(published.encode_patches(self.beats, self.fit_window(waveforms_BS)))
        return self.project_features(features_BPE)

    def audio_token_count(self, samples: int, pad_to_window: bool = True) -> int:
        heard = self.natural_window_samples if pad_to_window else samples
        return self.qformer.token_count(self.config.beats.patch_count(heard))

    @property
    def feature_width(self) -> int:
        return self.config.beats.encoder_embed_dim

    @property
    def drops_layers(self) -> bool:
        return self.config.beats.encoder_layerdrop > 0

    @property
    def patch_filters(self) -> nn.Parameter:
        return cast(nn.Parameter, self.beats.patch_embedding.weight)
