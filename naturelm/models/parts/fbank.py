"""Log-mel filterbank energies as Kaldi computes them, for whole batches at once.

Axes: B batch · S samples · T frames · W samples of one frame · M mel bins
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.models.parts.linear import linear

FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10
PREEMPHASIS = 0.97
SAMPLE_RATE_HZ = 16_000
"""What BEATs, Whisper and spectrogram transformers were trained at; the default where a checkpoint states no rate."""

LOW_FREQUENCY_HZ = 20.0
INT16_SCALE = 32768.0
WINDOWS = ("povey", "hanning")

# Mean and standard deviation of log-mel energies over AudioSet, as BEATs was trained with (arXiv 2212.09058).
BEATS_MEAN = 15.41663
BEATS_STD = 6.55582


def fbank(
    waveforms_BS: Tensor,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    mel_bins: int = 128,
    scale: float = INT16_SCALE,
    window: str = "povey",
) -> Tensor:
    """Log-mel energies of 25 ms frames every 10 ms, as Kaldi's ``compute-fbank-feats`` without dither.

    Parameters
    ----------
    waveforms_BS
        Sound in [-1, 1], float, ``[batch, samples]``.
    sample_rate_hz
        Samples per second.
    mel_bins
        Number of triangular filters between 20 Hz and half the sample rate.
    scale
        Factor of the samples: Kaldi reads 16-bit samples as they are, so by default it expects their scale.
    window
        ``"povey"``, Kaldi's default, or ``"hanning"``.

    Returns
    -------
    Tensor
        float32 ``[batch, frames, mel_bins]``; only whole frames (Kaldi's ``snip_edges``). Always computed in
        float32, whatever autocast says: half precision loses the quiet bins.
    """
    if window not in WINDOWS:
        raise ValueError(f"window is {window!r}; give {' or '.join(WINDOWS)}")
    with torch.autocast(waveforms_BS.device.type, enabled=False):
        waveforms_BS = waveforms_BS.float()
        # On a CPU one after the other: the frames of one are 2 MB and stay in the cache, those of a batch do not.
        parts = (
            waveforms_BS.split(1)
            if waveforms_BS.device.type == "cpu" and len(waveforms_BS)
            else [waveforms_BS]
        )
        return torch.cat([_log_mel(part, sample_rate_hz, mel_bins, scale, window) for part in parts])


def _log_mel(waveforms_BS: Tensor, sample_rate_hz: int, mel_bins: int, scale: float, window: str) -> Tensor:
    frame = sample_rate_hz * FRAME_LENGTH_MS // 1000
    shift = sample_rate_hz * FRAME_SHIFT_MS // 1000
    fft_size = 1 << (frame - 1).bit_length()
    window_W, mel_MF = _constants(sample_rate_hz, mel_bins, frame, fft_size, window, waveforms_BS.device)

    frames_BTW = (waveforms_BS * scale).unfold(-1, frame, shift)
    frames_BTW = frames_BTW - frames_BTW.mean(dim=-1, keepdim=True)
    # The window is 0 at a frame's first sample, which has none before it. Product and difference stay two steps: fused,
    # they round differently, and bins far below a frame's loudest show it.
    emphasised_BTW = frames_BTW[..., 1:] - PREEMPHASIS * frames_BTW[..., :-1]
    padded_BTW = F.pad(emphasised_BTW * window_W[1:], (1, fft_size - frame))
    spectrum_BTF2 = torch.view_as_real(torch.fft.rfft(padded_BTW))
    power_BTF = spectrum_BTF2[..., 0].square() + spectrum_BTF2[..., 1].square()
    mel_BTM = linear(power_BTF, mel_MF)
    return mel_BTM.clamp(min=torch.finfo(torch.float32).eps).log()


def beats_features(waveforms_BS: Tensor, sample_rate_hz: int = SAMPLE_RATE_HZ, mel_bins: int = 128) -> Tensor:
    """The filterbank as BEATs takes it: ``fbank`` less its mean, over twice its standard deviation.

    Parameters and shapes as in :func:`fbank`.
    """
    return (fbank(waveforms_BS, sample_rate_hz, mel_bins) - BEATS_MEAN) / (2 * BEATS_STD)


def frame_count(samples: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> int:
    """Number of whole frames in so many samples."""
    frame = sample_rate_hz * FRAME_LENGTH_MS // 1000
    shift = sample_rate_hz * FRAME_SHIFT_MS // 1000
    return 0 if samples < frame else (samples - frame) // shift + 1


@lru_cache(maxsize=8)
def _constants(
    sample_rate_hz: int, mel_bins: int, frame: int, fft_size: int, window: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Window ``[frame]`` and mel filters ``[mel_bins, fft_size // 2 + 1]``."""
    # Kept between calls, so neither inference mode nor a default device of this one call may mark them.
    with torch.inference_mode(False), torch.device("cpu"):
        window_W, filters_MF = _cpu_constants(sample_rate_hz, mel_bins, frame, fft_size, window)
        return window_W.to(device), filters_MF.to(device)


def _cpu_constants(
    sample_rate_hz: int, mel_bins: int, frame: int, fft_size: int, window: str
) -> tuple[Tensor, Tensor]:
    window_W = torch.hann_window(frame, periodic=False, dtype=torch.float32)
    if window == "povey":
        window_W = window_W.pow(0.85)

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    low, high = mel(LOW_FREQUENCY_HZ), mel(sample_rate_hz / 2)
    step = (high - low) / (mel_bins + 1)
    left_M1 = low + torch.arange(mel_bins, dtype=torch.float32).unsqueeze(1) * step
    bins_F = sample_rate_hz / fft_size * torch.arange(fft_size // 2, dtype=torch.float32)
    mel_F = 1127.0 * (1.0 + bins_F / 700.0).log()
    rising_MF = (mel_F - left_M1) / step
    falling_MF = (left_M1 + 2 * step - mel_F) / step
    filters_MF = torch.minimum(rising_MF, falling_MF).clamp(min=0.0)
    # Kaldi leaves the bin at half the sample rate out.
    filters_MF = F.pad(filters_MF, (0, 1))
    return window_W, filters_MF
