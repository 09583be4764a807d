"""Places on disks and in object stores, read and written alike.

A place on a disk is a `pathlib.Path`. A place in a store is a `StorePath`, which has those of Path's methods that
the job needs. `location` makes either from text, so that the code in between need not know which it has. Stores are
reached through pyarrow's file systems; pyarrow is imported only when a URL is used.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from naturelm.errors import NaturelmError

if TYPE_CHECKING:
    import pyarrow as pa
    from _typeshed import WriteableBuffer

SCHEMES = ("s3", "gs")
TEMPORARY = ".tmp"
"""How a file's name ends while it is being written: no reader of *.parquet takes it for a table."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_CONNECT_S = 10
_REQUEST_S = 60
_ATTEMPTS = 5
# What is fetched at least, as much as identifying a file takes from each of its ends; and at most, when reading
# continues where it stopped.
_LEAST_FETCH_BYTES = 64 << 10
_LARGEST_FETCH_BYTES = 8 << 20
_PIECES_KEPT = 3


class StoreError(OSError):
    """A store that cannot be reached or refuses access, which is no fault of a file."""


@dataclass(frozen=True, slots=True)
class StorePath:
    """A key, or the part of keys before a slash, in a bucket of an object store.

    Attributes
    ----------
    scheme : {"s3", "gs"}
    key : str
        Bucket and key; nothing is percent-encoded.
    """

    scheme: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"

    def __truediv__(self, name: str) -> StorePath:
        return StorePath(self.scheme, f"{self.key}/{name}")

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1]

    @property
    def parent(self) -> StorePath:
        return StorePath(self.scheme, self.key.rpartition("/")[0] or self.key)

    @property
    def filesystem(self) -> Any:
        """The pyarrow file system that `key` is a path in."""
        return _filesystem(self.scheme, self.key.partition("/")[0])

    def exists(self) -> bool:
        return bool(self._info().type)

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        """Whether there are keys below this one."""
        return self.exists() and not self.is_file()

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: stores have no directories."""

    def read_bytes(self) -> bytes:
        with _store_errors(self), self.filesystem.open_input_file(self.key) as file:
            return bytes(file.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with _store_errors(self):
                self.filesystem.delete_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open for reading by ranges: what is read is fetched, and more and more ahead while reading continues."""
        if mode != "rb":
            raise ValueError(f"{self}: opened with mode {mode!r}; stores are written with write_whole")
        return io.BufferedReader(_RangeFile(self))

    def _info(self) -> Any:
        with _store_errors(self):
            return self.filesystem.get_file_info(self.key)


Location = Path | StorePath


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file below a directory: where, its path below the directory (forward slashes), its size and time."""

    location: Location
    relative_path: str
    size_bytes: int
    modified_ns: int


def is_url(text: str | os.PathLike[str] | StorePath) -> bool:
    """Whether this names a place in an object store."""
    return isinstance(text, StorePath) or (isinstance(text, str) and _URL.match(text) is not None)


def location(text: str | os.PathLike[str] | StorePath) -> Location:
    """The place that a path or a URL names.

    Raises
    ------
    NaturelmError
        A URL of another scheme than `SCHEMES`, or without a bucket.
    """
    if isinstance(text, StorePath):
        return text
    url = _URL.match(os.fspath(text))
    if url is None:
        return Path(text)
    scheme, key = url[1].lower(), url[2].strip("/")
    if scheme not in SCHEMES:
        known = " or ".join(f"{name}://" for name in SCHEMES)
        raise NaturelmError(f"{os.fspath(text)}: {scheme}:// is not read here; give a path, {known}")
    if not key:
        raise NaturelmError(f"{os.fspath(text)}: names no bucket; give {scheme}://BUCKET/PREFIX")
    return StorePath(scheme, key)


def write_whole(place: Location, content: bytes | pa.Buffer, scratch: Location | None = None) -> None:
    """Write a file so that it appears whole or not at all, and stays after a power cut.

    On a disk it is written under a temporary name, brought to the disk and renamed. A store shows an object when its
    upload is complete: one PUT, or, from 10 MiB on, the last of several requests.

    Parameters
    ----------
    place : Path or StorePath
        The file.
    content : bytes or buffer
        What it will hold.
    scratch : Path or StorePath, optional
        A directory of the same disk for the temporary file; by default it is beside the file.
    """
    if isinstance(place, StorePath):
        with _store_errors(place), place.filesystem.open_output_stream(place.key) as stream:
            stream.write(content)
        return
    folder = scratch if isinstance(scratch, Path) else place.parent
    temporary = folder / f".{place.name}.{os.getpid()}{TEMPORARY}"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sys.platform == "win32":  # directories cannot be opened there
        return
    directory = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_directory(directory: Location) -> None:
    """Remove a directory and all that is below it, or the objects below a key."""
    if isinstance(directory, Path):
        shutil.rmtree(directory)
        return
    for file in list_files(directory, recursive=True):
        file.location.unlink(missing_ok=True)


def list_files(directory: Location, recursive: bool = False) -> list[StoredFile]:
    """The files in a directory, or below it, sorted by path; none where there is no such directory.

    On a disk, links to directories are not followed and files that go while they are listed are left out.
    """
    if isinstance(directory, StorePath):
        found = list(_list_store(directory, recursive))
    else:
        found = list(_list_disk(directory, "", recursive))
    return sorted(found, key=lambda file: file.relative_path)


def _list_disk(directory: Path, above: str, recursive: bool) -> Iterator[StoredFile]:
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if recursive:
                yield from _list_disk(Path(entry.path), f"{above}{entry.name}/", recursive)
            continue
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue
        yield StoredFile(Path(entry.path), above + entry.name, status.st_size, status.st_mtime_ns)


def _list_store(directory: StorePath, recursive: bool) -> Iterator[StoredFile]:
    from pyarrow.fs import FileSelector

    with _store_errors(directory):
        selector = FileSelector(directory.key, recursive=recursive, allow_not_found=True)
        found = directory.filesystem.get_file_info(selector)
    for info in found:
        if info.is_file:
            path = StorePath(directory.scheme, info.path)
            yield StoredFile(path, info.path.removeprefix(directory.key + "/"), info.size, info.mtime_ns or 0)


class SeekableFile(io.RawIOBase):
    """A file to read whose size is known; what it holds, `readinto` of a subclass says.

    Parameters
    ----------
    size_bytes : int
        Its size.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


