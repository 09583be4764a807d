"""Sizes of the sound in AU and CAF files, where libsndfile refuses or believes one that no file has.

Sources: Sun, `audio_filehdr(4)`; Apple, "Core Audio Format Specification 1.0", in which -1 means "to the end".
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from naturelm.recordings.chunks import MAXIMUM_CHUNKS, is_of_a_pipe
from naturelm.recordings.prefixed import PrefixedFile

SIZED_MAGIC = (b".snd", b"dns.", b"caff")
"""How the files begin whose sizes this module knows."""

_AU_SIZE = slice(8, 12)
# Of the size of a CAF file's sound: between a chunk's name and its contents.
_CAF_SIZE_BYTES = 8
# What comes before the sound of a CAF file; Apple's writers leave a page free.
_LONGEST_HEAD_BYTES = 1 << 20
# What comes after the claimed sound and is less than this may be anything.
_LEAST_LOST_BYTES = 1 << 14


@dataclass(frozen=True)
class SizedHeader:
    """Where the sound of a file is.

    Attributes
    ----------
    head : bytes
        What comes before the sound, with a size that is right.
    sound_bytes : int
        Size of the sound, as far as the file holds it.
    claimed_bytes : int, optional
        Size that the header claims, where that is more: the file was cut.
    mend : bool
        The size in the file leads libsndfile astray.
    """

    head: bytes
    sound_bytes: int
    claimed_bytes: int | None
    mend: bool


def read_sized_header(file: BinaryIO) -> SizedHeader | None:
    """Find the sound of an AU or CAF file.

    Returns
    -------
    SizedHeader or None
        None where the file is something else or has no sound.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    file_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(24)
    if head[:4] == b"caff":
        return _read_caf(file, file_bytes)
    if head[:4] not in SIZED_MAGIC or len(head) < 24:
        return None
    form = ">I" if head[:4] == b".snd" else "<I"
    (offset,), (size,) = struct.unpack(form, head[4:8]), struct.unpack(form, head[_AU_SIZE])
    if not 24 <= offset <= min(file_bytes, _LONGEST_HEAD_BYTES):
        return None
    file.seek(0)
    head = file.read(offset)
    rest = file_bytes - offset
    fixed = head[: _AU_SIZE.start] + struct.pack(form, min(rest, 0xFFFFFFFF)) + head[_AU_SIZE.stop :]
    return _judged(fixed, size, rest)


def _read_caf(file: BinaryIO, file_bytes: int) -> SizedHeader | None:
    position = 8
    for _ in range(MAXIMUM_CHUNKS):
        file.seek(position)
        chunk = file.read(12)
        body = position + 12
        if len(chunk) < 12 or body > _LONGEST_HEAD_BYTES:
            return None
        name, size = struct.unpack(">4sq", chunk)
        if name == b"data":
            rest = file_bytes - body
            file.seek(0)
            head = file.read(body - _CAF_SIZE_BYTES) + struct.pack(">q", rest)
            return _judged(head, size if size >= 0 else 1 << 64, rest)
        if size < 0:
            return None
        position = body + size
    return None


def _judged(fixed_head: bytes, size: int, rest: int) -> SizedHeader:
    if size > rest:
        return SizedHeader(fixed_head, rest, None if is_of_a_pipe(size) else size, mend=True)
    if size + _LEAST_LOST_BYTES <= rest:
        return SizedHeader(fixed_head, rest, None, mend=True)
    return SizedHeader(fixed_head, size, None, mend=False)


def mended_size(file: BinaryIO, header: SizedHeader) -> PrefixedFile:
    """See an AU or CAF file whose size is wrong as one whose size is right; it is closed with the one returned."""
    return PrefixedFile(header.head, file, len(header.head), header.sound_bytes)
