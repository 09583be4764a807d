from __future__ import annotations

import numpy as np
import pytest
import torch

from naturelm.models.parts.fbank import fbank, frame_count


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32) * 0.1)


@pytest.mark.parametrize(("rate", "mels"), [(16000, 128), (16000, 80), (32000, 128)])
def test_filterbank_equals_torchaudios(rate, mels):
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi", reason="torchaudio is not installed")
    sound = noise(3, rate + 137)
    theirs = torch.stack(
        [
            kaldi.fbank(
                row[None] * 2**15, num_mel_bins=mels, sample_frequency=rate, frame_length=25, frame_shift=10
            )
            for row in sound
        ]
    )
    torch.testing.assert_close(fbank(sound, rate, mels), theirs, atol=1e-4, rtol=0)


def test_ten_seconds_are_998_frames_and_a_rest_is_left_out():
    assert fbank(noise(1, 160_000)).shape == (1, 998, 128)
    assert [frame_count(n) for n in (0, 399, 400, 559, 560, 160_000)] == [0, 0, 1, 1, 2, 998]


def test_silence_is_finite():
    energies = fbank(torch.zeros(1, 1600))
    assert energies.unique().tolist() == pytest.approx([np.log(np.finfo(np.float32).eps)])


def test_autocast_and_inference_mode_change_nothing():
    sound = noise(1, 16_000)
    fbank.__globals__["_constants"].cache_clear()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        under_both = fbank(sound)
    plain = fbank(sound.requires_grad_())
    assert under_both.dtype == torch.float32
    torch.testing.assert_close(under_both, plain, atol=1e-5, rtol=0)
    plain.sum().backward()
    assert sound.grad is not None


def test_row_of_a_batch_equals_the_row_alone():
    sound = noise(4, 16_000)
    torch.testing.assert_close(fbank(sound)[2:3], fbank(sound[2:3]), atol=1e-5, rtol=0)


def test_hanning_window_and_another_scale_equal_torchaudios():
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi", reason="torchaudio is not installed")
    sound = noise(1, 16_000)
    theirs = kaldi.fbank(sound, num_mel_bins=128, sample_frequency=16_000, window_type="hanning")
    ours = fbank(sound, scale=1.0, window="hanning")
    torch.testing.assert_close(ours[0], theirs, atol=1e-4, rtol=0)
    assert not torch.allclose(ours, fbank(sound, scale=1.0))


def test_unknown_window_is_refused():
    with pytest.raises(ValueError, match="povey or hanning"):
        fbank(noise(1, 16_000), window="hann")
