"""What field recorders, cards and people do to files: every one gets the right row, and its sound is heard.

`tests/broken_files.py` has the commonest; here are the rest.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.audio.isolated import DecodedSpan, DecodeRequest, IsolatedDecoder, pcm_samples
from naturelm.recordings import Recording, scan
from tests.broken_files import RATE_HZ, SECONDS, chunk, noise, wav_bytes, write

Make = Callable[[Path], Path]


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(timeout_s=30) as decoder:
        yield decoder


def only(path: Path) -> Recording:
    (recording,) = scan([path])
    return recording


def decoded_whole(decoder: IsolatedDecoder, recording: Recording) -> DecodedSpan:
    assert recording.has_sound, recording
    (span,) = decoder.decode(DecodeRequest(recording.absolute_path, ((0.0, recording.duration_s),)))
    return span


def wav(name: str = "x.wav", **options: object) -> Make:
    return lambda directory: _put(directory / name, wav_bytes(noise(), **options))


def encoded(name: str, rate_hz: int = RATE_HZ, channels: int = 1, **options: str) -> Make:
    return lambda directory: write(directory / name, noise(SECONDS, rate_hz, channels), rate_hz, **options)


def renamed(make: Make, name: str) -> Make:
    return lambda directory: make(directory).rename(directory / name)


def changed(make: Make, change: Callable[[bytes], bytes]) -> Make:
    def made(directory: Path) -> Path:
        path = make(directory)
        return _put(path, change(path.read_bytes()))

    return made


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def at(offset: int, *values: int, form: str = "<H") -> Callable[[bytes], bytes]:
    """Overwrite numbers of a header."""

    def change(content: bytes) -> bytes:
        new = b"".join(struct.pack(form, value) for value in values)
        return content[:offset] + new + content[offset + len(new) :]

    return change


def packed(sound: np.ndarray, bits: int) -> bytes:
    """A WAV file of samples that are not whole bytes, left-justified as the format says."""
    size = -(-bits // 8)
    whole = np.round(sound * (2 ** (bits - 1) - 1)).astype("<i4") << (8 * size - bits)
    pcm = whole.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :size].tobytes()
    form = struct.pack("<HHIIHH", 1, 1, RATE_HZ, RATE_HZ * size, size, bits)
    return b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", form) + chunk(b"data", pcm)


HEARD: dict[str, Make] = {
    # the size that the header says
    "the header was brought up to date a second after the start, then the power went": wav(
        data_size=2 * RATE_HZ, riff_size=36 + 2 * RATE_HZ
    ),
    "the size counts the header too": wav(data_size=2 * SECONDS * RATE_HZ + 44),
    "the RIFF size is 0 and the sound's is right": wav(riff_size=0),
    # what stands around the sound
    "an odd chunk before the sound": wav(before=chunk(b"abcd", b"123")),
    "a chunk of 400 kB before the sound": wav(before=chunk(b"JUNK", bytes(400_000))),
    "a chunk of unknown name after the sound": wav(after=chunk(b"xyz ", b"\1\2\3\4" * 100)),
    "a cluster of zeros after the sound": wav(after=bytes(65_536)),
    "a comment that is cut": wav(after=b"LIST\xff\xff\0\0INFOICMT"),
    "an ID3 tag before a FLAC": changed(
        encoded("x.flac"), lambda content: b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + content
    ),
    "an ID3 tag before an MP3": changed(
        encoded("x.mp3"), lambda content: b"ID3\4\0\0\0\0\1\0" + bytes(128) + content
    ),
    # names that are wrong
    "a FLAC called .wav": renamed(encoded("x.flac"), "x.wav"),
    "a WAV called .mp3": renamed(encoded("x.wav"), "x.mp3"),
    "an MP3 called .wav": renamed(encoded("x.mp3"), "y.wav"),
    "an Ogg called .flac": renamed(encoded("x.ogg"), "x.flac"),
    "an upper-case ending": renamed(encoded("x.flac"), "20240501_030000.FLAC"),
    "blanks at both ends of the name": renamed(encoded("x.wav"), " x .wav"),
    "quotes, a backslash and a dollar": renamed(encoded("x.wav"), "'x' \"y\" \\n $HOME `ls`.wav"),
    "a name like an option": renamed(encoded("x.wav"), "--out.wav"),
    "a name like a pattern": renamed(encoded("x.wav"), "x[1]*?.wav"),
    "a name like a URL": renamed(encoded("x.wav"), "s3:x%20y#z.wav"),
    "emoji of several parts": renamed(encoded("x.wav"), "👩‍🔬🦇.wav"),
    "two Unicode forms of one letter": renamed(encoded("x.wav"), "e\u0301 \u00e9.wav"),
    # samples
    "12 bits": lambda directory: _put(directory / "x.wav", packed(noise()[:, 0], 12)),
    "20 bits": lambda directory: _put(directory / "x.wav", packed(noise()[:, 0], 20)),
    "float beyond full scale": lambda directory: write(directory / "x.wav", 4 * noise(), subtype="FLOAT"),
    "ALAC in a CAF": encoded("x.caf", subtype="ALAC_16"),
    "big-endian AIFC": encoded("x.aifc", format="AIFF", subtype="FLOAT"),
    **{f"{channels} channels": encoded("x.wav", channels=channels) for channels in range(2, 9)},
    **{f"{channels} channels of FLAC": encoded("x.flac", channels=channels) for channels in (2, 8)},
    **{
        f"{rate_hz} Hz": encoded("x.wav", rate_hz)
        for rate_hz in (1_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000, 256_000)
    },
    "FLAC at 384 kHz": encoded("x.flac", 384_000),
}


@pytest.mark.parametrize("kind", HEARD)
def test_all_of_it_is_heard(tmp_path: Path, decoder: IsolatedDecoder, kind: str) -> None:
    recording = only(HEARD[kind](tmp_path))
    assert recording.status == "ok"
    span = decoded_whole(decoder, recording)
    assert (span.status, span.error) == ("ok", None)
    assert span.decoded_s == pytest.approx(SECONDS, abs=0.1)
    sound = pcm_samples(span.pcm)
    assert 0.1 < np.sqrt(np.mean(sound**2)) < 1
    # The tone is where it was put: no sample is out of step with its neighbours.
    spectrum = np.abs(np.fft.rfft(sound[: 2 * RATE_HZ]))
    rate_hz = int(kind.split()[0]) if kind.endswith(" Hz") else RATE_HZ
    assert spectrum.argmax() / 2 == pytest.approx(min(440, rate_hz / 5), abs=1)


BAD: dict[str, tuple[Make, str]] = {
    "zeros from end to end": (lambda directory: _put(directory / "x.wav", bytes(100_000)), "corrupt"),
    "erased flash": (lambda directory: _put(directory / "x.WAV", b"\xff" * 100_000), "corrupt"),
    "four bytes": (lambda directory: _put(directory / "x.wav", b"RIFF"), "corrupt|unsupported"),
    "the header is cut": (changed(wav(), lambda content: content[:30]), "corrupt|unsupported"),
    "no channels": (changed(wav(), at(22, 0)), "corrupt|unsupported"),
    "no sample rate": (changed(wav(), at(24, 0, form="<I")), "corrupt|unsupported"),
    "0 bits": (changed(wav(), at(32, 0, 0)), "corrupt|unsupported"),
    "a codec that nobody knows": (changed(wav(), at(20, 0x1234)), "corrupt|unsupported"),
    "FLAC of which the magic is left": (
        lambda directory: _put(directory / "x.flac", b"fLaC"),
        "corrupt|unsupported",
    ),
    "Ogg cut in its header": (
        changed(encoded("x.ogg"), lambda content: content[:100]),
        "corrupt|unsupported",
    ),
    "a phone's memo": (
        lambda directory: _put(directory / "x.m4a", b"\0\0\0\x20ftypM4A " + bytes(9_000)),
        "unsupported",
    ),
    "a picture called .wav": (
        lambda directory: _put(directory / "x.wav", b"\x89PNG\r\n\x1a\n" + bytes(9_000)),
        "unsupported",
    ),
    "a link to itself": (lambda directory: _linked(directory / "x.wav", directory / "x.wav"), "corrupt"),
}


def _linked(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("kind", BAD)
def test_what_holds_no_sound_says_why(tmp_path: Path, kind: str) -> None:
    make, statuses = BAD[kind]
    recording = only(make(tmp_path))
    assert recording.status in statuses.split("|")
    assert recording.error
    assert "\n" not in recording.error


PARTS: dict[str, tuple[Make, float, float]] = {
    # Half the bytes are less than half the time: a short Ogg file is a codebook in the main.
    "Ogg cut in the middle": (
        changed(encoded("x.ogg"), lambda content: content[: len(content) // 2]),
        1,
        0.5,
    ),
    "Opus cut in the middle": (
        changed(
            encoded("x.opus", 48_000, format="OGG", subtype="OPUS"),
            lambda content: content[: len(content) // 2],
        ),
        1,
        0.5,
    ),
    "24 bits cut amid a sample": (
        changed(encoded("x.wav", subtype="PCM_24"), lambda content: content[: 44 + 3 * 2 * RATE_HZ + 1]),
        2,
        0.01,
    ),
    "ADPCM cut amid a block": (
        changed(encoded("x.wav", subtype="IMA_ADPCM"), lambda content: content[: len(content) // 2]),
        2,
        0.2,
    ),
    "W64 cut": (
        changed(encoded("x.w64", format="W64"), lambda content: content[: len(content) // 2]),
        2,
        0.1,
    ),
    "RF64 cut": (
        changed(encoded("x.rf64", format="RF64"), lambda content: content[: len(content) // 2]),
        2,
        0.1,
    ),
    "FLAC with a burst of rubbish in the middle": (
        changed(
            encoded("x.flac"),
            lambda content: (
                content[: len(content) // 2] + b"\xaa" * 5000 + content[len(content) // 2 + 5000 :]
            ),
        ),
        2,
        0.6,
    ),
}


@pytest.mark.parametrize("kind", PARTS)
def test_what_lies_before_the_damage_is_heard(tmp_path: Path, decoder: IsolatedDecoder, kind: str) -> None:
    make, seconds, tolerance_s = PARTS[kind]
    recording = only(make(tmp_path))
    span = decoded_whole(decoder, recording)
    assert span.decoded_s == pytest.approx(seconds, abs=tolerance_s)
    # What is claimed is what the file holds, except for damage in its middle, which only decoding meets.
    assert span.status == "partial" or recording.duration_s == pytest.approx(seconds, abs=tolerance_s)


@pytest.mark.parametrize("container", ["RF64", "W64"])
def test_the_end_of_a_file_over_four_gigabytes_is_heard(
    tmp_path: Path, decoder: IsolatedDecoder, container: str
) -> None:
    """Five gigabytes, nearly all of it a hole, with a tone in its last four seconds."""
    path = write(tmp_path / f"large.{container.lower()}", noise(0.01, 384_000), 384_000, format=container)
    frames = 2_500_000_000 // 384_000 * 384_000
    tone = noise(SECONDS, 384_000)
    with path.open("r+b") as file:
        content = file.read()
        if container == "RF64":
            data, size_at = content.index(b"data") + 8, content.index(b"ds64") + 16
            file.seek(size_at)
            file.write(struct.pack("<QQ", 2 * frames, frames))
        else:
            data = content.index(b"data") + 24
            file.seek(data - 8)
            file.write(struct.pack("<Q", 2 * frames + 24))
        file.truncate(data + 2 * frames)
        file.seek(data + 2 * (frames - len(tone)))
        file.write((tone * 32767).astype("<i2").tobytes())
    assert os.stat(path).st_blocks * 512 < 20 << 20, "the file system keeps no holes"
    recording = only(path)
    assert (recording.status, recording.duration_s) == ("ok", frames / 384_000)
    end_s = frames / 384_000
    (span,) = decoder.decode(DecodeRequest(recording.absolute_path, ((end_s - 10, end_s),)))
    assert (span.status, span.decoded_s) == ("ok", 10.0)
    sound = pcm_samples(span.pcm)
    assert np.abs(sound[: 5 * RATE_HZ]).max() == 0
    assert np.sqrt(np.mean(sound[-3 * RATE_HZ :] ** 2)) > 0.1
    assert soundfile.info(path).frames == frames
