"""Which files below a path are recordings, in an order that is the same on every machine."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from naturelm.errors import NaturelmError
from naturelm.recordings.formats import extension_of, is_recording_extension
from naturelm.storage import Location, StorePath, find, list_files, location
from naturelm.text import counted

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
OTHER_FILES = "files other than recordings"
KERNEL_DIRECTORIES = "directories in which the operating system shows itself"
OUTPUTS = "directories of results or clips of this program"

_NAMES_SHOWN = 5

# Endless directories, and devices that deliver sound and noise without end.
_KERNEL = tuple(Path(name) for name in ("/proc", "/sys", "/dev"))

IsOutput = Callable[[Location, Collection[str]], bool]


def _is_never_output(directory: Location, names: Collection[str]) -> bool:
    return False


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
        As in an object store's listing.
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


@dataclass(slots=True)
class OutsideLink:
    """A link to a directory outside of the one that is searched. It is followed, because disks are mounted so.

    Attributes
    ----------
    path, target : str
        The link, and the directory that it leads to, as text.
    recordings : int
        How many recordings were found behind it.
    """

    path: str
    target: str
    recordings: int = 0

    @property
    def sentence(self) -> str:
        """Ready to be printed."""
        return (
            f"{self.path} leads out of the archive to {self.target}: {counted(self.recordings, 'recording')}"
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes
    ----------
    files : list of FoundFile
        Recordings, in the order of the paths given, within each sorted by relative path.
    left_out : list of LeftOut
        What else is there, each kind once.
    links : list of OutsideLink
        Links that were followed out of the directories that were searched.
    """

    files: list[FoundFile]
    left_out: list[LeftOut]
    links: list[OutsideLink] = field(default_factory=list)


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


def find_audio(
    paths: Sequence[Location | str], roots: Collection[str] = (), is_output: IsOutput = _is_never_output
) -> Found:
    """Find the recordings below directories, and files that are named outright.

    A directory is searched through and through: links to directories are followed, each directory once however many
    ways lead to it, so loops end; links that leave it are reported. `/proc`, `/sys` and `/dev` are not entered. Recycle
    bins, directories of operating systems and network disks, and hidden files and directories below it are left out
    and counted, as is every other file. A file or directory that is named outright is taken whatever its
    name. A directory called `x.wav` is a directory. Broken links and directories that cannot be listed are found too:
    probing gives them a row that says what is wrong.

    Parameters
    ----------
    paths : sequence of Path, StorePath or str
        Directories and files, on disks or in object stores (`s3://bucket/prefix`).
    roots : collection of str
        Archive roots that are known, as `FoundFile.root` is written. The root of what is found is the outermost of
        these and of the directories in `paths` that it is below, so that a file's relative path does not depend on how
        it was found; the root of a file below none of them is its directory.
    is_output : callable
        Says of a directory, by its path and the names in it, whether this program wrote it: such directories below
        `paths` are left out and counted.

    Returns
    -------
    Found
        A file that is found twice is listed once.

    Raises
    ------
    NaturelmError
        A path does not exist or cannot be listed.
    """
    tally = _Tally()
    walk = _Walk(tally, is_output)
    known = [location(path_from_text(root)) for root in roots]
    # A file among these is the root of nothing.
    known += [_absolute(place) for place in map(location, paths)]
    # By path given.
    found: list[list[FoundFile]] = []
    walked: list[tuple[int, Path]] = []
    for given in paths:
        place = location(given)
        if isinstance(place, StorePath):
            found.append(_find_in_store(place, tally, is_output))
            continue
        root = Path(os.path.abspath(place))
        if not os.path.lexists(root):
            raise NaturelmError(f"{path_to_text(str(given))}: does not exist; give a directory or a file")
        if not root.is_dir():
            found.append([FoundFile(root.parent, path_to_text(root.name), root)])
            continue
        try:
            os.scandir(root).close()
        except OSError as error:
            raise NaturelmError(
                f"{path_to_text(str(given))}: cannot be listed ({error.strerror}); check its permissions"
            ) from None
        walked.append((len(found), root))
        found.append([])
        walk.directories(root)
    # Real directories of all paths first, so that adding a link never renames what is stored in the directory itself.
    for _, root in walked:
        walk.links(root)
    for index, root in walked:
        below = (
            FoundFile(root, path_to_text(path.relative_to(root).as_posix()), path)
            for path in walk.found.get(root, ())
        )
        found[index] = sorted(below, key=lambda file: file.relative_path)
    files: dict[str, FoundFile] = {}
    for below_one in found:
        for file in _below_root(below_one, known):
            files.setdefault(str(file.absolute), file)
    return Found(list(files.values()), tally.left_out(), walk.outside)


def _absolute(place: Location) -> Location:
    return place if isinstance(place, StorePath) else Path(os.path.abspath(place))


def _below_root(files: Iterable[FoundFile], known: Sequence[Location]) -> Iterator[FoundFile]:
    """Files that were found below one directory, as those of the outermost known root that holds it."""
    place: tuple[Location, str] | None = None
    for file in files:
        place = place or _root_of(file.root, known)
        root, above = place
        path = f"{above}/{file.relative_path}" if above else file.relative_path
        yield replace(file, root=root, relative_path=path)


