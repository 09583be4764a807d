"""What a recording says of itself, read from its header and its name alone."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import soundfile

from naturelm.errors import NaturelmError
from naturelm.ids import EDGE_BYTES, recording_id
from naturelm.recordings.audiomoth import parse_comment
from naturelm.recordings.discovery import FoundFile, find_audio, path_from_text, path_to_text
from naturelm.recordings.flac import FlacHeader, read_flac_header
from naturelm.recordings.formats import (
    CONVERT,
    READ_EXTENSIONS,
    extension_of,
    is_uniform,
    not_sound,
    unread_by_content,
    unread_by_name,
)
from naturelm.recordings.guano import parse_guano
from naturelm.recordings.mpeg import MpegHeader, may_be_mpeg, read_mpeg_header
from naturelm.recordings.names import NameFacts, parse_name
from naturelm.recordings.riff import WaveHeader, read_wave_header
from naturelm.recordings.sound_files import can_seek, open_sound, read_frames
from naturelm.storage import Location, StoreError, StorePath, is_url

MINIMUM_S = 0.5
"""A recording that holds less sound than this has no windows."""


# A header that claims more is damaged, and planning its windows would fill the memory.
_LONGEST_S = 40 * 86_400
_AU_UNKNOWN = 0xFFFFFFFF
# Formats that libsndfile is given: by its own guesses, from the extension, it would take any bytes for sound.
_LIBSNDFILE_MAGIC = (
    b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b"caff", b".snd", b"dns.", b"NIST",
    b"Creative Voice File",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recording:
    """One file, as its header and its name describe it. Plain values only.

    Attributes
    ----------
    recording_id : str
        See `naturelm.ids.recording_id`.
    path, root : str
        Path below the archive root (forward slashes) and the root, as text (`discovery.path_to_text`).
    station : str
        The recorder's prefix where the name has one, else the first directory below the root, else the
        root's own name.
    start_local : datetime, optional
        The recorder's clock at the first sample, without zone.
    start_time : datetime, optional
        The same in UTC, where the offset is known.
    start_time_source : str, optional
        Where the start comes from: "guano", "audiomoth" or "name"; the first that says one wins, in this order.
        Its offset may come from a later one that says the same local time. What a stations file adds to it
        follows: "name+timezone+drift".
    utc_offset_minutes : int, optional
    latitude, longitude : float, optional
        Degrees north and east: from GUANO, else from the name; a stations file wins over both.
    deployment : str, optional
        From a stations file.
    duration_s : float, optional
        Seconds the header claims; None where it cannot be read.
    sample_rate_hz, channels, frames : int, optional
        `frames` are samples per channel, as claimed.
    format : str, optional
        Container and encoding as `WAV/PCM_16`.
    seekable : bool
        False where a span in the middle is reached by decoding everything before it: MP3, Ogg, and FLAC
        whose end is missing.
    status : {"ok", "corrupt", "too_short", "unsupported"}
        `corrupt`: empty, unreadable (a broken link, no permission, a directory that cannot be listed), or a
        sound file whose header or whole sound is damaged. `too_short`: the header claims less than 0.5 s,
        which includes a header without sound. `unsupported`: not a sound file, or an encoding that is not
        read.
    error : str, optional
        One sentence where the status is not `ok`.
    content : str, optional
        Like the id but whatever the path, so that a renamed file is known again; None where the file could not
        be read.
    size_bytes, modified_ns : int
        As the file system says, the time in nanoseconds since 1970.
    """

    recording_id: str
    path: str
    root: str
    station: str
    start_local: datetime | None = None
    start_time: datetime | None = None
    start_time_source: str | None = None
    utc_offset_minutes: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    deployment: str | None = None
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    format: str | None = None
    frames: int | None = None
    seekable: bool = True
    status: str = "ok"
    error: str | None = None
    content: str | None = None
    size_bytes: int = 0
    modified_ns: int = 0

    @property
    def absolute_path(self) -> str:
        """The file to open."""
        if is_url(self.root):
            return f"{self.root}/{self.path}"
        return os.path.join(path_from_text(self.root), path_from_text(self.path))


@dataclass(frozen=True)
class _Header:
    """What the formats' readers agree on."""

    format: str
    sample_rate_hz: int
    channels: int
    frames: int
    seekable: bool = True
    guano: str | None = None
    comment: str | None = None
    is_without_sound: bool = False


