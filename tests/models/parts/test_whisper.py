from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from naturelm.models.parts.whisper import Whisper, WhisperSizes, log_mel


@pytest.mark.parametrize("seconds", [1.0, 12.3, 30.0])
def test_log_mel_spectrogram_is_what_whisper_was_trained_with(seconds):
    sound = np.random.default_rng(0).normal(0, 0.1, (2, round(seconds * 16_000))).astype(np.float32)
    sound[1] *= np.linspace(0, 1, sound.shape[1])
    theirs = WhisperFeatureExtractor()(list(sound), sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(log_mel(torch.from_numpy(sound)), theirs, atol=2e-4, rtol=0)


def test_spectrogram_does_not_depend_on_what_else_is_in_the_batch():
    quiet, loud = torch.randn(1, 16_000) * 1e-4, torch.randn(1, 16_000)
    together = log_mel(torch.cat([quiet, loud]))
    torch.testing.assert_close(together[:1], log_mel(quiet), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_sound_of_any_length_is_1500_frames():
    sizes = WhisperSizes(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16)
    whisper = Whisper(sizes).eval()
    for samples in (1_600, 480_000):
        assert whisper(torch.randn(1, samples) * 0.1).shape == (1, 1500, 16)
