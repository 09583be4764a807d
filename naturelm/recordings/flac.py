"""The header of FLAC files, and whether their end is there.

Source: RFC 9639 (§8.2 STREAMINFO, §9.1 frame header).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

_LEAST_TAIL_BYTES = 1 << 16
_SEARCH_BYTES = 1 << 20


@dataclass(frozen=True)
class FlacHeader:
    """What STREAMINFO says, and what the last frame shows.

    Attributes
    ----------
    sample_rate_hz, channels, bits_per_sample : int
    frames : int
        Samples per channel as STREAMINFO claims; where it does not know (the recorder lost power), as the
        last frame shows; 0 where that is not found either.
    intact : bool
        The last frame ends where STREAMINFO says. libsndfile searches a file that is cut, or padded with
        zeros, for a very long time when it is asked to seek near its end: such a file is decoded in order.
    """

    sample_rate_hz: int
    channels: int
    bits_per_sample: int
    frames: int
    intact: bool


def read_flac_header(file: BinaryIO) -> FlacHeader | None:
    """Read the header of a FLAC file and look for its last frame.

    Returns
    -------
    FlacHeader or None
        None where the file does not begin as FLAC.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    file_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(42)
    if head[:4] != b"fLaC" or len(head) < 42 or head[4] & 0x7F != 0:
        return None
    largest_block = int.from_bytes(head[10:12])
    largest_frame = int.from_bytes(head[15:18])
    packed = int.from_bytes(head[18:26])
    sample_rate_hz, channels = packed >> 44, (packed >> 41 & 7) + 1
    bits_per_sample, total = (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
    if not sample_rate_hz or not largest_block:
        return None
    largest_frame = largest_frame or largest_block * channels * bits_per_sample // 8 + 64
    tail_bytes = min(max(2 * largest_frame, _LEAST_TAIL_BYTES), _SEARCH_BYTES, file_bytes - 42)
    file.seek(file_bytes - tail_bytes)
    end = _last_frame_end(file.read(tail_bytes), largest_block)
    return FlacHeader(sample_rate_hz, channels, bits_per_sample, total or end, intact=0 < end == total)


def _last_frame_end(tail: bytes, block_frames: int) -> int:
    """Number of the sample after the last frame whose header lies in `tail`; 0 where there is none."""
    start = tail.rfind(b"\xff")
    while start >= 0:
        if start + 1 < len(tail) and tail[start + 1] & 0xFE == 0xF8:
            end = _frame_end(tail[start : start + 16], block_frames)
            if end:
                return end
        start = tail.rfind(b"\xff", 0, start)
    return 0


def _frame_end(header: bytes, block_frames: int) -> int:
    """Number of the sample after the frame that begins here; 0 where the bytes are no frame header."""
    if len(header) < 6:
        return 0
    size_code, rate_code = header[2] >> 4, header[2] & 15
    number, at = _coded_number(header, 4)
    if at == 0 or size_code == 0:
        return 0
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
        return 0
    by_sample = header[1] & 1
    return number + frames if by_sample else number * block_frames + frames


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
