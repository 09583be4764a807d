"""Opening sound files and reading their samples in order, through libsndfile."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from naturelm.recordings.flac import read_flac_header
from naturelm.recordings.mpeg import mended_mpeg, read_mpeg_header
from naturelm.recordings.riff import mended_wave, read_wave_header

_MPEG_EXTENSIONS = (".mp3", ".mp2")


def open_sound(path: str | os.PathLike[str]) -> soundfile.SoundFile:
    """Open a sound file for reading, with the headers mended that would lose sound.

    Mended are WAV, RF64 and W64 files whose size was never written or wrapped around at 4 GiB, BW64 files
    (RF64 by another name, which libsndfile does not know), and MP3 files without a length tag.

    Raises
    ------
    soundfile.LibsndfileError
        libsndfile does not know the format, or it is too damaged to open.
    OSError
        The file cannot be read.
    """
    file = open(path, "rb")  # noqa: SIM115 - closed below, or by SoundFileOwner
    magic = file.read(4)
    if magic in (b"RIFF", b"RF64", b"BW64", b"riff"):
        wave = read_wave_header(file)
        if wave is not None and wave.data_offset is not None and (wave.mend or magic == b"BW64"):
            return _OwningSoundFile(mended_wave(file, wave))
    elif magic[:3] == b"ID3" or magic[:1] == b"\xff" or os.fspath(path).lower().endswith(_MPEG_EXTENSIONS):
        mpeg = read_mpeg_header(file)
        if mpeg is not None and not mpeg.has_tag:
            return _OwningSoundFile(mended_mpeg(file, mpeg))
    file.close()
    return soundfile.SoundFile(os.fsencode(path))


def can_seek(path: str | os.PathLike[str], sound: soundfile.SoundFile) -> bool:
    """Say whether a span in the middle is found quickly and exactly.

    Not so for MP3 (the place is a guess), Ogg (a search through pages), and FLAC whose end is missing (see
    `FlacHeader.intact`).
    """
    if sound.format == "FLAC":
        with open(path, "rb") as file:
            flac = read_flac_header(file)
        return flac is None or flac.intact
    return sound.format not in ("MP3", "OGG")


class _OwningSoundFile(soundfile.SoundFile):
    """A SoundFile that closes the file object it reads from."""

    def __init__(self, file: Any) -> None:
        self._owned = file
        try:
            super().__init__(file)
        except Exception:
            file.close()
            raise

    def close(self) -> None:
        super().close()
        with suppress(AttributeError):
            self._owned.close()


def read_frames(sound: soundfile.SoundFile, buffer: npt.NDArray[np.float32]) -> int:
    """Fill `buffer` with the next samples; returns how many frames there were.

    soundfile's own `read` seeks after every block, which some truncated FLAC files never return from, and
    throws a block away when its end is damaged. The C function below it does neither, and reads on where a
    header does not know the length.

    Parameters
    ----------
    buffer : float32 [frames, channels], C-contiguous
        Full scale is 1.
    """
    pointer = soundfile._ffi.cast("float *", soundfile._ffi.from_buffer(buffer))
    return int(soundfile._snd.sf_readf_float(sound._file, pointer, len(buffer)))


def read_error(sound: soundfile.SoundFile) -> str | None:
    """What libsndfile says went wrong with the last read, if anything."""
    code = soundfile._snd.sf_error(sound._file)
    if code == 0:
        return None
    text = soundfile._ffi.string(soundfile._snd.sf_error_number(code)).decode("utf-8", "replace")
    return " ".join(text.removeprefix("Error : ").rstrip(".").split())
