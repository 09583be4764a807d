"""The headers of WAV, RF64, BW64 and W64 files, read as they stand.

libsndfile cuts the length it reports to what the file holds, which hides that a recorder lost power. Here the
claim is what the header says. Sizes that cannot be true never lead to large reads: only chunk headers and
small metadata chunks are read.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from naturelm.storage import SeekableFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CODECS = {
    1: "PCM",
    2: "MS_ADPCM",
    3: "FLOAT",
    6: "ALAW",
    7: "ULAW",
    0x11: "IMA_ADPCM",
    0x31: "GSM610",
    0x55: "MP3",
}
_BLOCK_CODECS = ("MS_ADPCM", "IMA_ADPCM", "GSM610")
_EXTENSIBLE = 0xFFFE

_MAXIMUM_CHUNKS = 1000
_MAXIMUM_METADATA_BYTES = 1 << 20
_HIGHEST_RATE_HZ = 10_000_000
_WRAP = 1 << 32
_NEVER_WRITTEN = 0xFFFFFFFF
_NEVER_WRITTEN_64 = 0xFFFFFFFFFFFFFFFF

# Chunks that may follow the sound: seeing one where the sound should be means that there is none.
_AFTER_SOUND = (
    b"LIST",
    b"guan",
    b"fact",
    b"bext",
    b"iXML",
    b"id3 ",
    b"ID3 ",
    b"cue ",
    b"smpl",
    b"PEAK",
    b"JUNK",
    b"_PMX",
)

_CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ ]{4}")
# What stands behind the claimed sound and is less than this may be anything.
_LEAST_LOST_BYTES = 1 << 14

# W64 chunk ids are GUIDs that begin with a RIFF id; all but the first share this tail.
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


@dataclass(frozen=True)
class WaveHeader:
    """What a WAV, RF64 or W64 header says.

    Attributes
    ----------
    container : {"WAV", "RF64", "W64"}
    codec : str
        `PCM_16`, `FLOAT`, `IMA_ADPCM`, …; the tag in hexadecimal where it is unknown.
    channels, sample_rate_hz, block_align_bytes : int
    format_chunk : bytes
        The `fmt ` chunk's contents.
    data_offset : int, optional
        Where the sound begins in the file, in bytes; None where there is no `data` chunk.
    data_bytes : int
        Size of the sound in bytes: as claimed, or up to the end of the file where `mend` is set.
    frames : int, optional
        Samples per channel that the header claims; None where it cannot say.
    mend : bool
        The size was never written (the recorder lost power) or wrapped around at 4 GiB, and readers that
        believe it lose sound.
    guano, comment : str, optional
        Contents of the `guan` chunk and of `LIST/INFO/ICMT`.
    """

    container: str
    codec: str
    channels: int
    sample_rate_hz: int
    block_align_bytes: int
    format_chunk: bytes
    data_offset: int | None
    data_bytes: int
    frames: int | None
    mend: bool
    guano: str | None
    comment: str | None

    @property
    def is_known_codec(self) -> bool:
        return not self.codec.startswith("0x")


def read_wave_header(file: BinaryIO) -> WaveHeader | None:
    """Read the header of a WAV, RF64, BW64 or W64 file.

    Returns
    -------
    WaveHeader or None
        None where the file is something else or has no usable `fmt ` chunk.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    file_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(40)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        walk = _Walk(file, file_bytes, "WAV" if head[:4] == b"RIFF" else "RF64")
        walk.riff(first_chunk=12)
    elif head[:16] == _W64_RIFF and head[24:28] == b"wave":
        walk = _Walk(file, file_bytes, "W64")
        walk.w64(first_chunk=40)
    else:
        return None
    return walk.header()


