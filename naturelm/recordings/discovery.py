"""Which files below a path are recordings, in an order that is the same on every machine."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from naturelm.errors import NaturelmError
from naturelm.recordings.formats import extension_of, is_recording_extension
from naturelm.storage import Location, StorePath, find, list_files, location

# Where systems and network disks keep what was deleted.
_BINS = frozenset({
    "$recycle.bin", "recycler", "recycled", "#recycle", "@recycle", "network trash folder", "lost.dir",
    ".trash", ".trashes",
})  # fmt: skip
_BIN = re.compile(r"\.trash-\d+")
# Where they keep their indexes, thumbnails and snapshots of other directories; what a disk check found.
_SYSTEM = frozenset({
    "system volume information", "lost+found", "@eadir", "@tmp", "#snapshot", "@recently-snapshot", "@sharebin",
    "thumbnails", "__macosx",
})  # fmt: skip
# Beside each file that macOS copies to a card, it leaves `._20190522.WAV` with Finder settings and no sound.
_APPLE_DOUBLE = "._"

IN_BINS = "recordings in recycle bins"
SYSTEM_DIRECTORIES = "directories of operating systems and network disks"
APPLE_DOUBLES = "files in which macOS keeps Finder settings"
HIDDEN = "hidden files and directories"
OTHER_FILES = "files that are no recordings"

_NAMES_SHOWN = 5


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


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a search passed over, of one kind.

    Attributes
    ----------
    what : str
        The kind, in the plural: one of this module's constants.
    count : int
        How many there are.
    names : tuple of str
        The commonest names of directories, or for `OTHER_FILES` extensions, and how often each was met:
        `("#recycle (12)", "RECYCLER (1)")`.
    """

    what: str
    count: int
    names: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Ready to be printed: `12 recordings in recycle bins ($RECYCLE.BIN (12))`."""
        return f"{self.count} {self.what} ({', '.join(self.names)})"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes
    ----------
    files : list of FoundFile
        Recordings, in the order of the paths given, within each sorted by relative path.
    left_out : list of LeftOut
        What else is there, each kind once.
    """

    files: list[FoundFile]
    left_out: list[LeftOut]


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
    """Say whether a file name ends like a recording's, in upper or lower case, and is not hidden."""
    return not name.startswith(".") and is_recording_extension(extension_of(name))


def find_audio(paths: Sequence[Location | str]) -> Found:
    """Find the recordings below directories, and files that are named outright.

    A directory is searched through and through: links to directories are followed, each directory once, so
    loops end. Recycle bins, directories of operating systems and network disks, and hidden files and directories below
    it are left out and counted, as is every file that is no recording. A file or directory that is named outright is
    taken whatever its name. A directory called `x.wav` is a directory. Broken links and directories that cannot be
    listed are found too: probing gives them a row that says what is wrong.

    Parameters
    ----------
    paths : sequence of Path, StorePath or str
        Directories and files, on disks or in object stores (`s3://bucket/prefix`). A directory is its own
        archive root; a file's root is its directory.

    Returns
    -------
    Found
        A file that is found twice is listed once.

    Raises
    ------
    NaturelmError
        A path does not exist or cannot be listed.
    """
    found: dict[str, FoundFile] = {}
    tally = _Tally()
    for given in paths:
        place = location(given)
        if isinstance(place, StorePath):
            for file in _find_in_store(place, tally):
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
            FoundFile(root, path_to_text(path.relative_to(root).as_posix()), path)
            for path in _walk(root, tally)
        ]
        for file in sorted(below, key=lambda file: file.relative_path):
            found.setdefault(str(file.absolute), file)
    return Found(list(found.values()), tally.left_out())


class _Tally:
    """Counts what is left out."""

    def __init__(self) -> None:
        self._names: dict[str, Counter[str]] = {}

    def add(self, what: str, name: str, number: int = 1) -> None:
        if number:
            self._names.setdefault(what, Counter())[name] += number

    def add_file(self, name: str) -> None:
        """Count a file that is not taken."""
        if name.startswith(_APPLE_DOUBLE):
            self.add(APPLE_DOUBLES, _APPLE_DOUBLE + "*")
        elif name.startswith("."):
            self.add(HIDDEN, name)
        else:
            extension = extension_of(name)
            self.add(OTHER_FILES, f".{extension}" if extension else "without an extension")

    def left_out(self) -> list[LeftOut]:
        return [
            LeftOut(what, names.total(), tuple(_most_common(names)))
            for what, names in sorted(self._names.items())
        ]


def _most_common(names: Counter[str]) -> Iterator[str]:
    # Sorted by name where numbers are equal, so that the sentence is the same on every machine.
    ranked = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    for name, number in ranked[:_NAMES_SHOWN]:
        yield f"{path_to_text(name)} ({number})"
    if len(ranked) > _NAMES_SHOWN:
        yield "…"


def _passed_over(directory: str) -> str | None:
    """Why a directory of this name is not searched; None where it is."""
    name = directory.casefold()
    if name in _BINS or _BIN.fullmatch(name):
        return IN_BINS
    if name in _SYSTEM:
        return SYSTEM_DIRECTORIES
    return HIDDEN if name.startswith(".") else None


def _find_in_store(place: StorePath, tally: _Tally) -> list[FoundFile]:
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
        if outright or _is_taken(file.relative_path, tally)
    ]


def _is_taken(key: str, tally: _Tally) -> bool:
    *directories, name = key.split("/")
    for directory in directories:
        why = _passed_over(directory)
        if why is not None:
            # A store has no directories to count: of each it is the files that are left out.
            tally.add(why, directory, is_audio_name(name) if why == IN_BINS else 1)
            return False
    if is_audio_name(name):
        return True
    tally.add_file(name)
    return False


def _walk(root: Path, tally: _Tally) -> Iterator[Path]:
    """Walk real directories first, so that adding a link never renames what is stored in the directory itself."""
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
            if _is_directory(entry):
                why = _passed_over(entry.name)
                if why is None:
                    (links if entry.is_symlink() else directories).append(Path(entry.path))
                else:
                    tally.add(why, entry.name, _recordings_below(entry.path) if why == IN_BINS else 1)
            elif is_audio_name(entry.name):
                yield Path(entry.path)
            else:
                tally.add_file(entry.name)


def _recordings_below(directory: str) -> int:
    """How many recordings a recycle bin holds; directories that cannot be listed count for nothing."""
    return sum(is_audio_name(name) for _, _, names in os.walk(directory) for name in names)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
