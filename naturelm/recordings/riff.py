"""The headers of WAV, RF64, BW64 and W64 files, read as their writers meant them.

Many writers forget the pad byte that follows a chunk of odd size, write sizes that no file has, or lose power before
they write any. Chunks are therefore looked for at both alignments, a size that reaches beyond the file means "to the
end", and metadata behind the sound is found from the end of the file. Sizes that cannot be true never lead to large
reads: only chunk headers and small metadata chunks are read.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from naturelm.recordings.broadcast import bext_description
from naturelm.recordings.chunks import (
    MAXIMUM_CHUNKS,
    MAXIMUM_METADATA_BYTES,
    ChunkFile,
    alignments,
    is_of_a_pipe,
    may_be_name,
)
from naturelm.recordings.id3 import parse_id3
from naturelm.recordings.metadata import Tags
from naturelm.recordings.prefixed import PrefixedFile

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
# Of any codec that has no blocks of fixed length: MP3 at 8 kbit/s.
_LEAST_BYTES_PER_S = 1000

_WRAP = 1 << 32
_NEVER_WRITTEN = 0xFFFFFFFF
_NEVER_WRITTEN_64 = 0xFFFFFFFFFFFFFFFF

_KNOWN_CHUNKS = frozenset({
    b"fmt ", b"data", b"fact", b"LIST", b"guan", b"bext", b"iXML", b"axml", b"chna", b"id3 ", b"ID3 ", b"cue ",
    b"smpl", b"inst", b"PEAK", b"JUNK", b"junk", b"FLLR", b"PAD ", b"_PMX", b"ds64", b"wamd", b"harp", b"cart",
    b"levl", b"link", b"plst", b"umid", b"minf", b"elm1", b"regn", b"DISP", b"afsp", b"acid", b"strc", b"MD5 ",
    b"r64m", b"adtl", b"aXML", b"SyLp", b"Cr8r", b"wavl", b"slnt",
})  # fmt: skip
_KNOWN_CHUNK = re.compile(b"|".join(re.escape(name) for name in sorted(_KNOWN_CHUNKS)))
# What comes after the claimed sound and is less than this may be anything.
_LEAST_LOST_BYTES = 1 << 14
# Where metadata behind sound of unknown size is looked for, and a lost `data` chunk behind a chunk of a false size.
_TAIL_BYTES = 1 << 16
_RESYNC_BYTES = 1 << 20

# W64 chunk ids are GUIDs that begin with a RIFF id and end in one of these.
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_TAILS = (_W64_RIFF[4:], b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a")


@dataclass(frozen=True)
class WaveHeader:
    """What a WAV, RF64 or W64 header says.

    Attributes
    ----------
    container : {"WAV", "RF64", "W64"}
    codec : str
        `PCM_16`, `FLOAT`, `IMA_ADPCM`, …; the tag in hexadecimal where it is unknown.
    channels, sample_rate_hz : int
    format_chunk : bytes
        The `fmt ` chunk's contents.
    data_offset : int, optional
        Where the sound begins in the file, in bytes; None where there is no `data` chunk.
    data_bytes : int
        Size of the sound in bytes, as far as the file holds it.
    frames : int, optional
        Samples per channel in those bytes; None where that is unknown.
    claimed_frames : int, optional
        Samples per channel that the header claims, where that is more than the file holds: the file was cut.
    mend : bool
        Readers that believe the header lose sound, or take something else for sound: a size was never written
        (the recorder lost power), wrapped around at 4 GiB or is wrong, or a chunk is not where it should be.
    tags : Tags
        Contents of `guan`, `LIST/INFO/ICMT`, `bext`, `iXML` and `id3 ` chunks.
    """

    container: str
    codec: str
    channels: int
    sample_rate_hz: int
    format_chunk: bytes
    data_offset: int | None
    data_bytes: int
    frames: int | None
    claimed_frames: int | None
    mend: bool
    tags: Tags

    @property
    def is_known_codec(self) -> bool:
        return not self.codec.startswith("0x")

    @property
    def expansion(self) -> float:
        """How many times slower than life the file plays."""
        return self.tags.guano_facts().expansion_of(
            self.sample_rate_hz, self.claimed_frames or self.frames or 0
        )


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
    file.seek(0)
    head = file.read(40)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        walk = _Walk(ChunkFile(file, _KNOWN_CHUNKS, "little"), "WAV" if head[:4] == b"RIFF" else "RF64")
        walk.riff(first_chunk=12)
    elif head[:16] == _W64_RIFF and head[24:28] == b"wave":
        walk = _Walk(_W64File(file, (), "little"), "W64")
        walk.w64(first_chunk=40)
    else:
        return None
    return walk.header()


class _W64File(ChunkFile):
    """A W64 file: names are GUIDs, sizes have eight bytes, and chunks begin at multiples of eight."""

    def is_known(self, position: int) -> bool:
        return self.read(position, 16).endswith(_W64_TAILS)

    def may_begin(self, position: int) -> bool:
        return False

    def end_with_file(self, position: int) -> bool:
        return False


class _Walk:
    """One walk over the chunks; collects the fields of `WaveHeader`."""

    def __init__(self, chunks: ChunkFile, container: str) -> None:
        self.chunks = chunks
        self.container = container
        self.format_chunk = b""
        self.data_offset: int | None = None
        self.data_bytes = 0
        self.claimed_bytes: int | None = None
        self.fact_frames: int | None = None
        self.mend = False
        self.tags = Tags()

    def riff(self, first_chunk: int) -> None:
        position: int | None = first_chunk
        ds64_data_bytes = None
        for _ in range(MAXIMUM_CHUNKS):
            header = self.chunks.read(position, 8) if position is not None else b""
            if position is None or len(header) < 8:
                return
            name, size = struct.unpack("<4sI", header)
            body = position + 8
            if name == b"ds64":
                ds64 = self.chunks.read(body, 16)
                if len(ds64) == 16:
                    ds64_data_bytes = struct.unpack("<8xQ", ds64)[0]
            elif name == b"data" and self.data_offset is None:
                if self.container == "RF64" and size == _NEVER_WRITTEN and ds64_data_bytes is not None:
                    size = self.sound(body, ds64_data_bytes, never_written=_NEVER_WRITTEN_64)
                else:
                    size = self.sound(body, size, never_written=_NEVER_WRITTEN)
            else:
                self.metadata(name, body, size)
            position = self.following(body, alignments(body + size, size))

    def w64(self, first_chunk: int) -> None:
        position: int | None = first_chunk
        for _ in range(MAXIMUM_CHUNKS):
            header = self.chunks.read(position, 24) if position is not None else b""
            if position is None or len(header) < 24:
                return
            name, size = struct.unpack("<4s12xQ", header)
            size = max(size - 24, 0)
            body = position + 24
            if name == b"data" and self.data_offset is None:
                size = self.sound(body, size, never_written=_NEVER_WRITTEN_64 - 24)
            else:
                self.metadata(b"LIST" if name == b"list" else name, body, size)
            end = body + size
            position = self.following(body, ((end + 7) & ~7, end, (end + 1) & ~1))

    def following(self, body: int, candidates: tuple[int, ...]) -> int | None:
        """Where the next chunk begins; where there is none, and the sound is not found yet, where `data` is."""
        position = self.chunks.following(candidates)
        if self.data_offset is None and position != candidates[0]:
            # libsndfile goes by the first.
            self.mend = True
            return self.resync(body) if position is None else position
        return position

    def resync(self, body: int) -> int | None:
        """Where a `data` chunk begins behind a chunk whose size is false."""
        name = b"data" + (_W64_TAILS[1] if self.container == "W64" else b"")
        content = self.chunks.read(body, _RESYNC_BYTES)
        found = content.find(name)
        while found >= 0:
            size = int.from_bytes(content[found + len(name) : found + len(name) + 4], "little")
            # Comments hold the word, too, followed by more words.
            if size <= self.chunks.rest(body + found) or is_of_a_pipe(size):
                return body + found
            found = content.find(name, found + 1)
        return None

    def sound(self, body: int, size: int, never_written: int) -> int:
        """Note where the sound is stored; returns its size in bytes."""
        rest = self.chunks.rest(body)
        if size == never_written or (size == 0 and rest > 0 and not self.chunks.is_known(body)):
            self.mend, size = True, self.up_to_metadata(body)
        elif self.container == "WAV" and size + _WRAP <= rest:
            # More than 4 GiB were written under a 32-bit size that started again from 0.
            self.mend, size = True, size + (rest - size) // _WRAP * _WRAP
        elif size > rest:
            # The writer may have counted its header, too.
            if not is_of_a_pipe(size) and size > rest + body:
                self.claimed_bytes = size
            size = self.up_to_metadata(body)
            self.mend = self.mend or size < rest
        elif size + _LEAST_LOST_BYTES <= rest and not self.is_over_at(body + size):
            # Brought up to date now and then, and not after the recorder lost power.
            self.mend, size = True, self.up_to_metadata(body)
        elif size < rest and not self.is_over_at(body + size):
            # The size counts the header, and what it counts too much is the beginning of metadata.
            before = self.up_to_metadata(body)
            if size - body <= before < size:
                self.mend, size = True, before
        self.data_offset, self.data_bytes = body, size
        return size

    def up_to_metadata(self, body: int) -> int:
        """Size of the sound that begins at `body` and ends where chunks begin that end with the file."""
        first = max(body, self.chunks.size_bytes - _TAIL_BYTES)
        for match in _KNOWN_CHUNK.finditer(self.chunks.read(first, _TAIL_BYTES)):
            if self.chunks.end_with_file(first + match.start()):
                return first + match.start() - body
        return self.chunks.rest(body)

    def is_over_at(self, position: int) -> bool:
        """Whether what comes after the claimed sound is something else: a chunk, or zeros up to a cluster's end."""
        behind = self.chunks.read(position, 4096)
        # Pad bytes may follow the sound; many writers forget them.
        pads = range(8 if self.container == "W64" else 2)
        return not any(behind) or any(may_be_name(behind[pad : pad + 4]) for pad in pads)

    def metadata(self, name: bytes, body: int, size: int) -> None:
        if name not in _METADATA:
            return
        content = self.chunks.read(body, min(size, MAXIMUM_METADATA_BYTES))
        if name == b"fmt ":
            if len(content) >= 16:
                self.format_chunk = self.format_chunk or content[:64]
        elif name == b"fact":
            if len(content) >= 4:
                self.fact_frames = struct.unpack("<I", content[:4])[0]
        else:
            add_riff_chunk(self.tags, name, content)

    def header(self) -> WaveHeader | None:
        if len(self.format_chunk) < 16:
            return None
        tag, channels, rate, _, block_align, bits = struct.unpack("<HHIIHH", self.format_chunk[:16])
        if tag == _EXTENSIBLE and len(self.format_chunk) >= 26:
            tag = struct.unpack("<H", self.format_chunk[24:26])[0]
        if not channels or not rate:
            return None
        codec = _CODECS.get(tag, f"0x{tag:04X}")

        def frames_in(data_bytes: int | None) -> int | None:
            if data_bytes is None:
                return None
            return self.frames_in(data_bytes, codec, channels, rate, block_align, bits)

        return WaveHeader(
            container=self.container,
            codec=_subtype(codec, bits),
            channels=channels,
            sample_rate_hz=rate,
            format_chunk=self.format_chunk,
            data_offset=self.data_offset,
            data_bytes=self.data_bytes,
            frames=0 if self.data_offset is None else frames_in(self.data_bytes),
            claimed_frames=frames_in(self.claimed_bytes),
            mend=self.mend,
            tags=self.tags,
        )

    def frames_in(
        self, data_bytes: int, codec: str, channels: int, rate: int, block_align: int, bits: int
    ) -> int | None:
        """Samples per channel in so many bytes of sound; None where the header does not say."""
        if codec in ("PCM", "FLOAT", "ALAW", "ULAW"):
            # A block that does not hold its samples is a damaged field: libsndfile goes by the samples, too.
            holds = block_align >= channels * -(-bits // 8) > 0
            return data_bytes // block_align if holds else None
        if codec in _BLOCK_CODECS and block_align and len(self.format_chunk) >= 20:
            frames = data_bytes // block_align * struct.unpack("<H", self.format_chunk[18:20])[0]
            # The last block is padded; `fact` says how many of its samples count.
            return min(frames, self.fact_frames) if self.fact_frames and not self.mend else frames
        if self.fact_frames is None:
            return None
        return min(self.fact_frames, data_bytes * rate // _LEAST_BYTES_PER_S)


_METADATA = frozenset({b"fmt ", b"fact", b"guan", b"LIST", b"bext", b"iXML", b"id3 ", b"ID3 "})


def add_riff_chunk(tags: Tags, name: bytes, content: bytes) -> None:
    """Add what a chunk of metadata says, in a RIFF file or in a format that keeps the chunks of one."""
    if name == b"guan":
        tags.guano = tags.guano or content.decode("utf-8", "replace").strip("\0\ufeff")
    elif name == b"LIST":
        tags.add_comments(_info_comments(content))
    elif name == b"bext":
        tags.bext = tags.bext or content
        tags.add_comments([bext_description(content)])
    elif name == b"iXML":
        tags.ixml = tags.ixml or content.decode("utf-8", "replace")
    elif name in (b"id3 ", b"ID3 "):
        tags.add_comments(parse_id3(content))


def _subtype(codec: str, bits: int) -> str:
    if codec == "PCM":
        return "PCM_U8" if bits <= 8 else f"PCM_{-(-bits // 8) * 8}"
    return "DOUBLE" if codec == "FLOAT" and bits == 64 else codec


def _info_comments(content: bytes) -> list[str]:
    """Texts of the `ICMT` entries of a `LIST` chunk."""
    texts: list[str] = []
    position = 4
    while content[:4] == b"INFO" and position + 8 <= len(content):
        name, size = struct.unpack("<4sI", content[position : position + 8])
        if name == b"ICMT":
            text = content[position + 8 : position + 8 + size].partition(b"\0")[0]
            texts.append(text.decode("utf-8", "replace"))
        position += 8 + size
        # Here, too, pad bytes are forgotten.
        if size & 1 and content[position : position + 1] in (b"\0", b""):
            position += 1
    return texts


def mended_wave(file: BinaryIO, header: WaveHeader) -> PrefixedFile:
    """See a WAV, RF64 or W64 file whose header is wrong as one whose header is right.

    Parameters
    ----------
    file : BinaryIO
        The damaged file; closed with the one returned.
    header : WaveHeader
        What `read_wave_header` found in it; `data_offset` and `data_bytes` say where the sound is.
    """
    assert header.data_offset is not None
    sound_bytes = min(header.data_bytes, file.seek(0, io.SEEK_END) - header.data_offset)
    form = (
        struct.pack("<4sI", b"fmt ", len(header.format_chunk))
        + header.format_chunk
        + b"\0" * (len(header.format_chunk) & 1)
    )
    riff_bytes = 4 + len(form) + 8 + sound_bytes
    if riff_bytes < _NEVER_WRITTEN:
        head = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE") + form
        head += struct.pack("<4sI", b"data", sound_bytes)
    else:
        ds64 = struct.pack("<4sIQQQI", b"ds64", 28, riff_bytes + 36, sound_bytes, header.frames or 0, 0)
        head = struct.pack("<4sI4s", b"RF64", _NEVER_WRITTEN, b"WAVE") + ds64 + form
        head += struct.pack("<4sI", b"data", _NEVER_WRITTEN)
    return PrefixedFile(head, file, header.data_offset, sound_bytes)
