"""Comments in the form that FLAC, Ogg Vorbis, Opus and Speex share.

Source: Xiph.Org, "Ogg Vorbis I format specification: comment field and header specification".
"""

from __future__ import annotations

MAXIMUM_BYTES = 1 << 20
"""More than this is not read: pictures in comments may be large."""

_MOST_COMMENTS = 1000


def parse_vorbis_comments(block: bytes) -> list[str]:
    """The values of all comments, whatever their names, as far as `block` holds them; damage ends the list.

    Parameters
    ----------
    block : bytes
        From the length of the vendor string on.
    """
    values: list[str] = []
    position = 4 + int.from_bytes(block[:4], "little")
    count = int.from_bytes(block[position : position + 4], "little")
    position += 4
    for _ in range(min(count, _MOST_COMMENTS)):
        size = int.from_bytes(block[position : position + 4], "little")
        comment = block[position + 4 : position + 4 + size]
        if len(comment) < size or position + 4 > len(block):
            break
        name, equals, value = comment.partition(b"=")
        if equals and name.upper() != b"METADATA_BLOCK_PICTURE":
            values.append(value.decode("utf-8", "replace"))
        position += 4 + size
    return values
