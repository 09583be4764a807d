"""Comments in Ogg files: Vorbis, Opus, Speex and FLAC.

Source: RFC 3533 §6 for pages, RFC 7845 §5.2 for Opus, the FLAC-to-Ogg mapping for FLAC.
"""

from __future__ import annotations

from typing import BinaryIO

from naturelm.recordings.vorbis_comments import MAXIMUM_BYTES, parse_vorbis_comments

_MOST_PAGES = 64
_PAGE_HEAD_BYTES = 27


def read_ogg_comments(file: BinaryIO) -> list[str]:
    """The values of the comments in the second packet of an Ogg file; none where the file is damaged.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    file.seek(0)
    first, second = _packets(file)
    if first.startswith(b"\x01vorbis"):
        return parse_vorbis_comments(second[7:]) if second.startswith(b"\x03vorbis") else []
    if first.startswith(b"OpusHead"):
        return parse_vorbis_comments(second[8:]) if second.startswith(b"OpusTags") else []
    if first.startswith(b"Speex   "):
        return parse_vorbis_comments(second)
    if first.startswith(b"\x7fFLAC"):
        # A metadata block of FLAC: type, length, contents.
        return parse_vorbis_comments(second[4:]) if second[:1] and second[0] & 127 == 4 else []
    return []


def _packets(file: BinaryIO) -> tuple[bytes, bytes]:
    """The first two packets, each as far as it fits `MAXIMUM_BYTES`."""
    packets = [b""]
    for _ in range(_MOST_PAGES):
        head = file.read(_PAGE_HEAD_BYTES)
        if len(head) < _PAGE_HEAD_BYTES or head[:4] != b"OggS":
            break
        for size in file.read(head[26]):
            packets[-1] += file.read(size)
            if size < 255:
                if len(packets) == 2:
                    return packets[0], packets[1]
                packets.append(b"")
        if len(packets[-1]) > MAXIMUM_BYTES:
            break
    return packets[0], packets[1] if len(packets) > 1 else b""
