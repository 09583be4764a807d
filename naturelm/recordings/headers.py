"""The header of any recording: format, rate, channels, length and metadata, or what is wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import soundfile

from naturelm.recordings.aiff import AiffHeader, read_aiff_header
from naturelm.recordings.flac import FlacHeader, read_flac_header
from naturelm.recordings.formats import (
    CONVERT,
    READ_EXTENSIONS,
    extension_of,
    is_uniform,
    not_sound,
    unread_by_content,
    unread_by_name,
)
from naturelm.recordings.metadata import Tags
from naturelm.recordings.mpeg import MpegHeader, may_be_mpeg, read_mpeg_header
from naturelm.recordings.ogg import read_ogg_comments
from naturelm.recordings.riff import WaveHeader, read_wave_header
from naturelm.recordings.sized import read_sized_header
from naturelm.recordings.sound_files import can_seek, open_sound, read_frames
from naturelm.storage import Location

# Of an Ogg page of 255 Opus packets of 120 ms, each in a byte: no Ogg file holds more, whatever its last page says.
_MOST_OGG_SAMPLES_PER_BYTE = 3000
# Formats that libsndfile is given: by its own guesses, from the extension, it would take any bytes for sound.
_LIBSNDFILE_MAGIC = (
    b"RIFF", b"RIFX", b"RF64", b"riff", b"OggS", b"FORM", b"caff", b".snd", b"dns.", b"NIST",
    b"Creative Voice File",
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the formats' readers agree on.

    Attributes
    ----------
    format : str
        Container and encoding as `WAV/PCM_16`.
    sample_rate_hz : int
        As the header says.
    channels : int
    frames : int
        Samples per channel, as far as the file holds them.
    claimed_frames : int, optional
        Samples per channel that the header claims, where that is more.
    expansion : float
        How many times slower than life the file plays.
    seekable : bool
        See `Recording`.
    tags : Tags
    """

    format: str
    sample_rate_hz: int
    channels: int
    frames: int
    claimed_frames: int | None = None
    expansion: float = 1.0
    seekable: bool = True
    tags: Tags = field(default_factory=Tags)


class BadFileError(Exception):
    """A file without a usable header: `status`, and a sentence."""

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def read_header(path: Location, file: BinaryIO, size_bytes: int, head: bytes, tail: bytes) -> Header:
    """Read the header of a file whatever its format.

    Parameters
    ----------
    path : Path or StorePath
    file : BinaryIO
        The file, open.
    size_bytes : int
    head, tail : bytes
        How it begins and how it ends.

    Raises
    ------
    BadFileError
        It is not a recording that can be read.
    OSError
        It cannot be read.
    """
    if size_bytes == 0:
        raise BadFileError("corrupt", "the file is empty")
    if is_uniform(head) and is_uniform(tail):
        raise BadFileError(
            "corrupt", f"begins and ends with bytes of value {head[0]} alone, as a card that failed leaves it"
        )
    header = _own_header(path, file, head)
    if header is not None:
        return header
    unread = unread_by_content(head) or unread_by_name(path.name)
    if unread is not None:
        raise BadFileError("unsupported", unread.sentence)
    what = not_sound(head)
    if what is not None:
        raise BadFileError("unsupported", f"is {what} and no recording")
    if head.startswith(_LIBSNDFILE_MAGIC):
        try:
            return _libsndfile_header(path, file, size_bytes)
        except soundfile.SoundFileError as error:
            raise _not_opened(error) from None
    if extension_of(path.name) in READ_EXTENSIONS:
        raise BadFileError("corrupt", "does not begin as any recording does: its header is damaged")
    raise BadFileError("unsupported", "is not sound in a format that is read here")


def _own_header(path: Location, file: BinaryIO, head: bytes) -> Header | None:
    """The header of the formats that are read here and not by libsndfile; None where it is none of these."""
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"riff"):
        wave = read_wave_header(file)
        if wave is None:
            return None
        if not wave.is_known_codec:
            return _libsndfile_wave_header(path, file, wave)
        return None if wave.frames is None else _wave_header(wave)
    if head[:4] == b"FORM":
        aiff = read_aiff_header(file)
        return None if aiff is None else _aiff_header(path, aiff)
    if head[:4] == b"fLaC" or head[:3] == b"ID3":
        flac = read_flac_header(file)
        if flac is not None:
            return _flac_header(flac)
    if may_be_mpeg(path.name, head):
        mpeg = read_mpeg_header(file)
        if mpeg is not None:
            return _mpeg_header(mpeg)
    return None


