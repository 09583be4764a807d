"""The files of a results directory, served to SQL by name and for reading only.

DuckDB lets SQL write wherever it may read (even a SELECT: `WITH a AS (COPY … TO …) SELECT …`). So SQL gets no
access to the disk at all, but to a file system of its own that knows the tables' files and cannot write.
"""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from naturelm.results.layout import day_path
from naturelm.results.published import PublishedFiles
from naturelm.results.schemas import TABLES
from naturelm.results.staging import StagedFiles
from naturelm.storage import Location, StorePath, find

PREFIX = "results://"


class _SharedFile:
    """A file that several threads read at once, each at its own position.

    DuckDB's threads share a handle and call `seek` and then `read`; with one position for all, one thread's
    `seek` comes between another's two calls.
    """

    def __init__(self, path: Location) -> None:
        self._file = path.open("rb") if isinstance(path, StorePath) else path.open("rb", buffering=0)
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
        return content

    def close(self) -> None:
        self._file.close()


class ResultFiles(AbstractFileSystem):
    """What was published and staged at one moment, as `results://published/…` and `results://staged/…`.

    Parameters
    ----------
    directory : Path or StorePath
        A results directory; absolute.
    """

    protocol = "results"
    cachable = False

    def __init__(self, directory: Location) -> None:
        super().__init__()
        # Staged before published: a day that is published in between is found twice, which can be mended, and
        # not missed.
        self._staged = StagedFiles(directory)
        self.segments = self._staged.ids()
        self._lists: dict[str, list[str]] = {}
        self._paths: dict[str, Location] = {}
        for table in TABLES:
            found = PublishedFiles(directory).files(table)
            self._add(f"published/{table}", {day_path(day): found[day] for day in sorted(found)})

    def stage(self, segments: list[str]) -> None:
        """Serve the staged files of these segments."""
        for table in TABLES:
            self._add(
                f"staged/{table}",
                {f"{segment}.parquet": self._staged.path(table, segment) for segment in segments},
            )

    def has(self, folder: str) -> bool:
        """Whether there are files in `published/<table>` or `staged/<table>`."""
        return bool(self._lists.get(folder))

    def _add(self, folder: str, paths: dict[str, Location]) -> None:
        served = {f"{folder}/{name}": path for name, path in paths.items()}
        self._lists[folder] = [PREFIX + name for name in served]
        self._paths.update(served)

    def _path(self, name: str) -> Location:
        try:
            return self._paths[name.removeprefix(PREFIX)]
        except KeyError:
            raise PermissionError(f"{name} is none of the tables' files") from None

    # --- what DuckDB asks of a file system

    def glob(self, path: str, maxdepth: int | None = None, **options: Any) -> list[str]:
        """The files of a folder, for `<folder>/*`; any other pattern is a file's name."""
        folder = path.removeprefix(PREFIX).removesuffix("/*")
        return self._lists.get(folder, [path] if self.exists(path) else [])

    def open(self, path: str, mode: str = "rb", *arguments: Any, **options: Any) -> _SharedFile:
        if mode != "rb":
            raise PermissionError("results are read-only")
        return _SharedFile(self._path(path))

    def exists(self, path: str, **options: Any) -> bool:
        return path.removeprefix(PREFIX) in self._paths

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "size": self._facts(path)[0], "type": "file"}

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self._facts(path)[1], UTC)

    def _facts(self, name: str) -> tuple[int, float]:
        """Size in bytes and time in seconds since 1970, as they are now."""
        path = self._path(name)
        if not isinstance(path, StorePath):
            status = path.stat()
            return status.st_size, status.st_mtime
        found = find(path)
        if found is None:
            raise FileNotFoundError(f"{path} is gone")
        return found.size_bytes, found.modified_ns / 1e9