class _BadFileError(Exception):
    """A file without a usable header: `status`, and a sentence."""

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def scan(
    paths: Sequence[Location | str],
    workers: int | None = None,
    known: Mapping[tuple[str, str], Recording] | None = None,
) -> list[Recording]:
    """Find and probe all recordings below `paths`: `find_audio`, then `probe_all`."""
    return probe_all(find_audio(paths).files, workers, known)


def probe_all(
    files: Sequence[FoundFile],
    workers: int | None = None,
    known: Mapping[tuple[str, str], Recording] | None = None,
) -> list[Recording]:
    """Probe files in parallel.

    Parameters
    ----------
    files : sequence of FoundFile
        As `find_audio` lists them.
    workers : int, optional
        Threads; by default four per core, because they wait for the disk.
    known : mapping, optional
        By root and path, what an earlier scan read: files of the same size and time are not opened again.

    Returns
    -------
    list of Recording
        In the order of `files`. Files that share a `recording_id` (the same relative path, size and content
        below two roots) are one recording.

    Raises
    ------
    NaturelmError
        An object store fails.
    """
    with ThreadPoolExecutor(workers or min(32, 4 * (os.cpu_count() or 1))) as pool:
        recordings = pool.map(lambda file: _as_known(file, known or {}) or probe(file), files)
        return list({recording.recording_id: recording for recording in recordings}.values())


def _as_known(found: FoundFile, known: Mapping[tuple[str, str], Recording]) -> Recording | None:
    recording = known.get((path_to_text(str(found.root)), found.relative_path))
    if recording is None or recording.content is None:
        return None
    try:
        same = _size_and_time(found) == (recording.size_bytes, recording.modified_ns)
    except OSError:
        return None
    return recording if same else None


def _size_and_time(found: FoundFile) -> tuple[int, int]:
    if isinstance(found.absolute, StorePath):
        return found.size_bytes or 0, found.modified_ns or 0
    status = found.absolute.stat()
    return status.st_size, status.st_mtime_ns


def probe(found: FoundFile) -> Recording:
    """Read a recording's header, metadata and name; a bad file gives a status, never an error."""
    recording = Recording(
        recording_id="",
        path=found.relative_path,
        root=path_to_text(str(found.root)),
        station=_station(found, None),
    )
    size_bytes, modified_ns, head, tail = 0, 0, b"", b""
    content = None
    header = None
    status, error = "ok", None
    try:
        with _open_regular(found.absolute) as file:
            size_bytes = file.seek(0, io.SEEK_END)
            modified_ns = (
                os.fstat(file.fileno()).st_mtime_ns if found.modified_ns is None else found.modified_ns
            )
            head, tail = _edges(file, size_bytes)
            content = recording_id("", size_bytes, head, tail)
            header = _read_header(found.absolute, file, size_bytes, head, tail)
    except _BadFileError as bad:
        status, error = bad.status, str(bad)
    except soundfile.SoundFileError as bad:
        status, error = _libsndfile_status(bad)
    except OSError as bad:
        # One object may well be denied; other failures will meet the next ones too.
        if isinstance(bad, StoreError) and bad.errno != errno.EACCES:
            raise NaturelmError(
                f"{found.absolute}: cannot be read ({bad.strerror}); run again when the store can be reached"
            ) from None
        link = (
            " (a broken link)" if os.path.islink(str(found.absolute)) and not found.absolute.exists() else ""
        )
        status, error = "corrupt", f"cannot be read: {bad.strerror or bad}{link}"
    recording = replace(
        _described(recording, found, header),
        recording_id=recording_id(found.relative_path, size_bytes, head, tail),
        content=content,
        size_bytes=size_bytes,
        modified_ns=modified_ns,
    )
    if header is not None:
        duration_s = header.frames / header.sample_rate_hz
        recording = replace(recording, duration_s=duration_s)
        if duration_s < MINIMUM_S:
            status, error = "too_short", f"holds {duration_s:g} s of sound, and {MINIMUM_S} s is the least"
        elif duration_s > _LONGEST_S:
            status, error = (
                "corrupt",
                f"the header claims {duration_s:g} s of sound, which no recorder writes",
            )
        elif header.is_without_sound:
            status, error = "corrupt", f"the header claims {duration_s:g} s of sound, and the file ends there"
    return replace(recording, status=status, error=error)


