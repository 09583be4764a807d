"""A stretch of a file behind bytes that replace its header."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from naturelm.storage import SeekableFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class PrefixedFile(SeekableFile):
    """A stretch of a file with other bytes in front: a header that was lost or wrong, fixed.

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