def _wave_header(wave: WaveHeader) -> Header:
    return Header(
        format=f"{wave.container}/{wave.codec}",
        sample_rate_hz=wave.sample_rate_hz,
        channels=wave.channels,
        frames=wave.frames or 0,
        claimed_frames=wave.claimed_frames,
        expansion=wave.expansion,
        tags=wave.tags,
    )


def _libsndfile_wave_header(path: Location, file: BinaryIO, wave: WaveHeader) -> Header:
    try:
        with open_sound(path) as sound:
            return Header(
                format=f"{sound.format}/{sound.subtype}",
                sample_rate_hz=wave.sample_rate_hz,
                channels=sound.channels,
                frames=sound.frames,
                expansion=wave.expansion,
                tags=wave.tags,
            )
    except soundfile.SoundFileError:
        unread = unread_by_name(path.name)
        raise BadFileError(
            "unsupported",
            unread.sentence
            if unread
            else f"has the encoding {wave.codec}, which is not read here; {CONVERT}",
        ) from None


def _aiff_header(path: Location, aiff: AiffHeader) -> Header:
    try:
        with open_sound(path) as sound:
            return Header(
                format=f"{sound.format}/{sound.subtype}",
                sample_rate_hz=sound.samplerate,
                channels=sound.channels,
                frames=sound.frames,
                claimed_frames=_claimed_frames(sound.frames, aiff.sound_bytes, aiff.claimed_bytes),
                tags=aiff.tags,
            )
    except soundfile.SoundFileError as error:
        raise _not_opened(error) from None


def _claimed_frames(frames: int, held_bytes: int, claimed_bytes: int | None) -> int | None:
    """Samples per channel in the bytes that a header claims, given those in the bytes that the file holds."""
    return None if claimed_bytes is None or not held_bytes else frames * claimed_bytes // held_bytes


def _flac_header(flac: FlacHeader) -> Header:
    return Header(
        format=f"FLAC/PCM_{flac.bits_per_sample}",
        sample_rate_hz=flac.sample_rate_hz,
        channels=flac.channels,
        frames=flac.frames,
        claimed_frames=flac.claimed_frames,
        expansion=flac.expansion,
        seekable=flac.intact,
        tags=flac.tags,
    )


def _mpeg_header(mpeg: MpegHeader) -> Header:
    return Header(
        format=f"MP3/MPEG_LAYER_{'I' * mpeg.layer}",
        sample_rate_hz=mpeg.sample_rate_hz,
        channels=mpeg.channels,
        frames=mpeg.frames,
        claimed_frames=mpeg.claimed_frames,
        seekable=False,
        tags=mpeg.tags,
    )


def _libsndfile_header(path: Location, file: BinaryIO, size_bytes: int) -> Header:
    with open_sound(path) as sound:
        frames, tags = sound.frames, Tags()
        sized = read_sized_header(file)
        if sound.format == "OGG":
            if frames > size_bytes * _MOST_OGG_SAMPLES_PER_BYTE:
                frames = _count_frames(sound)
            tags.add_comments(read_ogg_comments(file))
        elif sound.comment:
            tags.add_comments([sound.comment])
        return Header(
            format=f"{sound.format}/{sound.subtype}",
            sample_rate_hz=sound.samplerate,
            channels=sound.channels,
            frames=frames,
            claimed_frames=_claimed_frames(frames, sized.sound_bytes, sized.claimed_bytes) if sized else None,
            seekable=can_seek(path, sound),
            tags=tags,
        )


def _count_frames(sound: soundfile.SoundFile) -> int:
    buffer = np.empty((1 << 16, sound.channels), np.float32)
    frames = 0
    while got := read_frames(sound, buffer):
        frames += got
    return frames


def _not_opened(error: soundfile.SoundFileError) -> BadFileError:
    reason = str(getattr(error, "error_string", error)).rstrip(".")
    if "unimplemented" in reason:
        return BadFileError("unsupported", f"has an encoding that is not read here ({reason}); {CONVERT}")
    return BadFileError("corrupt", f"cannot be opened: {reason}")