class _RangeFile(SeekableFile):
    """An object as a file: reads fetch ranges, of which the last few are kept."""

    def __init__(self, path: StorePath) -> None:
        self._path = path
        with _store_errors(path):
            self._object = path.filesystem.open_input_file(path.key)
            super().__init__(self._object.size())
        # Where each piece begins, and its bytes; the last was used last.
        self._pieces: list[tuple[int, bytes]] = []
        self._fetch_bytes = _LEAST_FETCH_BYTES
        self._fetched_to = 0
        # C libraries that read through this file cannot pass an exception on.
        self.failure: StoreError | None = None

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if not view or self._position >= self._size:
            return 0
        start, piece = self._piece(len(view))
        content = memoryview(piece)[self._position - start :][: len(view)]
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._object.close()
        super().close()

    def _piece(self, wanted_bytes: int) -> tuple[int, bytes]:
        """The piece that holds the byte at the position."""
        for number, (start, content) in enumerate(self._pieces):
            if start <= self._position < start + len(content):
                self._pieces.append(self._pieces.pop(number))
                return start, content
        goes_on = self._position == self._fetched_to
        self._fetch_bytes = (
            min(2 * self._fetch_bytes, _LARGEST_FETCH_BYTES) if goes_on else _LEAST_FETCH_BYTES
        )
        size_bytes = min(max(wanted_bytes, self._fetch_bytes), self._size - self._position)
        try:
            with _store_errors(self._path):
                content = bytes(self._object.read_at(size_bytes, self._position))
                if not content:
                    raise OSError(errno.EIO, "the store sends less than the object holds")
        except StoreError as error:
            self.failure = error
            raise
        self._fetched_to = self._position + len(content)
        self._pieces = [*self._pieces[1 - _PIECES_KEPT :], (self._position, content)]
        return self._pieces[-1]


@functools.lru_cache(maxsize=64)
def _filesystem(scheme: str, bucket: str) -> Any:
    """The store that holds a bucket; credentials, region and endpoint are found as the vendors' own tools do."""
    from pyarrow import fs

    if scheme == "gs":
        # Where Google's own clients look for a server on this machine, which asks for no credentials.
        server = os.environ.get("STORAGE_EMULATOR_HOST", "")
        protocol, _, host = server.rpartition("://")
        return fs.GcsFileSystem(
            anonymous=bool(server),
            endpoint_override=host or None,
            scheme=protocol or "https",
            # Else requests are repeated for a quarter of an hour.
            retry_time_limit=timedelta(seconds=_REQUEST_S),
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        with _store_errors(StorePath(scheme, bucket)):
            region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        # Small objects are one PUT, and not the three requests of a multipart upload.
        allow_delayed_open=True,
    )


def find(place: StorePath) -> StoredFile | None:
    """The object at a key; None where there is none."""
    info = place._info()
    return StoredFile(place, place.name, info.size, info.mtime_ns or 0) if info.is_file else None


@contextmanager
def _store_errors(place: StorePath) -> Iterator[None]:
    """Give errors of a store the shape of errors of a disk: number, reason, name.

    An object that is not there is a FileNotFoundError, anything else a StoreError; refused access has EACCES.
    """
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place)) from None
    except OSError as error:
        reason = error.strerror or _reason(error)
        number = errno.EACCES if "access denied" in reason else error.errno or errno.EIO
        raise StoreError(number, reason, str(place)) from None


def _reason(error: OSError) -> str:
    """The reason that a store gives, without the requests that led there."""
    text = " ".join(str(error).split())
    found = re.search(r"AWS Error (\w+)(?: \((HTTP status \d+)\))? during \w+ operation[^:]*: ?(.*)", text)
    if found is None:
        return text
    name = found[2] or found[1].lower().replace("_", " ")
    words = re.sub(r" ?\(Request ID: \w*\)|No response body", "", found[3]).rstrip(". ")
    return f"{name}: {words}" if words else name
