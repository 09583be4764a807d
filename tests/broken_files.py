"""Recordings as field recorders leave them, sound and broken, made by code.

`make_all` writes one of each into a directory and says what a run must find in it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000
SECONDS = 4


@dataclass(frozen=True)
class Expected:
    """What a run must write into a file's row.

    Attributes
    ----------
    path : Path
    status : str
        After decoding.
    claimed_s : float or None
        Seconds that the header claims, as far as the file holds them; None where it cannot be read.
    decoded_s : float
        Seconds that can be decoded.
    tolerance_s : float
        How far `claimed_s` and `decoded_s` may be off: a lossy codec cuts at its own frames.
    """

    path: Path
    status: str
    claimed_s: float | None
    decoded_s: float
    tolerance_s: float = 1e-3


def noise(seconds: float = SECONDS, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    """Noise around a 440 Hz tone, float32 [samples, channels]: no codec makes it small."""
    samples = round(seconds * rate_hz)
    tone = 0.3 * np.sin(2 * np.pi * min(440, rate_hz / 5) * np.arange(samples) / rate_hz)
    hiss = 0.05 * np.random.default_rng(samples + channels).standard_normal((samples, channels))
    return (tone[:, None] + hiss).astype(np.float32)


def write(path: Path, sound: np.ndarray, rate_hz: int = RATE_HZ, **options: str) -> Path:
    """Write sound in blocks: libsndfile's Ogg encoder crashes on long ones."""
    with soundfile.SoundFile(os.fsencode(path), "w", rate_hz, sound.shape[1], **options) as file:
        for start in range(0, len(sound), 4096):
            file.write(sound[start : start + 4096])
    return path


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    """A RIFF chunk; `size` lies about the contents where given."""
    header = struct.pack("<4sI", name, len(content) if size is None else size)
    return header + content + b"\0" * (len(content) & 1)


