"""The headers of MP3 (and MP1, MP2) files: how long they say they are.

Source: ISO 11172-3 §2.4.1.3 and 13818-3 for the frame header; the Xing, LAME and VBRI tags as
their encoders write them.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from naturelm.recordings.formats import extension_of
from naturelm.recordings.id3 import skip_id3
from naturelm.recordings.metadata import Tags
from naturelm.recordings.prefixed import PrefixedFile

# kbit/s by (MPEG 1?, layer), from index 1 to 14.
_BITRATES = {
    (True, 1): [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    (True, 2): [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    (True, 3): [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    (False, 1): [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    (False, 2): [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    (False, 3): [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_SEARCH_BYTES = 1 << 17
# So many frames in a row are not a coincidence.
_FRAMES_IN_A_ROW = 4
# Encoders count a frame more or less.
_SLACK_BYTES = 1 << 12
_EXTENSIONS = frozenset({"mp3", "mp2", "mp1", "mpa", "mpga"})


@dataclass(frozen=True)
class MpegHeader:
    """What the first frame and its tag say.

    Attributes
    ----------
    sample_rate_hz, channels : int
    layer : int
        1, 2 or 3.
    frames : int
        Samples per channel: as the encoder's tag claims, or counted over the file where there is no tag or where the
        file is shorter than the tag says.
    claimed_frames : int, optional
        Samples per channel that the tag claims, where the file is shorter than that: it was cut.
    first_frame_offset : int
        Bytes before the first frame (ID3 tags).
    has_tag : bool
        There is a Xing, Info or VBRI tag, as layer III has.
    tags : Tags
        Comments of the ID3 tags.
    """

    sample_rate_hz: int
    channels: int
    layer: int
    frames: int
    claimed_frames: int | None
    first_frame_offset: int
    has_tag: bool
    tags: Tags


@dataclass(frozen=True)
class _Frame:
    version: int
    layer: int
    sample_rate_hz: int
    channels: int
    size_bytes: int
    samples: int

    def is_like(self, other: _Frame) -> bool:
        return (self.version, self.layer, self.sample_rate_hz) == (
            other.version,
            other.layer,
            other.sample_rate_hz,
        )

    @property
    def least_bytes(self) -> int:
        """Size of a frame of this kind at the lowest bit rate."""
        bit_rate = 1000 * _BITRATES[self.version == 3, self.layer][0]
        return self.samples // 8 * bit_rate // self.sample_rate_hz

    @property
    def side_information_bytes(self) -> int:
        if self.version == 3:
            return 17 if self.channels == 1 else 32
        return 9 if self.channels == 1 else 17


def may_be_mpeg(name: str, head: bytes) -> bool:
    """Whether it is worth looking for MPEG frames in a file of this name that begins so."""
    return head[:3] == b"ID3" or head[:1] == b"\xff" or extension_of(name) in _EXTENSIONS


def read_mpeg_header(file: BinaryIO) -> MpegHeader | None:
    """Read how long an MP3 says it is; without a tag, count its frames (reads the whole file).

    Returns
    -------
    MpegHeader or None
        None where no frames follow one another near the start.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    offset, texts = skip_id3(file)
    file_bytes = file.seek(0, io.SEEK_END)
    file.seek(offset)
    head = file.read(_SEARCH_BYTES)
    start = _first_frame(head, is_at_end=file_bytes <= offset + len(head))
    if start is None:
        return None
    frame = _parse_frame(head[start : start + 4])
    assert frame is not None
    tags = Tags()
    tags.add_comments(texts)
    first = offset + start
    tag = _read_tag(head[start : start + 400], frame)
    claimed = None
    if tag is not None and tag.fits(file_bytes - first, frame):
        frames = tag.samples
    else:
        frames = _count_frames(file, first)
        if tag is not None:
            # The frame that holds the tag is none of the sound's.
            frames -= frame.samples
            claimed = tag.samples if tag.samples > frames else None
    return MpegHeader(
        sample_rate_hz=frame.sample_rate_hz,
        channels=frame.channels,
        layer=frame.layer,
        frames=frames,
        claimed_frames=claimed,
        first_frame_offset=first,
        has_tag=tag is not None,
        tags=tags,
    )


