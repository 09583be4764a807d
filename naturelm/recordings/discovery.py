"""Which files below a path are recordings, in an order that is the same on every machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from naturelm.errors import NaturelmError
from naturelm.storage import Location, StorePath, find, list_files, location

# What libsndfile reads, and what recorders and phones write that nothing here reads (m4a and after): those
# get a row that says so.
# fmt: off
AUDIO_EXTENSIONS = frozenset({
    "wav", "wave", "bwf", "rf64", "bw64", "w64", "flac", "mp3", "ogg", "oga", "opus", "aif", "aiff", "aifc",
    "afc", "caf", "au", "snd", "voc", "sph", "nist",
    "m4a", "aac", "wma", "wac", "ape", "wv", "amr",
})
# fmt: on

# Deleted recordings on a memory card that was emptied under Windows.
_BIN = "$RECYCLE.BIN"


@dataclass(frozen=True)
class FoundFile:
    """A file that calls itself sound.

    Attributes
    ----------
    root : Path or StorePath
        The archive root: the directory that was given, or the directory of a file that was given.
    relative_path : str
        Path below `root` with forward slashes, as text (see `path_to_text`).
    absolute : Path or StorePath
        The file, absolute, links not resolved.
    size_bytes, modified_ns : int, optional
        As an object store's listing tells them.
    """

    root: Location
    relative_path: str
    absolute: Location
    size_bytes: int | None = None
    modified_ns: int | None = None


def path_to_text(path: str) -> str:
    """Write a path as valid Unicode: bytes that are not UTF-8 become `\\udcXX` escapes.

    Tables and JSON hold Unicode only, while a card written by an old recorder may hold any bytes.
    `path_from_text` is the way back.
    """
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def path_from_text(text: str) -> str:
    """Undo `path_to_text`, so that the file can be opened."""
    return re.sub(r"\\udc[89a-f][0-9a-f]", lambda escape: chr(int(escape[0][2:], 16)), text)


def is_audio_name(name: str) -> bool:
    """Say whether a file name ends like a recording's, in upper or lower case, and is not hidden.

    Hidden names (`.…`) are left out: macOS leaves `._20190522.WAV` beside every file it copies to a card,
    and that file holds Finder settings, not sound.
    """
    return not name.startswith(".") and Path(name).suffix[1:].lower() in AUDIO_EXTENSIONS


def find_audio(paths: Sequence[Location | str]) -> list[FoundFile]:
    """Find the recordings below directories, and files that are named outright.

    A directory is searched through and through: links to directories are followed, each directory once, so
    loops end. Hidden directories and files below it, and `$RECYCLE.BIN`, are left out. A file that is named
    outright is taken whatever its name. A directory called `x.wav` is a directory. Broken links and
    directories that cannot be listed are found too: probing gives them a row that says what is wrong.

    Parameters
    ----------
    paths : sequence of Path, StorePath or str
        Directories and files, on disks or in object stores (`s3://bucket/prefix`). A directory is its own
        archive root; a file's root is its directory.

    Returns
    -------
    list of FoundFile
        In the order of `paths`, within each sorted by relative path; a file found twice is listed once.

    Raises
    ------
    NaturelmError
        A path does not exist or cannot be listed.
    """
    found: dict[str, FoundFile] = {}
    for given in paths:
        place = location(given)
        if isinstance(place, StorePath):
            for file in _find_in_store(place):
                found.setdefault(str(file.absolute), file)
            continue
        root = Path(os.path.abspath(place))
        if not os.path.lexists(root):
            raise NaturelmError(f"{path_to_text(str(given))}: does not exist; give a directory or a file")
        if not root.is_dir():
            found.setdefault(str(root), FoundFile(root.parent, path_to_text(root.name), root))
            continue
        try:
            os.scandir(root).close()
        except OSError as error:
            raise NaturelmError(
                f"{path_to_text(str(given))}: cannot be listed ({error.strerror}); check its permissions"
            ) from None
        below = [
            FoundFile(root, path_to_text(path.relative_to(root).as_posix()), path) for path in _walk(root)
        ]
        for file in sorted(below, key=lambda file: file.relative_path):
            found.setdefault(str(file.absolute), file)
    return list(found.values())


def _find_in_store(place: StorePath) -> list[FoundFile]:
    try:
        outright = find(place)
        files = [outright] if outright else list_files(place, recursive=True)
        if not files and not place.exists():
            raise NaturelmError(
                f"{place}: does not exist; give a bucket, the part of keys before a slash, or a key"
            )
    except OSError as error:
        raise NaturelmError(
            f"{place}: cannot be listed ({error.strerror}); check the bucket's name and your credentials"
        ) from None
    return [
        FoundFile(
            place.parent if outright else place,
            file.relative_path,
            file.location,
            file.size_bytes,
            file.modified_ns,
        )
        for file in files
        if outright or _is_audio_key(file.relative_path)
    ]


def _is_audio_key(relative_path: str) -> bool:
    *directories, name = relative_path.split("/")
    return is_audio_name(name) and not any(part.startswith(".") or part == _BIN for part in directories)


def _walk(root: Path) -> Iterator[Path]:
    """Walk real directories first, so that adding a link never renames what lies in the directory itself."""
    seen: set[tuple[int, int]] = set()
    directories, links = [root], list[Path]()
    while directories or links:
        directory = directories.pop() if directories else links.pop(0)
        try:
            status = directory.stat()
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            yield directory
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith(".") or entry.name == _BIN:
                continue
            if _is_directory(entry):
                (links if entry.is_symlink() else directories).append(Path(entry.path))
            elif is_audio_name(entry.name):
                yield Path(entry.path)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