def _root_of(directory: Location, known: Sequence[Location]) -> tuple[Location, str]:
    """The outermost known root that holds a directory, and the way from it to the directory."""
    found = _outermost(directory, [(root, root) for root in known])
    if found is None and isinstance(directory, Path):
        # The way to it may lead over a link.
        real = [(root, Path(os.path.realpath(root))) for root in known if isinstance(root, Path)]
        found = _outermost(Path(os.path.realpath(directory)), real)
    return found or (directory, "")


def _outermost(place: Location, known: Iterable[tuple[Location, Location]]) -> tuple[Location, str] | None:
    own = _text(place)
    above = [(_text(real), root) for root, real in known if f"{own}/".startswith(f"{_text(real)}/")]
    if not above:
        return None
    text, root = min(above, key=lambda found: len(found[0]))
    return root, own[len(text) :].strip("/")


def _text(place: Location) -> str:
    text = str(place) if isinstance(place, StorePath) else path_to_text(place.as_posix())
    return text.rstrip("/")


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


def _find_in_store(place: StorePath, tally: _Tally, is_output: IsOutput) -> list[FoundFile]:
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
    outputs = (
        set() if outright else _outputs_in_store(place, [file.relative_path for file in files], is_output)
    )
    for directory in sorted(outputs):
        tally.add(OUTPUTS, directory)
    return [
        FoundFile(
            place.parent if outright else place,
            file.relative_path,
            file.location,
            file.size_bytes,
            file.modified_ns,
        )
        for file in files
        if outright or (not _is_below(file.relative_path, outputs) and _is_taken(file.relative_path, tally))
    ]


def _outputs_in_store(place: StorePath, keys: Sequence[str], is_output: IsOutput) -> set[str]:
    names: dict[str, set[str]] = {}
    for key in keys:
        pieces = key.split("/")
        for depth in range(1, len(pieces)):
            names.setdefault("/".join(pieces[:depth]), set()).add(pieces[depth])
    return {directory for directory, inside in names.items() if is_output(place / directory, inside)}


def _is_below(key: str, directories: Collection[str]) -> bool:
    pieces = key.split("/")
    return any("/".join(pieces[:depth]) in directories for depth in range(1, len(pieces)))


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


class _Walk:
    """The recordings below directories, each directory entered once.

    Attributes
    ----------
    found : dict of Path to list of Path
        Recordings by the directory that was given.
    outside : list of OutsideLink
        Links that lead out of these.
    """

    def __init__(self, tally: _Tally, is_output: IsOutput) -> None:
        self.found: dict[Path, list[Path]] = {}
        self.outside: list[OutsideLink] = []
        self._tally = tally
        self._is_output = is_output
        self._seen: set[tuple[int, int]] = set()
        self._kernel_devices = {place.stat().st_dev for place in _KERNEL if place.is_dir()}
        self._links: dict[Path, list[tuple[Path, OutsideLink | None]]] = {}

    def directories(self, root: Path) -> None:
        """Search a directory, without the links in it."""
        if root not in self.found:
            self.found[root], self._links[root] = [], []
            self._search(root, root, None)

    def links(self, root: Path) -> None:
        """Follow the links that `directories` has met, and those behind them."""
        real_root = os.path.realpath(root)
        waiting = self._links[root]
        while waiting:
            link, via = waiting.pop(0)
            real = os.path.realpath(link)
            if via is None and not f"{real}/".startswith(f"{real_root.rstrip('/')}/"):
                via = OutsideLink(path_to_text(str(link)), path_to_text(real))
            before = len(self.found[root])
            self._search(root, link, via)
            number = len(self.found[root]) - before
            if via is not None:
                if number and not via.recordings:
                    self.outside.append(via)
                via.recordings += number

    def _search(self, root: Path, top: Path, via: OutsideLink | None) -> None:
        directories = [top]
        found = self.found[root]
        while directories:
            directory = directories.pop()
            try:
                status = directory.stat()
                with os.scandir(directory) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError:
                found.append(directory)
                continue
            if (status.st_dev, status.st_ino) in self._seen:
                continue
            if status.st_dev in self._kernel_devices and _is_of_kernel(directory, root):
                self._tally.add(KERNEL_DIRECTORIES, os.path.realpath(directory))
                continue
            self._seen.add((status.st_dev, status.st_ino))
            if directory != root and self._is_output(directory, {entry.name for entry in entries}):
                self._tally.add(OUTPUTS, directory.name)
                continue
            for entry in entries:
                if _is_directory(entry):
                    why = _passed_over(entry.name)
                    if why is not None:
                        number = _recordings_below(entry.path) if why == IN_BINS else 1
                        self._tally.add(why, entry.name, number)
                    elif entry.is_symlink():
                        self._links[root].append((Path(entry.path), via))
                    else:
                        directories.append(Path(entry.path))
                elif is_audio_name(entry.name):
                    found.append(Path(entry.path))
                else:
                    self._tally.add_file(entry.name)


def _is_of_kernel(directory: Path, root: Path) -> bool:
    """Whether a directory is, or lies in, one of `_KERNEL`, and the user has not named one of there."""
    real = Path(os.path.realpath(directory))
    inside = [kernel for kernel in _KERNEL if real == kernel or kernel in real.parents]
    return bool(inside) and not Path(os.path.realpath(root)).is_relative_to(inside[0])


def _recordings_below(directory: str) -> int:
    """How many recordings a recycle bin holds; directories that cannot be listed count for nothing."""
    return sum(is_audio_name(name) for _, _, names in os.walk(directory) for name in names)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
