"""Files served to SQL by name and for reading only.

DuckDB lets SQL write wherever it may read (even a SELECT: `WITH a AS (COPY … TO …) SELECT …`). So SQL gets no
access to the disk at all, but to a separate file system that knows the tables' files and cannot write.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from naturelm.storage import Location, StorePath, find

PREFIX = "results://"

Content = Location | bytes


class _SharedFile:
    """A file that several threads read at once, each at its own position.

    DuckDB's threads share a handle and call `seek` and then `read`; with one position for all, one thread's
    `seek` comes between another's two calls.
    """

    def __init__(self, content: Content) -> None:
        if isinstance(content, bytes):
            self._file: Any = io.BytesIO(content)
        elif isinstance(content, StorePath):
            self._file = content.open("rb")
        else:
            self._file = content.open("rb", buffering=0)
        self._size = self._file.seek(0, os.SEEK_END)
        self._lock = threading.Lock()
        self._position = threading.local()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}
        self._position.bytes = start[whence] + offset
        return self.tell()

    def tell(self) -> int:
        return int(getattr(self._position, "bytes", 0))

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            self._file.seek(self.tell())
            content = self._file.read(size)
        self._position.bytes = self.tell() + len(content)
        return bytes(content)

    def close(self) -> None:
        self._file.close()


class ServedFiles(AbstractFileSystem):
    """Files by name, in folders: `results://<folder>/<name>`.

    Parameters
    ----------
    folders : mapping
        By folder, by name: where a file is, or its content.
    """

    protocol = "results"
    cachable = False

    def __init__(self, folders: Mapping[str, Mapping[str, Content]]) -> None:
        super().__init__()
        self._files = {
            f"{folder}/{name}": file for folder, files in folders.items() for name, file in files.items()
        }
        self._lists = {
            folder: [f"{PREFIX}{folder}/{name}" for name in files] for folder, files in folders.items()
        }

    def _content(self, name: str) -> Content:
        try:
            return self._files[name.removeprefix(PREFIX)]
        except KeyError:
            raise PermissionError(f"{name} is none of the tables' files") from None

    # --- what DuckDB needs of a file system

    def glob(self, path: str, maxdepth: int | None = None, **options: Any) -> list[str]:
        """The files of a folder, for `<folder>/*`; any other pattern is a file's name."""
        folder = path.removeprefix(PREFIX).removesuffix("/*")
        return self._lists.get(folder, [path] if self.exists(path) else [])

    def open(self, path: str, mode: str = "rb", *arguments: Any, **options: Any) -> _SharedFile:
        if mode != "rb":
            raise PermissionError("results are read-only")
        return _SharedFile(self._content(path))

    def exists(self, path: str, **options: Any) -> bool:
        return path.removeprefix(PREFIX) in self._files

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "size": self._facts(path)[0], "type": "file"}

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self._facts(path)[1], UTC)

    def _facts(self, name: str) -> tuple[int, float]:
        """Size in bytes and time in seconds since 1970, as they are now."""
        path = self._content(name)
        if isinstance(path, bytes):
            return len(path), 0.0
        if not isinstance(path, StorePath):
            status = path.stat()
            return status.st_size, status.st_mtime
        found = find(path)
        if found is None:
            raise FileNotFoundError(f"{path} is gone")
        return found.size_bytes, found.modified_ns / 1e9
