"""The headers of AIFF and AIFC files: where the sound is, how much of it the header claims, and the texts in it.

As in RIFF, chunks are looked for at both alignments, and a size that reaches beyond the file means "to the end".

Source: Apple, "Audio Interchange File Format AIFF-C", draft of 26 August 1991.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from naturelm.recordings.chunks import (
    MAXIMUM_CHUNKS,
    MAXIMUM_METADATA_BYTES,
    ChunkFile,
    alignments,
    is_of_a_pipe,
)
from naturelm.recordings.metadata import Tags
from naturelm.recordings.prefixed import PrefixedFile
from naturelm.recordings.riff import add_riff_chunk

_KNOWN_CHUNKS = frozenset({
    b"COMM", b"SSND", b"FVER", b"MARK", b"INST", b"MIDI", b"AESD", b"APPL", b"COMT", b"NAME", b"AUTH", b"ANNO",
    b"(c) ", b"ID3 ", b"CHAN", b"SAXL", b"bext", b"iXML", b"JUNK", b"PEAK", b"basc", b"trns", b"cate",
})  # fmt: skip
_TEXTS = (b"ANNO", b"NAME", b"AUTH", b"(c) ")
# Before the samples of an SSND chunk: an offset and a block size.
_SSND_HEAD_BYTES = 8
_LONGEST_COMMON_BYTES = 300
_AIFC_VERSION = 0xA2805140


@dataclass(frozen=True)
class AiffHeader:
    """What an AIFF or AIFC header says.

    Attributes
    ----------
    form : bytes
        `AIFF` or `AIFC`.
    common_chunk : bytes
        Contents of the `COMM` chunk.
    sound_offset, sound_bytes : int
        Where the contents of the `SSND` chunk begin in the file, and how many bytes of them it holds.
    claimed_bytes : int, optional
        How many the header claims, where that is more: the file was cut.
    mend : bool
        Readers that believe the header lose sound.
    tags : Tags
    """

    form: bytes
    common_chunk: bytes
    sound_offset: int
    sound_bytes: int
    claimed_bytes: int | None
    mend: bool
    tags: Tags


def read_aiff_header(file: BinaryIO) -> AiffHeader | None:
    """Read the header of an AIFF or AIFC file.

    Returns
    -------
    AiffHeader or None
        None where the file is something else, or has no `COMM` or no `SSND` chunk.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    chunks = ChunkFile(file, _KNOWN_CHUNKS, "big")
    form = chunks.read(0, 12)
    if form[:4] != b"FORM" or form[8:12] not in (b"AIFF", b"AIFC"):
        return None
    common, claimed_bytes, mend = b"", None, False
    sound: tuple[int, int] | None = None
    tags = Tags()
    position: int | None = 12
    for _ in range(MAXIMUM_CHUNKS):
        head = chunks.read(position, 8) if position is not None else b""
        if position is None or len(head) < 8:
            break
        name, size = struct.unpack(">4sI", head)
        body = position + 8
        if name == b"SSND" and sound is None:
            rest = chunks.rest(body)
            if size > rest or (size <= _SSND_HEAD_BYTES < rest and not chunks.is_known(body + size)):
                if size > rest + body and not is_of_a_pipe(size):
                    claimed_bytes = size
                mend, size = True, rest
            sound = body, size
        elif name == b"COMM":
            common = common or chunks.read(body, min(size, _LONGEST_COMMON_BYTES))
        else:
            _add(tags, name, chunks.read(body, min(size, MAXIMUM_METADATA_BYTES)))
        candidates = alignments(body + size, size)
        position = chunks.following(candidates)
        mend = mend or (sound is None and position != candidates[0])
    if len(common) < 18 or sound is None:
        return None
    return AiffHeader(form[8:12], common, *sound, claimed_bytes, mend, tags)


def _add(tags: Tags, name: bytes, content: bytes) -> None:
    if name in _TEXTS:
        tags.add_comments([content.decode("utf-8", "replace").strip("\0 ")])
    elif name == b"COMT":
        tags.add_comments(_comments(content))
    else:
        add_riff_chunk(tags, name, content)


def _comments(content: bytes) -> list[str]:
    texts: list[str] = []
    position = 2
    for _ in range(int.from_bytes(content[:2])):
        if position + 8 > len(content):
            break
        size = int.from_bytes(content[position + 6 : position + 8])
        text = content[position + 8 : position + 8 + size]
        texts.append(text.decode("utf-8", "replace").strip("\0 "))
        position += 8 + size + (size & 1)
    return texts


def mended_aiff(file: BinaryIO, header: AiffHeader) -> PrefixedFile:
    """See an AIFF file whose header is wrong as one whose header is right.

    Parameters
    ----------
    file : BinaryIO
        The damaged file; closed with the one returned.
    header : AiffHeader
        What `read_aiff_header` found in it.
    """
    common = header.common_chunk
    chunks = struct.pack(">4sI", b"COMM", len(common)) + common + b"\0" * (len(common) & 1)
    if header.form == b"AIFC":
        chunks = struct.pack(">4sII", b"FVER", 4, _AIFC_VERSION) + chunks
    form_bytes = 4 + len(chunks) + 8 + header.sound_bytes
    head = (
        struct.pack(">4sI4s", b"FORM", min(form_bytes, 0xFFFFFFFF), header.form)
        + chunks
        + struct.pack(">4sI", b"SSND", min(header.sound_bytes, 0xFFFFFFFF))
    )
    return PrefixedFile(head, file, header.sound_offset, header.sound_bytes)
