"""Walking over the chunks of RIFF-like files, as their writers meant them and not only as the format demands."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from typing import BinaryIO, Literal

MAXIMUM_CHUNKS = 1000
"""More chunks than any recorder writes: a walk over more is over."""

MAXIMUM_METADATA_BYTES = 1 << 20
"""More of a chunk than this is not read."""

_NAME = re.compile(rb"[A-Za-z_(][A-Za-z0-9_ ).]{3}")

# Writers to pipes put the largest size that they know where the size belongs, or that less their header.
_PIPE_SIZES = (1 << 31, 1 << 32, 1 << 63, 1 << 64)
_PIPE_SLACK = 1 << 16


def is_of_a_pipe(size: int) -> bool:
    """Whether a size in bytes stands for one that the writer did not know."""
    return any(limit - _PIPE_SLACK <= size <= limit for limit in _PIPE_SIZES)


def may_be_name(content: bytes) -> bool:
    """Whether bytes begin as a chunk's name does that nobody knows."""
    return _NAME.match(content) is not None


class ChunkFile:
    """A file of chunks: each a name of four letters, a size of four bytes and its contents.

    Parameters
    ----------
    file : BinaryIO
    known : collection of bytes
        Names that are a chunk's wherever they are found.
    byte_order : {"little", "big"}
        Of sizes.
    """

    def __init__(
        self, file: BinaryIO, known: Collection[bytes], byte_order: Literal["little", "big"]
    ) -> None:
        self._file = file
        self._known = known
        self._byte_order = byte_order
        self.size_bytes = file.seek(0, io.SEEK_END)

    def read(self, position: int, size: int) -> bytes:
        """So many bytes, or as many as there are."""
        if not 0 <= position < self.size_bytes:
            return b""
        self._file.seek(position)
        return self._file.read(size)

    def rest(self, position: int) -> int:
        """How many bytes there are from here on."""
        return max(self.size_bytes - position, 0)

    def is_known(self, position: int) -> bool:
        """Whether a chunk of a known name begins here."""
        return self.read(position, 4) in self._known

    def may_begin(self, position: int) -> bool:
        """Whether a chunk of any name begins here that the file holds."""
        head = self.read(position, 8)
        return (
            len(head) == 8
            and may_be_name(head)
            and position + 8 + int.from_bytes(head[4:], self._byte_order) <= self.size_bytes + 1
        )

    def following(self, candidates: Sequence[int]) -> int | None:
        """Where the next chunk begins, the likeliest place first; None where none does.

        A known name counts for more than one that may be a chunk's: sound and sizes hold letters, too.
        """
        for begins in (self.is_known, self.may_begin):
            for position in candidates:
                if begins(position):
                    return position
        return None

    def end_with_file(self, position: int) -> bool:
        """Whether known chunks follow one another from here to the last byte of the file."""
        for _ in range(MAXIMUM_CHUNKS):
            if self.size_bytes <= position <= self.size_bytes + 1:
                return True
            if not self.is_known(position):
                return False
            size = int.from_bytes(self.read(position + 4, 4), self._byte_order)
            end = position + 8 + size
            position = end + 1 if size & 1 and not self.is_known(end) else end
        return False


def alignments(end: int, size: int) -> tuple[int, int]:
    """Where the next chunk may begin, the likelier place first: a pad byte follows an odd size, in most files."""
    return (end + 1, end) if size & 1 else (end, end + 1)
