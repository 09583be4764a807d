"""Whisper's encoder (Radford et al. 2022, arXiv 2212.04356): 30 s of sound to 1,500 vectors.

Axes: B batch · S samples · F frequency bins · M mel bins · T frames
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from naturelm.errors import NaturelmError
from naturelm.models.parts.fbank import SAMPLE_RATE_HZ

WINDOW_S = 30
FFT_SIZE = 400
HOP_SAMPLES = 160
_LEAST_POWER = 1e-10


@dataclass(frozen=True)
class WhisperSizes:
    """Sizes of a Whisper encoder, named as in published checkpoints; the defaults are large-v2's."""

    d_model: int = 1280
    encoder_layers: int = 32
    encoder_attention_heads: int = 20
    encoder_ffn_dim: int = 5120
    num_mel_bins: int = 80
    max_source_positions: int = 1500


class Whisper(nn.Module):
    """Sound, padded with silence or cut to 30 s, to one vector per 20 ms.

    ``forward(waveforms_BS)`` takes float ``[batch, samples]`` in [-1, 1] at 16 kHz and returns
    ``[batch, max_source_positions, d_model]``.
    """

    def __init__(self, sizes: WhisperSizes) -> None:
        super().__init__()
        self.sizes = sizes
        # Dropout is 0 by default. The decoder is not made, so its sizes do not matter.
        self.encoder = WhisperEncoder(WhisperConfig(**asdict(sizes)))

    def forward(self, waveforms_BS: Tensor) -> Tensor:
        features_BMT = log_mel(waveforms_BS, self.sizes.num_mel_bins)
        return self.encoder(features_BMT.to(self.encoder.conv1.weight.dtype)).last_hidden_state


def log_mel(waveforms_BS: Tensor, mel_bins: int = 80) -> Tensor:
    """Log-mel spectrogram as Whisper takes it, float32 ``[batch, mel_bins, 3000]``, whatever autocast says.

    Frames of 25 ms every 10 ms; the logarithm is clamped 8 decades below a sound's loudest, and scaled by 4.
    """
    with torch.autocast(waveforms_BS.device.type, enabled=False):
        samples = WINDOW_S * SAMPLE_RATE_HZ
        # The published code leaves the last frame out.
        frames = samples // HOP_SAMPLES
        # From here on frames hold nothing but the zeros after the sound.
        sounding = min(frames, -(-(waveforms_BS.shape[1] + FFT_SIZE // 2) // HOP_SAMPLES))
        needed = min(samples, sounding * HOP_SAMPLES + FFT_SIZE)
        waveforms_BS = F.pad(waveforms_BS.float(), (0, needed - waveforms_BS.shape[1]))
        window, mel_FM = _constants(mel_bins, waveforms_BS.device)
        spectrum_BFT = torch.stft(waveforms_BS, FFT_SIZE, HOP_SAMPLES, window=window, return_complex=True)
        power_BFT = torch.view_as_real(spectrum_BFT[..., :sounding]).square().sum(dim=-1)
        log_BMT = (mel_FM.T @ power_BFT).clamp(min=_LEAST_POWER).log10()
        log_BMT = F.pad(log_BMT, (0, frames - sounding), value=math.log10(_LEAST_POWER))
        floor_B11 = log_BMT.amax(dim=(1, 2), keepdim=True) - 8.0
        return (torch.maximum(log_BMT, floor_B11) + 4.0) / 4.0


@lru_cache(maxsize=8)
def _constants(mel_bins: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Hann window ``[400]`` and mel filters ``[201, mel_bins]``."""
    # Kept between calls, so neither inference mode nor a default device of this one call may mark them.
    with torch.inference_mode(False), torch.device("cpu"):
        filters = mel_filter_bank(
            num_frequency_bins=FFT_SIZE // 2 + 1,
            num_mel_filters=mel_bins,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE_HZ / 2,
            sampling_rate=SAMPLE_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        mel_FM = torch.from_numpy(filters.astype(np.float32))
        return torch.hann_window(FFT_SIZE).to(device), mel_FM.to(device)


def read_sizes(directory: Path) -> WhisperSizes:
    """Sizes of the Whisper model in a directory.

    Raises
    ------
    NaturelmError
        If it holds none.
    """
    try:
        config = WhisperConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # transformers raises many kinds of errors for a damaged directory
        reason = str(error).strip().split("\n", 1)[0][:160]
        raise NaturelmError(
            f"{directory}: holds no readable Whisper model ({reason}); give --part whisper=DIR"
        ) from error
    if config.model_type != "whisper":
        raise NaturelmError(
            f"{directory}: holds a {config.model_type} model; give --part whisper=DIR a Whisper model"
        )
    return WhisperSizes(**{name: getattr(config, name) for name in asdict(WhisperSizes())})


def read_encoder(directory: Path) -> dict[str, Tensor]:
    """Tensors of the encoder of the Whisper model in a directory, by their names within the encoder.

    Raises
    ------
    NaturelmError
        If the weights cannot be read, or hold no encoder.
    """
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    if (within := _within_encoder(name)) is not None:
                        tensors[within] = file.get_tensor(name)
        except Exception as error:  # safetensors raises its own kind
            raise NaturelmError(f"{path}: holds no readable weights; fetch the file again") from error
    if not tensors:
        raise NaturelmError(
            f"{directory}: has no .safetensors file with a Whisper encoder; give --part whisper=DIR one that has"
        )
    return tensors


def _within_encoder(name: str) -> str | None:
    """A tensor's name within the encoder, or None for one of the decoder."""
    for prefix in ("model.encoder.", "encoder."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return None