def mended_mpeg(file: BinaryIO, header: MpegHeader) -> PrefixedFile:
    """Put a Xing tag in front of an MP3 (layer III) that has none.

    Without one the decoder takes the bit rate of the first frames for that of all, and stops at the length
    it worked out from that: a variable bit rate loses most of the sound.
    """
    file.seek(header.first_frame_offset)
    first = bytearray(file.read(4))
    first[1] |= 0x01  # no checksum
    # A middling bit rate, so that the tag fits whatever the first frame's was.
    first[2] = 0x90 | (first[2] & 0x0C)
    frame = _parse_frame(bytes(first))
    assert frame is not None
    size_bytes = file.seek(0, io.SEEK_END) - header.first_frame_offset
    tag = struct.pack(">4sIII", b"Xing", 3, header.frames // frame.samples, size_bytes + frame.size_bytes)
    head = (bytes(first) + bytes(frame.side_information_bytes) + tag).ljust(frame.size_bytes, b"\0")
    return PrefixedFile(head, file, header.first_frame_offset, size_bytes)


def _first_frame(head: bytes, is_at_end: bool) -> int | None:
    """Where the first frame begins that others of its kind follow: 11 set bits occur by chance.

    `is_at_end` says that the file ends with `head`, and so may the frames.
    """
    start = head.find(b"\xff")
    while start >= 0:
        frame = _parse_frame(head[start : start + 4])
        if frame is not None:
            number, position = 0, start
            following: _Frame | None = frame
            while following is not None and following.is_like(frame) and number < _FRAMES_IN_A_ROW:
                number += 1
                position += following.size_bytes
                following = _parse_frame(head[position : position + 4])
            if number == _FRAMES_IN_A_ROW or (number > 1 and is_at_end and position + 4 > len(head)):
                return start
        start = head.find(b"\xff", start + 1)
    return None


def _parse_frame(head: bytes) -> _Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate_index, rate_index = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    bit_rate = 1000 * _BITRATES[version == 3, layer][bitrate_index - 1]
    sample_rate_hz = _SAMPLE_RATES[version][rate_index]
    padding = head[2] >> 1 & 1
    if layer == 1:
        size_bytes, samples = (12 * bit_rate // sample_rate_hz + padding) * 4, 384
    else:
        samples = 576 if layer == 3 and version != 3 else 1152
        size_bytes = samples // 8 * bit_rate // sample_rate_hz + padding
    return _Frame(version, layer, sample_rate_hz, 1 if head[3] >> 6 == 3 else 2, size_bytes, samples)


@dataclass(frozen=True)
class _LengthTag:
    """A Xing, Info or VBRI tag.

    Attributes
    ----------
    samples : int
        Per channel, less the encoder's delay and padding.
    frames : int
        MPEG frames.
    size_bytes : int, optional
        Of the frames with the one that holds the tag.
    """

    samples: int
    frames: int
    size_bytes: int | None

    def fits(self, available_bytes: int, frame: _Frame) -> bool:
        """Whether so many bytes can hold what the tag claims."""
        least_bytes = max(self.frames * frame.least_bytes, self.size_bytes or 0)
        return least_bytes <= available_bytes + _SLACK_BYTES


def _read_tag(content: bytes, frame: _Frame) -> _LengthTag | None:
    if frame.layer != 3:
        return None
    tag = content[4 + frame.side_information_bytes :]
    if tag[:4] in (b"Xing", b"Info") and len(tag) >= 16:
        flags, count = struct.unpack(">II", tag[4:12])
        if not flags & 1 or not count:
            return None
        size_bytes = int.from_bytes(tag[12:16]) if flags & 2 else None
        lame = 12 + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
        trim = tag[lame + 21 : lame + 24] if tag[lame : lame + 4] in (b"LAME", b"Lavf", b"Lavc") else b""
        silent = (trim[0] << 4 | trim[1] >> 4) + ((trim[1] & 15) << 8 | trim[2]) if len(trim) == 3 else 0
        return _LengthTag(max(count * frame.samples - silent, 0), count, size_bytes)
    if content[36:40] == b"VBRI" and len(content) >= 54:
        size_bytes, count = struct.unpack(">II", content[46:54])
        return _LengthTag(count * frame.samples, count, size_bytes) if count else None
    return None


def _count_frames(file: BinaryIO, offset: int) -> int:
    samples = 0
    file.seek(offset)
    content = b""
    at = 0
    while True:
        if at + 4 > len(content):
            more = file.read(1 << 20)
            if not more:
                return samples
            content, at = content[at:] + more, max(at - len(content), 0)
            continue
        frame = _parse_frame(content[at : at + 4])
        if frame is None:
            following = content.find(b"\xff", at + 1)
            at = following if following >= 0 else len(content) - 3
            continue
        samples += frame.samples
        at += frame.size_bytes
