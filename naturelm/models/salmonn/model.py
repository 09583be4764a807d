"""SALMONN: an audio-language model for speech, sounds and music (Tang et al. 2023, arXiv 2310.13289).

Sound -> Whisper beside BEATs -> window-level Q-Former -> projection -> tokens among a prompt's words -> Vicuna, LoRA.

Axes: B batch · S samples · P frames · D width of both encoders together
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naturelm.errors import NaturelmError
from naturelm.models import checkpoint, presets
from naturelm.models.audio_llama import AudioLlama
from naturelm.models.base import Generation
from naturelm.models.parts import whisper
from naturelm.models.parts.beats import Beats
from naturelm.models.parts.qformer import WindowQFormer
from naturelm.models.prompts import PromptLayout
from naturelm.models.salmonn.config import SalmonnConfig
from naturelm.models.salmonn.names import NAMES

# BEATs is given at least this much, as in the published code.
_SHORTEST_S = 1.0


class SALMONN(AudioLlama):
    """Whisper, which takes sound padded to 30 s, beside BEATs, which takes it at its own length, before a Vicuna.

    ``SALMONN.from_pretrained(path, llm=..., whisper=..., beats=...)`` loads a published ``.pth`` file, or a directory
    or hub id that holds one; what the checkpoint itself holds, or its ``config.json`` names, need not be given.
    """

    config: SalmonnConfig
    config_class = SalmonnConfig
    names = NAMES
    part_files = ("whisper", "beats")
    published_generation = Generation(max_new_tokens=200, num_beams=4)
    audio_parts: ClassVar = {
        "whisper": ("whisper",),
        "beats": ("beats",),
        "norms": ("speech_norm", "audio_norm"),
        "qformer": ("qformer",),
        "projection": ("audio_projection",),
    }
    audio_layers: ClassVar = {"whisper": "whisper.encoder.layers", "beats": "beats.layers"}

    def make_audio_branch(self, token_width: int) -> None:
        config = self.config
        self.layout = PromptLayout(
            config.prompt_template, sound="<Speech><SpeechHere></Speech> ", placeholder="<SpeechHere>"
        )
        self.whisper = whisper.Whisper(config.whisper)
        self.beats = Beats(config.beats)
        self.speech_norm = nn.LayerNorm(config.whisper.d_model)
        self.audio_norm = nn.LayerNorm(config.beats.encoder_embed_dim)
        self.qformer = WindowQFormer(
            config.qformer,
            self.feature_width,
            config.num_speech_query_token,
            config.window_frames,
            config.stride_frames,
        )
        self.audio_projection = nn.Linear(config.qformer.hidden_size, token_width)

    def encode_features(self, waveforms_BS: Tensor, pad_to_window: bool = True) -> Tensor:
        waveforms_BS = self.check_waveforms(waveforms_BS)[:, : self.window_samples]
        speech_BPD = self.speech_norm(self.whisper(waveforms_BS))
        missing = round(_SHORTEST_S * self.sample_rate_hz) - waveforms_BS.shape[1]
        audio_BPD = self.audio_norm(self.beats(F.pad(waveforms_BS, (0, max(missing, 0)))))
        # Filled up after the norm: silence would become something else than zeros.
        audio_BPD = F.pad(audio_BPD, (0, 0, 0, speech_BPD.shape[1] - audio_BPD.shape[1]))
        return torch.cat([speech_BPD, audio_BPD], dim=-1)

    def project_features(self, features_BPE: Tensor) -> Tensor:
        return self.audio_projection(self.qformer(features_BPE))

    def audio_token_count(self, samples: int, pad_to_window: bool = True) -> int:
        return self.qformer.token_count(self.config.whisper.max_source_positions)

    def load_part(self, part: str, path: Path) -> None:
        if part != "whisper":
            super().load_part(part, path)
            return
        tensors = whisper.read_encoder(presets.fetch_whisper(path, Path()))
        modules = nn.ModuleDict({"whisper": self.whisper})
        named = {f"speech_encoder.{name}": tensor for name, tensor in tensors.items()}
        checkpoint.load_published(modules, named, self.names, str(path))

    @property
    def feature_width(self) -> int:
        return self.config.whisper.d_model + self.config.beats.encoder_embed_dim

    @property
    def drops_layers(self) -> bool:
        return self.config.beats.encoder_layerdrop > 0

    @property
    def patch_filters(self) -> nn.Parameter:
        return cast(nn.Parameter, self.beats.patch_embedding.weight)

    @classmethod
    def fit_parts(
        cls,
        config: SalmonnConfig,
        tensors: Mapping[str, Tensor],
        directory: Path,
        files: Mapping[str, str | Path],
    ) -> SalmonnConfig:
        named = files.get("whisper") or config.whisper_path
        if "whisper" in files or not _holds(tensors, "speech_encoder.") or (directory / named).is_dir():
            place = presets.fetch_whisper(named, directory)
            config = dataclasses.replace(config, whisper=whisper.read_sizes(place))
        norm = tensors.get("ln_speech.weight")
        if norm is not None and len(norm) != config.whisper.d_model:
            raise NaturelmError(
                f"Whisper {named} is {config.whisper.d_model} wide, and the checkpoint was trained with one that is "
                f"{len(norm)} wide; give that one with --part whisper=DIR"
            )
        if "beats" in files or not _holds(tensors, "beats."):
            _beats_file(config, directory, files)
        return config

    @classmethod
    def read_parts(
        cls,
        config: SalmonnConfig,
        tensors: Mapping[str, Tensor],
        directory: Path,
        files: Mapping[str, str | Path],
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if "whisper" in files or not _holds(tensors, "speech_encoder."):
            named = files.get("whisper") or config.whisper_path
            place = presets.fetch_whisper(named, directory)
            encoder = whisper.read_encoder(place)
            found.update({f"speech_encoder.{name}": tensor for name, tensor in encoder.items()})
        if "beats" in files or not _holds(tensors, "beats."):
            beats = checkpoint.read_tensors(_beats_file(config, directory, files))
            found.update({f"beats.{name}": tensor for name, tensor in beats.items()})
        return found


def _holds(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def _beats_file(config: SalmonnConfig, directory: Path, files: Mapping[str, str | Path]) -> Path:
    named = files.get("beats") or config.beats_path or presets.BEATS_FILE
    for path in (directory / named, Path(named)):
        if path.is_file():
            return path
    raise NaturelmError(
        f"the checkpoint holds no BEATs, and there is no file {named}; give {presets.BEATS_FILE} with --part beats=FILE"
    )
