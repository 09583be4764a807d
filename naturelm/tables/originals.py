"""Finding the original recordings that tables speak of, and reading excerpts from them at their own rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import soundfile
from numpy.typing import NDArray

from naturelm.errors import NaturelmError
from naturelm.ids import file_recording_id
from naturelm.recordings.discovery import path_from_text
from naturelm.recordings.sound_files import can_seek, open_sound, read_frames
from naturelm.results.run_records import read_records

_WIDE_SUBTYPES = frozenset({"PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_24", "ALAC_32"})

_BLOCK_FRAMES = 1 << 16


def archive_roots(directory: Path) -> list[Path]:
    """Archive roots that runs into `directory` have read, newest run first, each once."""
    roots = [root for record in read_records(directory) for root in record.get("roots", ())]
    return list(dict.fromkeys(Path(path_from_text(root)) for root in roots))


def locate_originals(
    directory: Path, recordings: Mapping[str, str], archive: Path | None = None
) -> dict[str, Path]:
    """Find the files that recordings were read from.

    A file counts only if its identity (path, size, first and last 64 KiB) is the recording's, so that another
    card with the same file names is never taken for it, and nothing else on the disk can be read this way.

    Parameters
    ----------
    directory : Path
        The results directory; its runs say where the archives lay.
    recordings : mapping of str to str
        Path relative to the archive root, by recording id.
    archive : Path, optional
        The archive root to look in, instead of those of the runs.

    Returns
    -------
    dict of str to Path
        File by recording id; recordings whose file is missing or another one are left out.

    Raises
    ------
    NaturelmError
        `archive` is no directory.
    """
    if archive is not None and not archive.is_dir():
        raise NaturelmError(f"{archive}: no such directory; give --archive the folder that was processed")
    roots = [archive] if archive is not None else archive_roots(directory)
    found: dict[str, Path] = {}
    for recording_id, relative_path in recordings.items():
        if not _stays_inside(relative_path):
            continue
        for root in roots:
            path = root / path_from_text(relative_path)
            try:
                if path.is_file() and file_recording_id(path, relative_path) == recording_id:
                    found[recording_id] = path
                    break
            except OSError:
                continue
    return found


def _stays_inside(relative_path: str) -> bool:
    """Whether a path from a table is one that discovery could have written: relative, without `..`."""
    path = PurePath(relative_path)
    return bool(path.parts) and not path.drive and not path.root and ".." not in path.parts


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Sound cut out of a recording.

    Attributes
    ----------
    index : int
        Which of the wanted spans this is.
    samples : array, float32 [frames, channels]
        Full scale 1; holds samples of up to 24 bits without loss.
    bits : int
        16 or 24: what a lossless copy needs. 32-bit and float recordings are cut to 24, the most that FLAC holds.
    sample_rate_hz : int
        The recording's own rate.
    start_s : float
        Where the excerpt starts in the recording, in seconds.
    """

    index: int
    samples: NDArray[np.float32]
    bits: int
    sample_rate_hz: int
    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.samples) / self.sample_rate_hz

    def mono(self) -> NDArray[np.float32]:
        """Mean of the channels, float32 [frames]."""
        return self.samples.mean(axis=1)

    def pcm(self) -> NDArray[np.integer]:
        """The samples as integers: int16, or int32 with 24 bits in the upper three bytes."""
        # By hand: libsndfile reads integers as n / 2^15 but writes floats as x * (2^15 - 1).
        full_scale = 1 << (self.bits - 1)
        integers = np.rint(self.samples.astype(np.float64) * full_scale).clip(-full_scale, full_scale - 1)
        return integers.astype(np.int16) if self.bits == 16 else integers.astype(np.int32) << 8


def read_excerpts(path: Path, spans: Sequence[tuple[float, float]]) -> Iterator[Excerpt]:
    """Read spans of a recording, each yielded as soon as it is complete.

    A recording in which a seek is exact and quick is read by seeking, any other in one pass. Memory is bounded
    by the spans that overlap. Spans are cut at the recording's ends; one that holds no sound is not yielded.

    Parameters
    ----------
    path : Path
        The recording.
    spans : sequence of (float, float)
        Start and end of each span, in seconds within the recording, in any order.

    Raises
    ------
    NaturelmError
        The file cannot be decoded.
    """
    try:
        with open_sound(path) as sound:
            rate = sound.samplerate
            bits = 24 if sound.subtype in _WIDE_SUBTYPES else 16
            frames = [
                (max(0, round(start_s * rate)), round(end_s * rate), index)
                for index, (start_s, end_s) in enumerate(spans)
            ]
            wanted = sorted(span for span in frames if span[1] > span[0])
            cut = _by_seeking(sound, wanted) if can_seek(path, sound) else _in_order(sound, wanted)
            for start, index, samples in cut:
                if len(samples):
                    whole = np.nan_to_num(samples) if sound.subtype in ("FLOAT", "DOUBLE") else samples
                    yield Excerpt(index, whole, bits, rate, start / rate)
    except soundfile.LibsndfileError as error:
        raise NaturelmError(f"{path}: cannot be decoded ({error.error_string}); it is skipped") from None
    except OSError as error:
        raise NaturelmError(f"{path}: cannot be read ({error.strerror}); it is skipped") from None


def _by_seeking(
    sound: soundfile.SoundFile, wanted: Iterable[tuple[int, int, int]]
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    for start, end, index in wanted:
        if start < sound.frames:
            sound.seek(start)
            # The header's length is a claim: no more is set aside than that many frames.
            yield start, index, _read(sound, min(end, sound.frames) - start)


def _in_order(
    sound: soundfile.SoundFile, wanted: list[tuple[int, int, int]]
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    waiting = list(reversed(wanted))
    unfinished: list[tuple[int, int, int, list[NDArray[np.float32]]]] = []
    position = 0
    while waiting or unfinished:
        block = _read(sound, _BLOCK_FRAMES)
        after = position + len(block)
        while waiting and waiting[-1][0] < after:
            unfinished.append((*waiting.pop(), []))
        for start, end, _, parts in unfinished:
            parts.append(block[max(0, start - position) : end - position])
        ended = len(block) < _BLOCK_FRAMES
        for start, end, index, parts in unfinished:
            if end <= after or ended:
                yield start, index, np.concatenate(parts)
        if ended:
            return
        unfinished = [span for span in unfinished if span[1] > after]
        position = after


def _read(sound: soundfile.SoundFile, frames: int) -> NDArray[np.float32]:
    buffer = np.empty((frames, sound.channels), np.float32)
    return buffer[: read_frames(sound, buffer)]
