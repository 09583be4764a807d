"""What a recording says of itself, read from its header and its name alone."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO

import soundfile

from naturelm.config.defaults import MIN_SAMPLE_RATE_HZ
from naturelm.errors import NaturelmError
from naturelm.ids import EDGE_BYTES, recording_id
from naturelm.recordings.discovery import FoundFile, find_audio, path_to_text
from naturelm.recordings.headers import BadFileError, Header, read_header
from naturelm.recordings.metadata import Tags, combine
from naturelm.recordings.recording import Recording
from naturelm.recordings.station_names import place
from naturelm.recordings.times import in_utc
from naturelm.storage import Location, StoreError, StorePath
from naturelm.text import composed
from naturelm.windows import MIN_NEW_S

_HIGHEST_RATE_HZ = 10_000_000
# A header that claims more is damaged, and planning its windows would fill the memory.
_LONGEST_S = 40 * 86_400


def scan(
    paths: Sequence[Location | str],
    workers: int | None = None,
    known: Mapping[tuple[str, str], Recording] | None = None,
    min_sample_rate_hz: float = MIN_SAMPLE_RATE_HZ,
) -> list[Recording]:
    """Find and probe all recordings below `paths`: `find_audio`, then `probe_all`."""
    return probe_all(find_audio(paths).files, workers, known, min_sample_rate_hz)


def probe_all(
    files: Sequence[FoundFile],
    workers: int | None = None,
    known: Mapping[tuple[str, str], Recording] | None = None,
    min_sample_rate_hz: float = MIN_SAMPLE_RATE_HZ,
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
    min_sample_rate_hz : float
        As for `probe`.

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
    read = partial(_known_or_probed, known=known or {}, min_sample_rate_hz=min_sample_rate_hz)
    with ThreadPoolExecutor(workers or min(32, 4 * (os.cpu_count() or 1))) as pool:
        recordings = pool.map(read, files)
        return list({recording.recording_id: recording for recording in recordings}.values())


def _known_or_probed(
    found: FoundFile, known: Mapping[tuple[str, str], Recording], min_sample_rate_hz: float
) -> Recording:
    recording = known.get((path_to_text(str(found.root)), found.relative_path))
    if recording is None or recording.content is None or not _is_unchanged(found, recording):
        return probe(found, min_sample_rate_hz)
    # An earlier scan may have had another limit.
    is_refused = recording.status == "unsupported" and recording.sample_rate_hz is not None
    has_low_rate = recording.sample_rate_hz is not None and recording.sample_rate_hz < min_sample_rate_hz
    return probe(found, min_sample_rate_hz) if is_refused or has_low_rate else recording


def _is_unchanged(found: FoundFile, recording: Recording) -> bool:
    try:
        return _size_and_time(found) == (recording.size_bytes, recording.modified_ns)
    except OSError:
        return False


def _size_and_time(found: FoundFile) -> tuple[int, int]:
    if isinstance(found.absolute, StorePath):
        return found.size_bytes or 0, found.modified_ns or 0
    status = found.absolute.stat()
    return status.st_size, status.st_mtime_ns


def probe(found: FoundFile, min_sample_rate_hz: float = MIN_SAMPLE_RATE_HZ) -> Recording:
    """Read a recording's header, metadata and name; a bad file gives a status, never an error.

    Parameters
    ----------
    found : FoundFile
    min_sample_rate_hz : float
        A header that says less is not believed: its recording is `unsupported`.
    """
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
            header = read_header(found.absolute, file, size_bytes, head, tail)
    except BadFileError as bad:
        status, error = bad.status, str(bad)
    except soundfile.SoundFileError as bad:
        status, error = "corrupt", f"cannot be opened: {str(getattr(bad, 'error_string', bad)).rstrip('.')}"
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
        _described(found, header.tags if header else Tags()),
        recording_id=recording_id(found.relative_path, size_bytes, head, tail),
        content=content,
        size_bytes=size_bytes,
        modified_ns=modified_ns,
        status=status,
        error=error,
    )
    return recording if header is None else _measured(recording, header, min_sample_rate_hz)


def _open_regular(path: Location) -> BinaryIO:
    if isinstance(path, StorePath):
        return path.open()
    # Opening a named pipe would wait for a writer for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        if path.is_dir():
            os.listdir(path)  # says why it cannot be listed
        raise BadFileError("unsupported", "is not a regular file")
    return path.open("rb")


def _edges(file: BinaryIO, size_bytes: int) -> tuple[bytes, bytes]:
    file.seek(0)
    head = file.read(EDGE_BYTES)
    file.seek(max(0, size_bytes - EDGE_BYTES))
    return head, file.read(EDGE_BYTES)


def _described(found: FoundFile, tags: Tags) -> Recording:
    """What metadata and name say of a recording."""
    stated = combine(PurePosixPath(found.relative_path).name, tags)
    start_time = None
    if stated.start_local is not None and stated.utc_offset_minutes is not None:
        start_time = in_utc(stated.start_local, stated.utc_offset_minutes)
    return Recording(
        recording_id="",
        path=found.relative_path,
        root=path_to_text(str(found.root)),
        station=composed(
            stated.station or place(found.relative_path, path_to_text(found.root.name) or "root")
        ),
        start_local=stated.start_local,
        start_time=start_time,
        start_time_source=stated.start_source,
        utc_offset_minutes=stated.utc_offset_minutes,
        latitude=stated.latitude,
        longitude=stated.longitude,
        remarks=stated.problems,
    )


def _measured(recording: Recording, header: Header, min_sample_rate_hz: float) -> Recording:
    """A recording with what its header says of its sound."""
    rate_hz = round(header.sample_rate_hz * header.expansion)
    if rate_hz > _HIGHEST_RATE_HZ:
        return replace(
            recording,
            status="unsupported",
            error=f"the header says a sample rate of {rate_hz} Hz, which no recorder has",
        )
    recording = replace(
        recording,
        sample_rate_hz=rate_hz,
        channels=header.channels,
        format=header.format,
        frames=header.frames,
        seekable=header.seekable,
    )
    if rate_hz < min_sample_rate_hz:
        return replace(
            recording,
            status="unsupported",
            error=f"the header says a sample rate of {rate_hz} Hz, less than recordings.min_sample_rate_hz "
            f"({min_sample_rate_hz:g})",
        )
    if header.expansion != 1:
        remark = f"plays {header.expansion:g} times slower than life: rate and times are corrected by its GUANO block"
        recording = replace(recording, remarks=(*recording.remarks, remark))
    duration_s = header.frames / rate_hz
    claimed_s = (header.claimed_frames or 0) / rate_hz
    if duration_s > _LONGEST_S:
        error = f"the header claims {duration_s:g} s of sound, which no recorder writes"
        return replace(recording, status="corrupt", error=error)
    recording = replace(recording, duration_s=duration_s)
    if not header.frames and claimed_s:
        error = f"the header claims {claimed_s:g} s of sound, and the file ends there"
        return replace(recording, status="corrupt", error=error)
    if duration_s < MIN_NEW_S:
        error = f"holds {duration_s:g} s of sound, and {MIN_NEW_S} s is the least"
        return replace(recording, status="too_short", error=error)
    if claimed_s > duration_s:
        error = f"the sound ends at {duration_s:.2f} s, before the {claimed_s:.2f} s that the header claims"
        return replace(recording, status="partial", error=error)
    return recording