def wav_bytes(
    sound: np.ndarray,
    rate_hz: int = RATE_HZ,
    *,
    data_size: int | None = None,
    riff_size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A 16-bit WAV file by hand, with chunks before and after the sound, and sizes that may lie."""
    channels = sound.shape[1]
    pcm = (sound * 32767).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels * 2, channels * 2, 16)
    body = b"WAVE" + chunk(b"fmt ", form) + before + chunk(b"data", pcm, data_size) + after
    return struct.pack("<4sI", b"RIFF", len(body) if riff_size is None else riff_size) + body


def audiomoth_bytes(
    sound: np.ndarray, comment: str, guano: str | None = None, rate_hz: int = RATE_HZ
) -> bytes:
    """A WAV file as an AudioMoth writes it: comment before the sound, GUANO after it."""
    info = (
        b"INFO"
        + chunk(b"ICMT", comment.encode().ljust(384, b"\0"))
        + chunk(b"IART", b"AudioMoth 24F319055FDF2902\0")
    )
    after = b"" if guano is None else chunk(b"guan", guano.encode())
    return wav_bytes(sound, rate_hz, before=chunk(b"LIST", info), after=after)


def without_tag(mp3: bytes) -> bytes:
    """An MP3 file without its first frame, which holds the encoder's tag."""
    return mp3[mp3.index(mp3[:2], 4) :]


def make_all(directory: Path) -> dict[str, Expected]:
    """Write one of each kind below `directory`, which is made where needed.

    Returns
    -------
    dict of str to Expected
        By the kind's name. Directories, such as the one called `x.wav`, have no entry.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made: dict[str, Expected] = {}
    for make in _KINDS:
        expected = make(directory)
        made[make.__name__.strip("_")] = expected
    return made


def _good(directory: Path) -> Expected:
    return Expected(write(directory / "good.wav", noise()), "ok", SECONDS, SECONDS)


def _zero_bytes(directory: Path) -> Expected:
    path = directory / "zero.wav"
    path.touch()
    return Expected(path, "corrupt", None, 0)


def _text(directory: Path) -> Expected:
    path = directory / "notes.wav"
    path.write_text("Battery changed at noon. Frogs all night.\n" * 50, encoding="utf-8")
    return Expected(path, "unsupported", None, 0)


def _header_only_wav(directory: Path) -> Expected:
    path = directory / "header_only.wav"
    path.write_bytes(wav_bytes(noise(0)))
    return Expected(path, "too_short", 0, 0)


def _blip(directory: Path) -> Expected:
    return Expected(write(directory / "blip.wav", noise(0.25)), "too_short", 0.25, 0.25)


def _claimed_but_absent(directory: Path) -> Expected:
    path = directory / "absent.wav"
    path.write_bytes(wav_bytes(noise())[:44])
    return Expected(path, "corrupt", 0, 0)


def _cut_wav(directory: Path) -> Expected:
    path = directory / "cut.wav"
    path.write_bytes(wav_bytes(noise())[: 44 + 2 * 40_000])
    return Expected(path, "partial", 2.5, 2.5)


def _cut_flac(directory: Path) -> Expected:
    path = write(directory / "cut.flac", noise())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return Expected(path, "partial", SECONDS / 2, SECONDS / 2, 0.6)


def _preallocated_flac(directory: Path) -> Expected:
    path = write(directory / "preallocated.flac", noise())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content)))
    return Expected(path, "partial", SECONDS / 2, SECONDS / 2, 0.6)


def _unfinished_flac(directory: Path) -> Expected:
    """The header never learnt the length: the recorder lost power."""
    path = write(directory / "unfinished.flac", noise())
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    return Expected(path, "ok", SECONDS, SECONDS)


def _headless_flac(directory: Path) -> Expected:
    path = write(directory / "headless.flac", noise())
    path.write_bytes(path.read_bytes()[:42] + bytes(20_000))
    return Expected(path, "corrupt", 0, 0)


def _cut_mp3(directory: Path) -> Expected:
    path = write(directory / "cut.mp3", noise())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return Expected(path, "partial", SECONDS / 2, SECONDS / 2, 0.4)


def _untagged_mp3(directory: Path) -> Expected:
    """Loud, then quiet, at a variable bit rate and without a tag: the first frames mislead a decoder."""
    sound = noise(2 * SECONDS, 48_000)
    sound[len(sound) // 2 :] *= 1e-3
    path = write(directory / "untagged.mp3", sound, 48_000, bitrate_mode="VARIABLE")
    path.write_bytes(without_tag(path.read_bytes()))
    return Expected(path, "ok", 2 * SECONDS, 2 * SECONDS, 0.1)


def _cut_aiff(directory: Path) -> Expected:
    path = write(directory / "cut.aiff", noise())
    path.write_bytes(path.read_bytes()[: -2 * 2 * RATE_HZ])
    return Expected(path, "partial", SECONDS - 2, SECONDS - 2)


def _audiomoth(directory: Path) -> Expected:
    comment = (
        "Recorded at 03:13:00 03/05/2025 (UTC+2) by AudioMoth 24F319055FDF2902 at medium gain while "
        "battery was 3.8V and temperature was 13.1C."
    )
    guano = "GUANO|Version:1.0\nTimestamp:2025-05-03T03:13:00+02:00\nLoc Position:52.146196 4.474776\n"
    path = directory / "20250503_031300.WAV"
    path.write_bytes(audiomoth_bytes(noise(), comment, guano))
    return Expected(path, "ok", SECONDS, SECONDS)


def _size_never_written(directory: Path) -> Expected:
    path = directory / "size_0.wav"
    path.write_bytes(wav_bytes(noise(), data_size=0, riff_size=0))
    return Expected(path, "ok", SECONDS, SECONDS)


def _w64_size_never_written(directory: Path) -> Expected:
    path = write(directory / "size_0.w64", noise(), format="W64")
    content = bytearray(path.read_bytes())
    size = content.index(b"data") + 16
    content[size : size + 8] = (24).to_bytes(8, "little")
    path.write_bytes(content)
    return Expected(path, "ok", SECONDS, SECONDS)


def _bw64(directory: Path) -> Expected:
    path = write(directory / "broadcast.wav", noise(), format="RF64")
    path.write_bytes(b"BW64" + path.read_bytes()[4:])
    return Expected(path, "ok", SECONDS, SECONDS)


def _size_all_ones(directory: Path) -> Expected:
    path = directory / "size_ff.wav"
    path.write_bytes(wav_bytes(noise(), data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF))
    return Expected(path, "ok", SECONDS, SECONDS)


def _nan(directory: Path) -> Expected:
    sound = noise()
    sound[1000:1010] = np.nan
    sound[2000] = np.inf
    sound[3000] = 1e30
    return Expected(write(directory / "nan.wav", sound, subtype="FLOAT"), "ok", SECONDS, SECONDS)


def _eight_channels(directory: Path) -> Expected:
    return Expected(write(directory / "eight.wav", noise(channels=8)), "ok", SECONDS, SECONDS)


def _link_to_nowhere(directory: Path) -> Expected:
    path = directory / "gone.wav"
    path.symlink_to(directory / "not there.wav")
    return Expected(path, "corrupt", None, 0)


def _directory_named_wav(directory: Path) -> Expected:
    (directory / "x.wav").mkdir()
    return Expected(write(directory / "x.wav" / "inside.wav", noise()), "ok", SECONDS, SECONDS)


def _odd_name(directory: Path) -> Expected:
    path = directory / 'it\'s "frog" night\n🐸 é.wav'
    return Expected(write(path, noise()), "ok", SECONDS, SECONDS)


def _undecodable_name(directory: Path) -> Expected:
    path = Path(os.fsdecode(os.fsencode(directory) + b"/gr\xfcn.wav"))
    return Expected(write(path, noise()), "ok", SECONDS, SECONDS)


def _long_name(directory: Path) -> Expected:
    return Expected(write(directory / ("n" * 246 + ".wav"), noise()), "ok", SECONDS, SECONDS)


def _encoded(name: str, rate_hz: int = RATE_HZ, **options: str) -> Callable[[Path], Expected]:
    def make(directory: Path) -> Expected:
        path = write(directory / name, noise(SECONDS, rate_hz), rate_hz, **options)
        # Encoders that work in blocks fill up the last one.
        padded = {"IMA_ADPCM", "MS_ADPCM", "GSM610", "VORBIS", "OPUS"} & set(options.values())
        return Expected(
            path, "ok", SECONDS, SECONDS, 0.1 if padded or name.endswith((".mp3", ".ogg")) else 1e-3
        )

    make.__name__ = name
    return make


_KINDS: tuple[Callable[[Path], Expected], ...] = (
    _good,
    _zero_bytes,
    _text,
    _header_only_wav,
    _blip,
    _claimed_but_absent,
    _cut_wav,
    _cut_flac,
    _preallocated_flac,
    _unfinished_flac,
    _headless_flac,
    _cut_mp3,
    _untagged_mp3,
    _cut_aiff,
    _audiomoth,
    _size_never_written,
    _size_all_ones,
    _w64_size_never_written,
    _bw64,
    _nan,
    _eight_channels,
    _link_to_nowhere,
    _directory_named_wav,
    _odd_name,
    _undecodable_name,
    _long_name,
    _encoded("u8.wav", subtype="PCM_U8"),
    _encoded("24.wav", subtype="PCM_24"),
    _encoded("32.wav", subtype="PCM_32"),
    _encoded("float.wav", subtype="FLOAT"),
    _encoded("double.wav", subtype="DOUBLE"),
    _encoded("ima.wav", subtype="IMA_ADPCM"),
    _encoded("ms.wav", subtype="MS_ADPCM"),
    _encoded("gsm.wav", 8000, subtype="GSM610"),
    _encoded("alaw.wav", subtype="ALAW"),
    _encoded("ulaw.wav", subtype="ULAW"),
    _encoded("extensible.wav", format="WAVEX"),
    _encoded("large.rf64", format="RF64"),
    _encoded("sony.w64", format="W64"),
    _encoded("apple.caf", format="CAF"),
    _encoded("sun.au", format="AU"),
    _encoded("plain.flac"),
    _encoded("plain.mp3"),
    _encoded("plain.ogg"),
    _encoded("opus.opus", format="OGG", subtype="OPUS"),
    _encoded("slow.wav", 1000),
    _encoded("hydrophone.wav", 2000),
    _encoded("bat.wav", 384_000),
)