class _Walk:
    """One walk over the chunks; collects what `WaveHeader` tells."""

    def __init__(self, file: BinaryIO, file_bytes: int, container: str) -> None:
        self.file = file
        self.file_bytes = file_bytes
        self.container = container
        self.format_chunk = b""
        self.data_offset: int | None = None
        self.data_bytes = 0
        self.fact_frames: int | None = None
        self.mend = False
        self.guano: str | None = None
        self.comment: str | None = None

    def riff(self, first_chunk: int) -> None:
        position, ds64_data_bytes = first_chunk, None
        for _ in range(_MAXIMUM_CHUNKS):
            if position >= self.file_bytes:
                return
            self.file.seek(position)
            header = self.file.read(8)
            if len(header) < 8:
                return
            name, size = struct.unpack("<4sI", header)
            body = position + 8
            if name == b"ds64":
                ds64 = self.file.read(16)
                if len(ds64) == 16:
                    ds64_data_bytes = struct.unpack("<8xQ", ds64)[0]
            elif name == b"data":
                if self.container == "RF64" and size == _NEVER_WRITTEN and ds64_data_bytes is not None:
                    size = self.sound(body, ds64_data_bytes, never_written=_NEVER_WRITTEN_64)
                else:
                    size = self.sound(body, size, never_written=_NEVER_WRITTEN)
            else:
                self.metadata(name, body, size)
            position = body + size + (size & 1)

    def w64(self, first_chunk: int) -> None:
        position = first_chunk
        for _ in range(_MAXIMUM_CHUNKS):
            if position >= self.file_bytes:
                return
            self.file.seek(position)
            header = self.file.read(24)
            if len(header) < 24:
                return
            name, size = struct.unpack("<4s12xQ", header)
            size = max(size - 24, 0)
            body = position + 24
            if name == b"data":
                size = self.sound(body, size, never_written=_NEVER_WRITTEN_64 - 24)
            else:
                self.metadata(b"LIST" if name == b"list" else name, body, size)
            position = (body + size + 7) & ~7

    def sound(self, body: int, size: int, never_written: int) -> int:
        """Note where the sound lies; returns its size in bytes."""
        if self.data_offset is not None:
            return size
        rest = max(self.file_bytes - body, 0)
        if size == never_written or (size == 0 and rest > 0 and not self.is_chunk_at(body)):
            self.mend, size = True, rest
        elif self.container == "WAV" and size + _WRAP <= rest:
            # More than 4 GiB were written under a 32-bit size that started again from 0.
            self.mend, size = True, size + (rest - size) // _WRAP * _WRAP
        elif rest < size <= rest + body:
            # The writer counted its header too.
            size = rest
        elif (
            self.container == "WAV" and size + _LEAST_LOST_BYTES <= rest and not self.is_over_at(body + size)
        ):
            # Brought up to date now and then, and not after the recorder lost power.
            self.mend, size = True, rest
        self.data_offset, self.data_bytes = body, size
        return size

    def is_chunk_at(self, position: int) -> bool:
        self.file.seek(position)
        return self.file.read(4) in _AFTER_SOUND

    def is_over_at(self, position: int) -> bool:
        """Whether what stands behind the claimed sound is something else: a chunk, or zeros up to a cluster's end."""
        self.file.seek(position)
        behind = self.file.read(4096)
        # A pad byte follows sound of odd size; many writers forget it.
        return not any(behind) or any(_CHUNK_NAME.match(behind, start) for start in (0, 1))

    def metadata(self, name: bytes, body: int, size: int) -> None:
        if name not in (b"fmt ", b"fact", b"guan", b"LIST"):
            return
        self.file.seek(body)
        content = self.file.read(min(size, _MAXIMUM_METADATA_BYTES))
        if name == b"fmt " and len(content) >= 16 and not self.format_chunk:
            self.format_chunk = content[:64]
        elif name == b"fact" and len(content) >= 4:
            self.fact_frames = struct.unpack("<I", content[:4])[0]
        elif name == b"guan":
            self.guano = content.decode("utf-8", "replace").strip("\0\ufeff")
        elif name == b"LIST" and content[:4] == b"INFO":
            self.comment = _info_comment(content) or self.comment

    def header(self) -> WaveHeader | None:
        if len(self.format_chunk) < 16:
            return None
        tag, channels, rate, _, block_align, bits = struct.unpack("<HHIIHH", self.format_chunk[:16])
        if tag == _EXTENSIBLE and len(self.format_chunk) >= 26:
            tag = struct.unpack("<H", self.format_chunk[24:26])[0]
        if not channels or not 0 < rate <= _HIGHEST_RATE_HZ:
            return None
        codec = _CODECS.get(tag, f"0x{tag:04X}")
        return WaveHeader(
            container=self.container,
            codec=_subtype(codec, bits),
            channels=channels,
            sample_rate_hz=rate,
            block_align_bytes=block_align,
            format_chunk=self.format_chunk,
            data_offset=self.data_offset,
            data_bytes=self.data_bytes,
            frames=self.claimed_frames(codec, block_align),
            mend=self.mend,
            guano=self.guano,
            comment=self.comment,
        )

    def claimed_frames(self, codec: str, block_align: int) -> int | None:
        if self.data_offset is None:
            return 0
        if codec in ("PCM", "FLOAT", "ALAW", "ULAW") and block_align:
            return self.data_bytes // block_align
        if codec in _BLOCK_CODECS and block_align and len(self.format_chunk) >= 20:
            frames = self.data_bytes // block_align * struct.unpack("<H", self.format_chunk[18:20])[0]
            # The last block is padded; `fact` says how many of its samples count.
            return min(frames, self.fact_frames) if self.fact_frames and not self.mend else frames
        return self.fact_frames


