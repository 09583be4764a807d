"""The vector that is searched for: of a sound file, or of a window of the archive."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naturelm.audio.cutting import cut_windows
from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder, pcm_samples
from naturelm.embeddings.vectors import StoredVectors
from naturelm.errors import NaturelmError
from naturelm.models.presets import known_weights
from naturelm.storage import Location
from naturelm.tables.query import open_tables
from naturelm.text import suggestion
from naturelm.windows import MIN_NEW_S, SAMPLE_RATE_HZ, Window

_AT = re.compile(r"(?P<name>.+)@(?P<start>\d+(?:\.\d*)?)", re.DOTALL)


@dataclass(frozen=True)
class QuerySound:
    """What is searched for.

    Attributes
    ----------
    vector : array, float32 [width]
    recording_id : str or None
        Where it is a window of the archive: its recording.
    start_s, end_s : float
        Within the file or recording.
    """

    vector: NDArray[np.float32]
    recording_id: str | None
    start_s: float
    end_s: float


def sound_of_file(stored: StoredVectors, text: str) -> QuerySound:
    """Cut and encode the query exactly as the archive was.

    Parameters
    ----------
    stored : StoredVectors
    text : str
        ``FILE``, or ``FILE@SECONDS`` for the window that starts there.

    Raises
    ------
    NaturelmError
        The file is missing or has no sound there, or the encoder is not on this machine.
    """
    path, start_s = _place(text)
    settings = stored.analysis.settings
    length_s = float(settings["windows"]["length_s"])
    decoder = IsolatedDecoder(timeout_s=60.0)
    try:
        request = DecodeRequest(
            str(path), ((start_s, start_s + length_s),), channel=settings["audio"]["channel"]
        )
        span = next(iter(decoder.decode(request)))
    finally:
        decoder.close()
    if span.status not in ("ok", "partial"):
        raise NaturelmError(f"{path}: cannot be decoded ({span.error}); give another --like")
    if span.decoded_s < MIN_NEW_S:
        raise NaturelmError(
            f"--like {text}: there is less than {MIN_NEW_S:g} s of sound at {start_s:g} s; "
            "give an earlier moment after @"
        )
    samples = pcm_samples(span.pcm)
    if not np.any(samples):
        raise NaturelmError(
            f"--like {text}: the sound at {start_s:g} s is silent; give another moment, as in {path.name}@12.5"
        )
    end_s = start_s + min(span.decoded_s, length_s)
    cut = next(
        iter(
            cut_windows(
                [samples], [Window(0, start_s, end_s)], round(length_s * SAMPLE_RATE_HZ), start_s=start_s
            )
        )
    )
    return QuerySound(_encode(stored, cut.samples[None])[0], None, start_s, end_s)


def sound_of_window(stored: StoredVectors, text: str) -> QuerySound:
    """The stored vector of a window, such as that of a detection.

    Parameters
    ----------
    stored : StoredVectors
    text : str
        ``RECORDING@SECONDS``: a path or id as in the tables, and a moment within the window.

    Raises
    ------
    NaturelmError
        There is no such window, or it has no vector.
    """
    found = _AT.fullmatch(text)
    if found is None:
        raise NaturelmError(
            f"--detection {text}: give RECORDING@SECONDS, with path (or recording_id) and start_s of the row"
        )
    name, start_s = found["name"], float(found["start"])
    with open_tables(stored.directory) as tables:
        ids = tables.execute(
            "SELECT recording_id FROM recordings WHERE path = $name OR recording_id = $name", {"name": name}
        ).fetchall()
        if not ids:
            paths = [row[0] for row in tables.sql("SELECT path FROM recordings").fetchall()]
            raise NaturelmError(f"--detection: there is no recording {name!r}; {suggestion(name, paths)}")
        row = tables.execute(
            "SELECT recording_id, start_s, end_s, vector FROM embeddings WHERE recording_id = $id "
            "AND start_s <= $start AND end_s > $start ORDER BY start_s DESC LIMIT 1",
            {"id": ids[0][0], "start": start_s},
        ).fetchone()
    if row is None:
        raise NaturelmError(
            f"--detection {text}: the window at {start_s:g} s has no vector; give the start_s of a row"
        )
    return QuerySound(np.asarray(row[3], np.float32), row[0], row[1], row[2])


def _place(text: str) -> tuple[Path, float]:
    if Path(text).is_file():
        return Path(text), 0.0
    found = _AT.fullmatch(text)
    path, start_s = (Path(found["name"]), float(found["start"])) if found else (Path(text), 0.0)
    if not path.is_file():
        raise NaturelmError(
            f"--like: {path} is not a file; give a sound file, with @SECONDS for a moment in it"
        )
    return path, start_s


def _encode(stored: StoredVectors, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    from naturelm.engine.pooling import Encoder
    from naturelm.models import load_encoder

    settings, name = stored.analysis.settings["model"], stored.analysis.encoder
    revision = known_weights(name).revision
    if revision != settings["revision"]:
        raise NaturelmError(
            f"{stored.directory}: its embeddings are of {name} at revision {settings['revision'][:12]}, and "
            f"{name} is {str(revision)[:12]} now; install those weights, or embed the archive into another --out"
        )
    dtype = None if settings["dtype"] == "auto" else getattr(torch, settings["dtype"])
    return Encoder(load_encoder(name, dtype=dtype), stored.pooling).embed(waveforms)


def check_width(stored: StoredVectors, vector: NDArray[np.float32], what: str) -> None:
    """Refuse a vector of another length than those of the directory."""
    if vector.shape[-1] != stored.width:
        raise NaturelmError(
            f"{what}: is for vectors of {vector.shape[-1]} numbers, and those of {stored.directory} have "
            f"{stored.width}; give vectors of the same encoder"
        )


def recording_of_file(directory: Location, path: Path) -> str | None:
    """The recording that a file is, where it lies in an archive that was processed into the directory."""
    from naturelm.ids import file_recording_id
    from naturelm.tables.originals import archive_roots

    if not isinstance(directory, Path):
        return None
    for root in archive_roots(directory):
        if path.resolve().is_relative_to(root.resolve()):
            return file_recording_id(path, path.resolve().relative_to(root.resolve()).as_posix())
    return None
