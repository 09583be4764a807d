"""The header of FLAC files, the comments in it, and whether the end of the file is there.

Source: RFC 9639 (§8.2 STREAMINFO, §8.4 APPLICATION, §8.6 VORBIS_COMMENT, §9.1 frame header).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

from naturelm.recordings.id3 import skip_id3
from naturelm.recordings.metadata import Tags
from naturelm.recordings.riff import add_riff_chunk
from naturelm.recordings.vorbis_comments import MAXIMUM_BYTES, parse_vorbis_comments

_STREAMINFO_BYTES = 42
_APPLICATION, _VORBIS_COMMENT = 2, 4
_MOST_BLOCKS = 200
_LEAST_TAIL_BYTES = 1 << 16
_SEARCH_BYTES = 1 << 20
_LONGEST_FRAME_HEAD_BYTES = 16
_LONGEST_FRAME_BYTES = 1 << 20


@dataclass(frozen=True)
class FlacHeader:
    """What STREAMINFO says, and what the last frame shows.

    Attributes
    ----------
    sample_rate_hz, channels, bits_per_sample : int
    frames : int
        Samples per channel, as STREAMINFO claims and the last frame confirms; where it does not know (the recorder
        lost power) or the file was cut, as the last frame shows; 0 where no frame is found.
    claimed_frames : int, optional
        Samples per channel that STREAMINFO claims, where that is more than the file holds: the file was cut.
    intact : bool
        The last frame ends where STREAMINFO says. libsndfile searches a file that is cut, or padded with
        zeros, for a very long time when seeking near its end: such a file is decoded in order.
    tags : Tags
        Comments, and the chunks of the WAV file that it was made from.
    """

    sample_rate_hz: int
    channels: int
    bits_per_sample: int
    frames: int
    claimed_frames: int | None
    intact: bool
    tags: Tags

    @property
    def expansion(self) -> float:
        """How many times slower than life the file plays."""
        return self.tags.guano_facts().expansion_of(self.sample_rate_hz, self.claimed_frames or self.frames)


def read_flac_header(file: BinaryIO, *, with_end: bool = True) -> FlacHeader | None:
    """Read the header of a FLAC file and look for its last frame.

    Parameters
    ----------
    file : BinaryIO
    with_end : bool
        Look for the last frame; without it the claim is believed, and `intact` is False.

    Returns
    -------
    FlacHeader or None
        None where the file does not begin as FLAC.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    offset, texts = skip_id3(file)
    file.seek(offset)
    head = file.read(_STREAMINFO_BYTES)
    if head[:4] != b"fLaC" or len(head) < _STREAMINFO_BYTES or head[4] & 0x7F != 0:
        return None
    largest_block = int.from_bytes(head[10:12])
    largest_frame = int.from_bytes(head[15:18])
    packed = int.from_bytes(head[18:26])
    sample_rate_hz, channels = packed >> 44, (packed >> 41 & 7) + 1
    bits_per_sample, total = (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
    if not sample_rate_hz or not largest_block:
        return None
    tags = Tags()
    tags.add_comments(texts)
    first_frame = _read_blocks(file, offset + _STREAMINFO_BYTES, is_last=bool(head[4] & 0x80), tags=tags)
    largest_frame = largest_frame or largest_block * channels * bits_per_sample // 8 + 64
    search_bytes = min(max(2 * largest_frame, _LEAST_TAIL_BYTES), _SEARCH_BYTES)
    end, is_near_end = total, False
    if with_end:
        end, is_near_end = _last_frame_end(file, first_frame, search_bytes, largest_block, total)
    return FlacHeader(
        sample_rate_hz,
        channels,
        bits_per_sample,
        frames=end,
        claimed_frames=total if total > end else None,
        intact=is_near_end and end == total,
        tags=tags,
    )


def _read_blocks(file: BinaryIO, position: int, *, is_last: bool, tags: Tags) -> int:
    """Read the metadata blocks behind STREAMINFO; returns where the frames begin."""
    for _ in range(_MOST_BLOCKS):
        if is_last:
            break
        file.seek(position)
        head = file.read(4)
        if len(head) < 4:
            break
        is_last, kind, size = bool(head[0] & 0x80), head[0] & 0x7F, int.from_bytes(head[1:])
        if kind == _VORBIS_COMMENT:
            tags.add_comments(parse_vorbis_comments(file.read(min(size, MAXIMUM_BYTES))))
        elif kind == _APPLICATION and file.read(4) == b"riff":
            chunk = file.read(min(size - 4, MAXIMUM_BYTES))
            add_riff_chunk(tags, chunk[:4], chunk[8:])
        position += 4 + size
    return position


def _last_frame_end(
    file: BinaryIO, first_byte: int, search_bytes: int, block_frames: int, total: int
) -> tuple[int, bool]:
    """Number of the sample after the last whole frame (0 where there is none), and whether it is near the file's end.

    The usual file ends with the frame that STREAMINFO announces, and one read finds that. Else frames are looked for
    towards the beginning until one ends where another begins: single bytes that look like a frame are met by chance.
    """
    file_bytes = end = file.seek(0, io.SEEK_END)
    # Of each candidate, by the number of its first sample: where it is, and the number of the sample after it.
    later: dict[int, tuple[int, int]] = {}
    while end > first_byte:
        origin = max(first_byte, end - search_bytes)
        file.seek(origin)
        content = file.read(end - origin)
        start = content.rfind(b"\xff") if content.strip(b"\0") else -1
        while start >= 0:
            span = _frame_span(content[start : start + _LONGEST_FRAME_HEAD_BYTES], block_frames)
            if span is not None:
                number, after = span
                if after == total:
                    return total, end == file_bytes
                if after in later:
                    offset, last = later[after]
                    return (last if _is_whole(file, offset) else after), end == file_bytes
                if origin + start == first_byte:
                    return (after if _is_whole(file, first_byte) else 0), end == file_bytes
                later.setdefault(number, (origin + start, after))
            start = content.rfind(b"\xff", 0, start)
        if origin == first_byte:
            break
        # The border between two reads may cut a frame's head.
        end = origin + _LONGEST_FRAME_HEAD_BYTES
    return 0, False


def _is_whole(file: BinaryIO, offset: int) -> bool:
    """Whether a frame that begins here ends with the file, which may be cut within it."""
    file.seek(offset)
    return _crc16(file.read(_LONGEST_FRAME_BYTES)) == 0


def _frame_span(header: bytes, block_frames: int) -> tuple[int, int] | None:
    """Numbers of a frame's first sample and of the one after it; None where the bytes are not a frame header."""
    if len(header) < 6 or header[1] & 0xFE != 0xF8:
        return None
    size_code, rate_code = header[2] >> 4, header[2] & 15
    number, at = _coded_number(header, 4)
    if at == 0 or size_code == 0:
        return None
    if size_code == 1:
        frames = 192
    elif size_code <= 5:
        frames = 144 << size_code
    elif size_code <= 7:
        length = size_code - 5
        frames = int.from_bytes(header[at : at + length]) + 1
        at += length
    else:
        frames = 1 << size_code
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return None
    is_by_sample = header[1] & 1
    first = number if is_by_sample else number * block_frames
    return first, first + frames


def _coded_number(header: bytes, at: int) -> tuple[int, int]:
    """A number in FLAC's extension of UTF-8, and where it ends; (0, 0) where it is malformed."""
    first = header[at]
    if first < 0x80:
        return first, at + 1
    ones = 8 - (first ^ 0xFF).bit_length()
    if not 2 <= ones <= 7 or at + ones > len(header):
        return 0, 0
    number = first & (0x7F >> ones)
    for byte in header[at + 1 : at + ones]:
        number = number << 6 | byte & 0x3F
    return number, at + ones


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def _crc16_table() -> list[int]:
    table = []
    for crc in range(0, 1 << 16, 1 << 8):
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005) & 0xFFFF if crc & 0x8000 else crc << 1
        table.append(crc)
    return table


_CRC16 = _crc16_table()


def _crc16(content: bytes) -> int:
    """The checksum that a frame ends with: 0 over the frame and its checksum."""
    crc = 0
    for byte in content:
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
    return crc
