"""MPEG layers I, II and III: their length, and that all of them is decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder, pcm_samples
from naturelm.recordings import Recording, scan
from naturelm.recordings.mpeg import read_mpeg_header
from tests.broken_files import noise, without_tag, write
from tests.mpeg_frames import tone_stream

SECONDS = 12
RATES = [44100, 48000, 32000, 22050, 24000, 16000]


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(timeout_s=30) as decoder:
        yield decoder


def only(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    (recording,) = scan([path])
    return recording


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("layer", [1, 2])
def test_layers_one_and_two_are_heard_from_end_to_end(
    tmp_path: Path, decoder: IsolatedDecoder, layer: int, channels: int, rate_hz: int
) -> None:
    content = tone_stream(layer, rate_hz, SECONDS, channels)
    recording = only(tmp_path / f"x.mp{layer}", content)
    frame = 384 if layer == 1 else 1152
    frames = -(-SECONDS * rate_hz // frame) * frame
    assert (recording.status, recording.frames) == ("ok", frames)
    assert recording.format == f"MP3/MPEG_LAYER_{'I' * layer}"
    assert (recording.sample_rate_hz, recording.channels) == (rate_hz, channels)
    (span,) = decoder.decode(DecodeRequest(recording.absolute_path, ((0.0, recording.duration_s),)))
    assert (span.status, span.decoded_s) == ("ok", pytest.approx(SECONDS, abs=0.05))
    sound = pcm_samples(span.pcm)
    seconds = sound[: SECONDS * 16_000].reshape(SECONDS, -1)
    np.testing.assert_allclose(np.sqrt(np.mean(seconds**2, axis=1)), 0.354, atol=0.01)
    for second in (seconds[1], seconds[-2]):
        assert np.abs(np.fft.rfft(second)).argmax() == pytest.approx(1.5 * rate_hz / 64, abs=1)


@pytest.mark.parametrize("name", ["x.mp2", "x.mp3", "x.wav", "x.MPA"])
def test_layer_two_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    recording = only(tmp_path / name, tone_stream(2, 48000, 2))
    assert (recording.status, recording.format) == ("ok", "MP3/MPEG_LAYER_II")


def test_layer_two_behind_an_id3_tag(tmp_path: Path, decoder: IsolatedDecoder) -> None:
    content = b"ID3\4\0\0\0\0\2\0" + bytes(256) + tone_stream(2, 48000, SECONDS)
    recording = only(tmp_path / "x.mp2", content)
    (span,) = decoder.decode(DecodeRequest(recording.absolute_path, ((0.0, recording.duration_s),)))
    assert (recording.duration_s, span.status, span.decoded_s) == (SECONDS, "ok", SECONDS)


def test_a_span_in_the_middle_of_layer_two_is_where_it_belongs(
    tmp_path: Path, decoder: IsolatedDecoder
) -> None:
    recording = only(tmp_path / "x.mp2", tone_stream(2, 32000, SECONDS))
    spans = ((0.0, recording.duration_s), (7.0, 9.0))
    whole, part = decoder.decode(DecodeRequest(recording.absolute_path, spans))
    np.testing.assert_array_equal(pcm_samples(part.pcm), pcm_samples(whole.pcm)[7 * 16_000 : 9 * 16_000])


def test_cut_layer_two_claims_what_is_left(tmp_path: Path) -> None:
    content = tone_stream(2, 48000, SECONDS)
    recording = only(tmp_path / "x.mp2", content[: len(content) // 2])
    assert (recording.status, recording.duration_s) == ("ok", pytest.approx(SECONDS / 2, abs=0.03))


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 12_000, 16_000, 24_000, 44_100, 48_000])
def test_layer_three_without_a_tag_is_heard_from_end_to_end(
    tmp_path: Path, decoder: IsolatedDecoder, rate_hz: int
) -> None:
    path = write(tmp_path / "whole.mp3", noise(SECONDS, rate_hz), rate_hz, bitrate_mode="VARIABLE")
    recording = only(tmp_path / "x.mp3", without_tag(path.read_bytes()))
    (span,) = decoder.decode(DecodeRequest(recording.absolute_path, ((0.0, recording.duration_s),)))
    assert (span.status, span.decoded_s) == ("ok", pytest.approx(SECONDS, abs=0.3))


@pytest.mark.parametrize("count", [10**6, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [None, 1 << 31])
def test_a_tag_claims_no_more_than_the_file_holds(tmp_path: Path, count: int, size: int | None) -> None:
    content = bytearray(write(tmp_path / "whole.mp3", noise(SECONDS)).read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info"))
    content[at + 8 : at + 12] = struct.pack(">I", count)
    if size is not None:
        content[at + 12 : at + 16] = struct.pack(">I", size)
    recording = only(tmp_path / "x.mp3", bytes(content))
    assert (recording.status, recording.duration_s) == ("partial", pytest.approx(SECONDS, abs=0.2))


def test_cut_mp3_says_how_much_its_tag_claims(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.mp3", noise(SECONDS)).read_bytes()
    recording = only(tmp_path / "x.mp3", content[: len(content) // 2])
    assert (recording.status, recording.duration_s) == ("partial", pytest.approx(SECONDS / 2, abs=0.2))
    assert "before the 12.00 s that the header claims" in (recording.error or "")


def test_two_frames_of_chance_are_no_mp3() -> None:
    """Random bytes hold 11 set bits now and then, and sometimes again where the next frame would be."""
    frame = tone_stream(2, 48000, 0.02)
    content = bytearray(np.random.default_rng(0).integers(0, 255, 5000, np.uint8).tobytes())
    content[100:104], content[100 + len(frame) : 104 + len(frame)] = frame[:4], frame[:4]
    assert read_mpeg_header(io.BytesIO(bytes(content))) is None


def test_libsndfile_agrees_on_what_the_streams_of_these_tests_are(tmp_path: Path) -> None:
    for layer in (1, 2):
        (tmp_path / "x.mp3").write_bytes(tone_stream(layer, 48000, SECONDS))
        info = soundfile.info(tmp_path / "x.mp3")
        assert (info.subtype, info.duration) == (f"MPEG_LAYER_{'I' * layer}", SECONDS)