def _open_regular(path: Location) -> BinaryIO:
    if isinstance(path, StorePath):
        return path.open()
    # Opening a named pipe would wait for a writer for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        if path.is_dir():
            os.listdir(path)  # says why it cannot be listed
        raise _BadFileError("unsupported", "is not a regular file")
    return path.open("rb")


def _edges(file: BinaryIO, size_bytes: int) -> tuple[bytes, bytes]:
    file.seek(0)
    head = file.read(EDGE_BYTES)
    file.seek(max(0, size_bytes - EDGE_BYTES))
    return head, file.read(EDGE_BYTES)


def _read_header(path: Location, file: BinaryIO, size_bytes: int, head: bytes, tail: bytes) -> _Header:
    if size_bytes == 0:
        raise _BadFileError("corrupt", "the file is empty")
    if is_uniform(head) and is_uniform(tail):
        raise _BadFileError(
            "corrupt", f"begins and ends with bytes of value {head[0]} alone, as a card that failed leaves it"
        )
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"riff"):
        wave = read_wave_header(file)
        if wave is not None and wave.is_known_codec and wave.frames is not None:
            return _wave_header(wave, size_bytes)
        if wave is not None and not wave.is_known_codec:
            return _wave_header_of_libsndfile(path, file, wave)
    elif head[:4] == b"fLaC":
        flac = read_flac_header(file)
        if flac is not None:
            return _flac_header(path, flac)
    elif may_be_mpeg(path.name, head):
        mpeg = read_mpeg_header(file)
        if mpeg is not None:
            return _mpeg_header(mpeg)
    unread = unread_by_content(head) or unread_by_name(path.name)
    if unread is not None:
        raise _BadFileError("unsupported", unread.sentence)
    what = not_sound(head)
    if what is not None:
        raise _BadFileError("unsupported", f"is {what} and no recording")
    # An ID3 tag may precede FLAC, too.
    if head.startswith((*_LIBSNDFILE_MAGIC, b"ID3")):
        return _libsndfile_header(path, file)
    if extension_of(path.name) in READ_EXTENSIONS:
        raise _BadFileError("corrupt", "does not begin as any recording does: its header is damaged")
    raise _BadFileError("unsupported", "is not sound in a format that is read here")


def _flac_header(path: Location, flac: FlacHeader) -> _Header:
    return _Header(
        format=f"FLAC/PCM_{flac.bits_per_sample}",
        sample_rate_hz=flac.sample_rate_hz,
        channels=flac.channels,
        frames=flac.frames or _count_frames(path),
        seekable=flac.intact,
    )


def _count_frames(path: Location) -> int:
    """Decode a FLAC file whose header does not know its length and whose end is damaged."""
    with open_sound(path) as sound:
        buffer = np.empty((1 << 16, sound.channels), np.float32)
        frames = 0
        while got := read_frames(sound, buffer):
            frames += got
        return frames


def _wave_header(wave: WaveHeader, size_bytes: int) -> _Header:
    return _Header(
        format=f"{wave.container}/{wave.codec}",
        sample_rate_hz=wave.sample_rate_hz,
        channels=wave.channels,
        frames=wave.frames or 0,
        guano=wave.guano,
        comment=wave.comment,
        is_without_sound=wave.data_offset is None or wave.data_offset >= size_bytes,
    )


