"""ID3v2 tags: where they end, and the comments in them.

Source: id3.org, "ID3 tag version 2.3.0" and "2.4.0"; version 2.2 has three-letter names and no flags.
"""

from __future__ import annotations

from typing import BinaryIO

_MAXIMUM_BYTES = 1 << 20
_ENCODINGS = {0: "latin-1", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}
_COMMENTS = (b"COMM", b"COM")
_OWN_TEXTS = (b"TXXX", b"TXX")
_HAS_EXTENDED_HEADER, _IS_UNSYNCHRONISED, _HAS_FOOTER = 0x40, 0x80, 0x10


def skip_id3(file: BinaryIO) -> tuple[int, list[str]]:
    """Where the ID3 tags at a file's beginning end, in bytes, and the texts of the comments in them.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    offset = 0
    texts: list[str] = []
    while True:
        file.seek(offset)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            return offset, texts
        size = _synchsafe(head[6:10])
        texts += parse_id3(head + file.read(min(size, _MAXIMUM_BYTES)))
        offset += 10 + size + (10 if head[5] & _HAS_FOOTER else 0)


def parse_id3(tag: bytes) -> list[str]:
    """Texts of the comments and of the writer's own fields; damage ends the list.

    Parameters
    ----------
    tag : bytes
        A tag with its head of ten bytes.
    """
    if tag[:3] != b"ID3" or len(tag) < 10:
        return []
    version, flags = tag[3], tag[5]
    body = tag[10 : 10 + _synchsafe(tag[6:10])]
    if flags & _IS_UNSYNCHRONISED and version < 4:
        body = body.replace(b"\xff\0", b"\xff")
    position = 0
    if flags & _HAS_EXTENDED_HEADER and version >= 3:
        size = _synchsafe(body[:4]) if version == 4 else int.from_bytes(body[:4]) + 4
        position = size
    name_bytes, head_bytes = (3, 6) if version == 2 else (4, 10)
    texts: list[str] = []
    while position + head_bytes <= len(body):
        name = body[position : position + name_bytes]
        size_field = body[position + name_bytes : position + 2 * name_bytes]
        size = _synchsafe(size_field) if version == 4 else int.from_bytes(size_field)
        content = body[position + head_bytes : position + head_bytes + size]
        if not name.strip(b"\0") or not size:
            break
        if name in _COMMENTS or name in _OWN_TEXTS:
            texts.append(_text(content, 4 if name in _COMMENTS else 1))
        position += head_bytes + size
    return [text for text in texts if text]


def _text(content: bytes, start: int) -> str:
    """The text behind an encoding, perhaps a language, and a description that ends in a zero character."""
    encoding = _ENCODINGS.get(content[0]) if content else None
    if encoding is None:
        return ""
    zero, step = (b"\0\0", 2) if content[0] in (1, 2) else (b"\0", 1)
    rest = content[start:]
    end = next((at for at in range(0, len(rest), step) if rest[at : at + step] == zero), -step)
    value = rest[end + step :]
    # Without a mark at its beginning UTF-16 is what the description's mark says: little-endian, as all write it.
    if encoding == "utf-16" and value[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16-le"
    return value.decode(encoding, "replace").strip("\0 \ufeff")


def _synchsafe(field: bytes) -> int:
    size = 0
    for byte in field:
        size = size << 7 | byte & 127
    return size
