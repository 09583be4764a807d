"""Silence of cards, clipping, offsets, dead and inverted channels, and samples that are no numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder, pcm_samples
from naturelm.audio.marks import Marks
from naturelm.audio.streaming import decode

RATE_HZ = 22_050
SECONDS = 20

Sound = npt.NDArray[np.float32]


def noise(channels: int = 1, seed: int = 1, level: float = 0.05) -> Sound:
    shape = (SECONDS * RATE_HZ, channels)
    return np.random.default_rng(seed).normal(0, level, shape).astype(np.float32)


def owl() -> Sound:
    """A second of a low call in every five."""
    time_s = np.arange(SECONDS * RATE_HZ) / RATE_HZ
    call = np.sin(2 * np.pi * 400 * time_s) * (time_s % 5 < 1)
    return (0.2 * call).astype(np.float32)[:, None]


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder() as decoder:
        yield decoder


@pytest.fixture
def marks(tmp_path: Path, decoder: IsolatedDecoder) -> Callable[..., Marks]:
    def measured(sound: Sound, *, subtype: str = "PCM_16", channel: int | None = None) -> Marks:
        path = tmp_path / "x.wav"
        soundfile.write(path, sound, RATE_HZ, subtype=subtype)
        (span,) = decoder.decode(DecodeRequest(str(path), ((0.0, SECONDS),), channel))
        assert span.status == "ok"
        assert span.marks is not None
        found = span.marks.between(0, SECONDS)
        assert found is not None
        return found

    return measured


def test_sound_without_faults_has_no_marks(marks: Callable[..., Marks]) -> None:
    found = marks(noise(2))
    assert found.measured_s == SECONDS
    assert (found.zeros_s, found.zeros_end_s, found.nonfinite_s, found.clipped_share) == (0, 0, 0, 0)
    assert abs(found.dc) < 1e-3
    assert (found.channels_inverted, found.channel_dead) == (False, None)


@pytest.mark.parametrize("value", [0, -1, -32768])
@pytest.mark.parametrize("from_s", [10.0, 10.3, 19.9])
def test_one_value_up_to_the_end_is_found_to_the_sample(
    marks: Callable[..., Marks], value: int, from_s: float
) -> None:
    sound = (noise() * 32768).astype(np.int16)
    sound[round(from_s * RATE_HZ) :] = value
    found = marks(sound)
    assert found.zeros_end_s == pytest.approx(SECONDS - from_s, abs=1e-3)
    assert found.zeros_s == found.zeros_end_s


def test_zeros_in_the_middle_are_marked_and_are_not_at_the_end(marks: Callable[..., Marks]) -> None:
    sound = noise()
    sound[round(4.2 * RATE_HZ) : round(9.7 * RATE_HZ)] = 0
    found = marks(sound)
    assert found.zeros_s == pytest.approx(5.5, abs=1e-3)
    assert found.zeros_end_s == 0


def test_nothing_but_zeros(marks: Callable[..., Marks]) -> None:
    found = marks(np.zeros((SECONDS * RATE_HZ, 2), np.float32))
    assert found.is_all_zeros
    assert (found.zeros_s, found.channel_dead, found.channels_inverted) == (SECONDS, None, False)


def test_single_sample_behind_the_last_second_is_no_run_of_zeros(tmp_path: Path, decoder) -> None:
    soundfile.write(tmp_path / "x.wav", np.append(noise(), np.float32(0)), RATE_HZ)
    (span,) = decoder.decode(DecodeRequest(str(tmp_path / "x.wav"), ((0.0, None),)))
    found = span.marks.between(0, SECONDS + 1)
    assert (found.zeros_s, found.zeros_end_s) == (0, 0)


def test_share_of_samples_at_full_scale(marks: Callable[..., Marks]) -> None:
    sound = noise()
    loud = sound[: 5 * RATE_HZ]
    loud[:] = np.sign(loud)
    assert marks(sound).clipped_share == pytest.approx(0.25, abs=1e-3)
    assert marks(sound, subtype="FLOAT").clipped_share == pytest.approx(0.25, abs=1e-3)


def test_offset(marks: Callable[..., Marks]) -> None:
    assert marks(noise() + np.float32(0.3)).dc == pytest.approx(0.3, abs=1e-3)


def test_samples_that_are_no_numbers_are_marked_and_are_silence(
    marks: Callable[..., Marks], tmp_path: Path
) -> None:
    sound = noise(2)
    sound[RATE_HZ : 3 * RATE_HZ, 0] = np.nan
    sound[-RATE_HZ // 2 :, 1] = -np.inf
    found = marks(sound, subtype="FLOAT")
    assert found.nonfinite_s == pytest.approx(2.5, abs=1e-3)
    assert found.zeros_end_s == 0
    assert np.isfinite(np.concatenate(list(decode(tmp_path / "x.wav")))).all()


def test_inverted_channel_leaves_the_sound_to_the_other_one(
    marks: Callable[..., Marks], tmp_path: Path
) -> None:
    call = owl() + noise(level=0.01)
    assert marks(np.hstack([call, -call])).channels_inverted
    stereo = np.concatenate(list(decode(tmp_path / "x.wav")))
    soundfile.write(tmp_path / "mono.wav", call, RATE_HZ)
    mono = np.concatenate(list(decode(tmp_path / "mono.wav")))
    np.testing.assert_array_equal(stereo, mono)


def test_channels_with_noises_of_their_own_are_inverted_where_they_cancel(
    marks: Callable[..., Marks],
) -> None:
    call = owl()
    found = marks(np.hstack([call + noise(seed=1), -call + noise(seed=2)]))
    assert found.channels_inverted
    found = marks(np.hstack([call + noise(seed=1), call + noise(seed=2)]))
    assert not found.channels_inverted


@pytest.mark.parametrize("dead", [0, 1])
@pytest.mark.parametrize("hiss", [0.0, 1e-5])
def test_dead_channel_leaves_the_sound_to_the_other_one(
    marks: Callable[..., Marks], tmp_path: Path, dead: int, hiss: float
) -> None:
    call = owl() + noise()
    channels = [call, call]
    channels[dead] = noise(seed=3, level=hiss) + np.float32(0.01)
    assert marks(np.hstack(channels)).channel_dead == dead
    stereo = np.concatenate(list(decode(tmp_path / "x.wav")))
    soundfile.write(tmp_path / "mono.wav", call, RATE_HZ)
    np.testing.assert_array_equal(stereo, np.concatenate(list(decode(tmp_path / "mono.wav"))))


def test_two_sound_channels_are_mixed(marks: Callable[..., Marks], tmp_path: Path) -> None:
    sound = noise(2)
    marks(sound)
    stereo = np.concatenate(list(decode(tmp_path / "x.wav")))
    soundfile.write(tmp_path / "mono.wav", sound.mean(axis=1), RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(stereo, np.concatenate(list(decode(tmp_path / "mono.wav"))), atol=1e-4)


def test_chosen_channel_is_taken_whatever_it_holds(marks: Callable[..., Marks]) -> None:
    sound = noise(2)
    sound[:, 1] = 0
    found = marks(sound, channel=1)
    assert (found.is_all_zeros, found.channel_dead) == (True, None)


def test_sound_and_marks_are_the_same_wherever_decoding_begins(
    tmp_path: Path, decoder: IsolatedDecoder
) -> None:
    call = owl()
    sound = np.hstack([call + noise(seed=1), -call + noise(seed=2)])
    sound[7 * RATE_HZ : 9 * RATE_HZ, 0] = 0
    sound[-3 * RATE_HZ :] = 0
    path = str(tmp_path / "x.wav")
    soundfile.write(path, sound, RATE_HZ)
    (whole,) = decoder.decode(DecodeRequest(path, ((0.0, SECONDS),)))
    parts = [
        next(decoder.decode(DecodeRequest(path, ((start_s, min(start_s + 4.5, SECONDS)),))))
        for start_s in np.arange(0, SECONDS, 3.5)
    ]
    pcm = pcm_samples(whole.pcm)
    for part in parts:
        first = round(part.start_s * 16_000)
        own = pcm_samples(part.pcm)
        np.testing.assert_allclose(own, pcm[first : first + len(own)], atol=2e-4)
        for second in range(int(part.start_s) + 1, int(part.start_s + part.decoded_s)):
            assert part.marks.between(second, second + 1) == whole.marks.between(second, second + 1)


def test_file_with_more_channels_than_memory_is_worth_is_read(tmp_path: Path) -> None:
    """A header that is a lie may say 1,000 channels."""
    path = tmp_path / "x.wav"
    soundfile.write(path, np.full((40_000, 1_000), 0.25, np.float32), 40_000)
    (mono,) = [np.concatenate(list(decode(path)))]
    assert mono[8_000] == pytest.approx(0.25, abs=1e-3)