def _subtype(codec: str, bits: int) -> str:
    if codec == "PCM":
        return "PCM_U8" if bits <= 8 else f"PCM_{-(-bits // 8) * 8}"
    return "DOUBLE" if codec == "FLOAT" and bits == 64 else codec


def _info_comment(content: bytes) -> str | None:
    position = 4
    while position + 8 <= len(content):
        name, size = struct.unpack("<4sI", content[position : position + 8])
        if name == b"ICMT":
            return content[position + 8 : position + 8 + size].split(b"\0")[0].decode("utf-8", "replace")
        position += 8 + size + (size & 1)
    return None


def mended_wave(file: BinaryIO, header: WaveHeader) -> PrefixedFile:
    """See a WAV file whose `data` size is wrong as an RF64 file whose size is right.

    Parameters
    ----------
    file : BinaryIO
        The damaged file; closed with the one returned.
    header : WaveHeader
        What `read_wave_header` found in it; `data_offset` and `data_bytes` say where the sound lies.
    """
    assert header.data_offset is not None
    sound_bytes = min(header.data_bytes, file.seek(0, io.SEEK_END) - header.data_offset)
    format_chunk = header.format_chunk + b"\0" * (len(header.format_chunk) & 1)
    riff_bytes = 4 + 36 + 8 + len(format_chunk) + 8 + sound_bytes
    head = (
        struct.pack("<4sI4s", b"RF64", _NEVER_WRITTEN, b"WAVE")
        + struct.pack("<4sIQQQI", b"ds64", 28, riff_bytes, sound_bytes, header.frames or 0, 0)
        + struct.pack("<4sI", b"fmt ", len(header.format_chunk))
        + format_chunk
        + struct.pack("<4sI", b"data", _NEVER_WRITTEN)
    )
    return PrefixedFile(head, file, header.data_offset, sound_bytes)


class PrefixedFile(SeekableFile):
    """A stretch of a file with other bytes in front: a header that was lost, mended.

    Parameters
    ----------
    head : bytes
        What is read first.
    file : BinaryIO
        Where the rest comes from; closed with this one.
    offset, size_bytes : int
        The stretch of `file` that follows `head`.
    """

    def __init__(self, head: bytes, file: BinaryIO, offset: int, size_bytes: int) -> None:
        super().__init__(len(head) + size_bytes)
        self._head = head
        self._file = file
        self._offset = offset

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._position < self._size:
            if self._position < len(self._head):
                piece = self._head[self._position : self._position + len(view) - filled]
            else:
                self._file.seek(self._offset + self._position - len(self._head))
                piece = self._file.read(min(len(view) - filled, self._size - self._position))
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._position += len(piece)
        return filled

    def close(self) -> None:
        self._file.close()
        super().close()