def _wave_header_of_libsndfile(path: Location, file: BinaryIO, wave: WaveHeader) -> _Header:
    try:
        return _libsndfile_header(path, file)
    except soundfile.SoundFileError:
        unread = unread_by_name(path.name)
        raise _BadFileError(
            "unsupported",
            unread.sentence
            if unread
            else f"has the encoding {wave.codec}, which is not read here; {CONVERT}",
        ) from None


def _mpeg_header(mpeg: MpegHeader) -> _Header:
    return _Header(
        format=f"MP3/MPEG_LAYER_{'I' * mpeg.layer}",
        sample_rate_hz=mpeg.sample_rate_hz,
        channels=mpeg.channels,
        frames=mpeg.frames,
        seekable=False,
    )


def _libsndfile_header(path: Location, file: BinaryIO) -> _Header:
    with open_sound(path) as sound:
        claimed = _claimed_frames(sound, file)
        return _Header(
            format=f"{sound.format}/{sound.subtype}",
            sample_rate_hz=sound.samplerate,
            channels=sound.channels,
            frames=sound.frames if claimed is None else claimed,
            seekable=can_seek(path, sound),
            comment=sound.comment,
        )


def _libsndfile_status(error: soundfile.SoundFileError) -> tuple[str, str]:
    reason = str(getattr(error, "error_string", error)).rstrip(".")
    if "unimplemented" in reason:
        return "unsupported", f"has an encoding that is not read here ({reason}); {CONVERT}"
    return "corrupt", f"cannot be opened: {reason}"


def _claimed_frames(sound: soundfile.SoundFile, file: BinaryIO) -> int | None:
    """Samples per channel as an AIFF or AU header claims; libsndfile tells what the file holds."""
    file.seek(0)
    head = file.read(1 << 16)
    if sound.format == "AIFF":
        common = head.find(b"COMM")
        return int.from_bytes(head[common + 10 : common + 14]) if 0 < common < len(head) - 14 else None
    if sound.format == "AU" and head[:4] == b".snd":
        sound_bytes, encoding = struct.unpack(">II", head[8:16])
        sample_bytes = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding)
        if sample_bytes and sound_bytes != _AU_UNKNOWN:
            return int(sound_bytes // (sample_bytes * sound.channels))
    return None


def _described(recording: Recording, found: FoundFile, header: _Header | None) -> Recording:
    """Fill in what header, metadata and name say."""
    name = parse_name(PurePosixPath(found.relative_path).name)
    comment = parse_comment(header.comment or "") if header else parse_comment("")
    guano = parse_guano(header.guano or "") if header else parse_guano("")
    start_local, source, offset_minutes = None, None, None
    for facts, where in ((guano, "guano"), (comment, "audiomoth"), (name, "name")):
        if facts.start_local is None:
            continue
        if start_local is None:
            start_local, source, offset_minutes = facts.start_local, where, facts.utc_offset_minutes
        elif offset_minutes is None and facts.start_local == start_local:
            offset_minutes = facts.utc_offset_minutes
    start_time = None
    if start_local is not None and offset_minutes is not None:
        start_time = (start_local - timedelta(minutes=offset_minutes)).replace(tzinfo=UTC)
    place = guano if guano.latitude is not None else name
    recording = replace(
        recording,
        station=_station(found, name),
        start_local=start_local,
        start_time=start_time,
        start_time_source=source,
        utc_offset_minutes=offset_minutes,
        latitude=place.latitude,
        longitude=place.longitude,
    )
    if header is None:
        return recording
    return replace(
        recording,
        sample_rate_hz=header.sample_rate_hz,
        channels=header.channels,
        format=header.format,
        frames=header.frames,
        seekable=header.seekable,
    )


def _station(found: FoundFile, name: NameFacts | None) -> str:
    if name is not None and name.station:
        return name.station
    directories = PurePosixPath(found.relative_path).parts[:-1]
    return directories[0] if directories else path_to_text(found.root.name) or "root"
