"""Opening sound files and reading their samples in order, through libsndfile."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import soundfile

from naturelm.recordings.aiff import mended_aiff, read_aiff_header
from naturelm.recordings.flac import read_flac_header
from naturelm.recordings.mpeg import may_be_mpeg, mended_mpeg, read_mpeg_header
from naturelm.recordings.prefixed import PrefixedFile
from naturelm.recordings.riff import mended_wave, read_wave_header
from naturelm.recordings.sized import SIZED_MAGIC, mended_size, read_sized_header
from naturelm.storage import StoreError, StorePath, is_url, location

# A larger file is read where it lies.
_LARGEST_SCRATCH_BYTES = 512 << 20
_LOG = logging.getLogger(__name__)


def open_sound(path: str | os.PathLike[str] | StorePath) -> soundfile.SoundFile:
    """Open a sound file for reading, with the headers mended that would lose sound.

    A file in an object store is read by ranges; MP3 and Ogg, of which every byte is needed and some are read twice,
    are copied to the temporary directory, from where they go when they are closed or the process ends.

    Mended are WAV, RF64, W64 and AIFF files whose header leads libsndfile astray (see `WaveHeader.mend`), BW64 files
    (RF64 by another name, which libsndfile does not know), and MP3 files (layer III) without a length tag. The sample
    rate of a file that plays slower than life (GUANO's time expansion) is that of life.

    Raises
    ------
    soundfile.LibsndfileError
        libsndfile does not know the format, or it is too damaged to open.
    OSError
        The file cannot be read.
    """
    remote = is_url(path)
    file = opened = open_bytes(path)
    magic = file.read(4)
    is_mpeg = may_be_mpeg(str(path), magic)
    if remote and (is_mpeg or magic == b"OggS"):
        file = _on_scratch(file)
    mended, expansion = _fixed(file, magic, str(path))
    if mended is not None or remote:
        file.seek(0)
        sound: _ReadSoundFile = _OwningSoundFile(mended or file, opened)
    else:
        file.close()
        # Given text, soundfile refuses names that are not UTF-8. Windows has none, and opens only text rightly.
        sound = _ReadSoundFile(str(path) if sys.platform == "win32" else os.fsencode(str(path)))
    sound.expansion = expansion
    return sound


def _fixed(file: BinaryIO, magic: bytes, path: str) -> tuple[PrefixedFile | None, float]:
    """The file with its header fixed, where that is needed; and how many times slower than life it plays."""
    if magic in (b"RIFF", b"RF64", b"BW64", b"riff"):
        wave = read_wave_header(file)
        if wave is None or wave.data_offset is None:
            return None, 1
        return mended_wave(file, wave) if wave.mend or magic == b"BW64" else None, wave.expansion
    if magic == b"FORM":
        aiff = read_aiff_header(file)
        return mended_aiff(file, aiff) if aiff is not None and aiff.mend else None, 1
    if magic in SIZED_MAGIC:
        sized = read_sized_header(file)
        return mended_size(file, sized) if sized is not None and sized.mend else None, 1
    if magic == b"fLaC" or magic[:3] == b"ID3":
        flac = read_flac_header(file, with_end=False)
        if flac is not None:
            return None, flac.expansion
    if may_be_mpeg(path, magic):
        mpeg = read_mpeg_header(file)
        if mpeg is not None and mpeg.layer == 3 and not mpeg.has_tag:
            return mended_mpeg(file, mpeg), 1
    return None, 1


def open_bytes(path: str | os.PathLike[str] | StorePath) -> BinaryIO:
    """Open a file on a disk, or by its URL in an object store.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    return location(path).open("rb")


def _on_scratch(file: BinaryIO) -> BinaryIO:
    """A copy in a nameless temporary file, or the file itself where there is no room for one."""
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size_bytes > min(_LARGEST_SCRATCH_BYTES, shutil.disk_usage(tempfile.gettempdir()).free // 2):
        return file
    with file:
        # Closed by the sound file that reads it. On Windows it is a wrapper that does all the same.
        copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(file, copy, 8 << 20)
    copy.seek(0)
    return copy


def can_seek(path: str | os.PathLike[str] | StorePath, sound: soundfile.SoundFile) -> bool:
    """Say whether a span in the middle is found quickly and exactly.

    Not so for MP3 (the place is a guess), Ogg (a search through pages), and FLAC whose end is missing (see
    `FlacHeader.intact`).
    """
    if sound.format == "FLAC":
        with open_bytes(path) as file:
            flac = read_flac_header(file)
        return flac is not None and flac.intact
    return sound.format not in ("MP3", "OGG")


class _ReadSoundFile(soundfile.SoundFile):
    """A SoundFile whose sample rate is that of life where it plays slower."""

    expansion = 1.0

    @property
    def samplerate(self) -> int:
        return round(super().samplerate * self.expansion)


class _OwningSoundFile(_ReadSoundFile):
    """A SoundFile that closes the file object it reads from, and knows why that failed."""

    def __init__(self, file: Any, source: BinaryIO) -> None:
        self._owned = file
        self._source = source
        try:
            super().__init__(file)
        except Exception:
            file.close()
            if self.failure is not None:
                raise self.failure from None
            raise

    @property
    def failure(self) -> StoreError | None:
        """Why the store did not give what was read; libsndfile saw the end of the file there."""
        raw = getattr(self._source, "raw", None)
        return getattr(raw, "failure", None)

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

    Raises
    ------
    StoreError
        The object store fails.
    """
    if has_c_functions():
        pointer = soundfile._ffi.cast("float *", soundfile._ffi.from_buffer(buffer))
        frames = int(soundfile._snd.sf_readf_float(sound._file, pointer, len(buffer)))
    else:
        try:
            frames = len(sound.read(out=buffer))
        except soundfile.LibsndfileError:
            frames = 0
    raise_failure(sound)
    return frames


@cache
def has_c_functions() -> bool:
    """Whether soundfile lets libsndfile's own functions be called; the log reports once where it does not."""
    # Private in soundfile 0.14, and `SoundFile._file` with them.
    if hasattr(soundfile, "_ffi") and hasattr(soundfile, "_snd") and hasattr(soundfile.SoundFile, "_file"):
        return True
    _LOG.warning(
        "soundfile %s does not pass on libsndfile's functions: damaged recordings lose more sound, and reasons of "
        "damage are not given",
        soundfile.__version__,
    )
    return False


def raise_failure(sound: soundfile.SoundFile) -> None:
    """Raise the StoreError that made libsndfile see the end of a file where there was none, if there was one."""
    if isinstance(sound, _OwningSoundFile) and sound.failure is not None:
        raise sound.failure


def read_error(sound: soundfile.SoundFile) -> str | None:
    """What libsndfile says went wrong with the last read, if anything."""
    if not has_c_functions():
        return None
    code = soundfile._snd.sf_error(sound._file)
    if code == 0:
        return None
    text = soundfile._ffi.string(soundfile._snd.sf_error_number(code)).decode("utf-8", "replace")
    return " ".join(text.removeprefix("Error : ").rstrip(".").split())
