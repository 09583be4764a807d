"""Search by sound: the windows whose vectors are most like a given one, exactly, in one pass over the files."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from naturelm.embeddings.query_sound import (
    QuerySound,
    check_width,
    recording_of_file,
    sound_of_file,
    sound_of_window,
)
from naturelm.embeddings.vectors import StoredVectors, VectorBatch, normalised
from naturelm.errors import NaturelmError
from naturelm.results.rows import later
from naturelm.storage import Location
from naturelm.tables.query import open_tables

FOUND = pa.schema(
    [
        ("rank", pa.int32()),
        ("similarity", pa.float64()),
        ("station", pa.string()),
        ("date", pa.date32()),
        ("recording_id", pa.string()),
        ("path", pa.string()),
        ("window", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("start_local", pa.timestamp("us")),
        ("start_time", pa.timestamp("us", tz="UTC")),
    ]
)
"""Columns of what is found; `similarity` is the cosine of the angle between the vectors, at most 1."""

TOP = 50

# similarity, then what makes the order of equals the same in every run
_Hit = tuple[float, str, int, float, float, str, object]


def search(
    directory: str | Location,
    like: str | Path | None = None,
    *,
    detection: str | None = None,
    top: int = TOP,
    stations: Sequence[str] = (),
    dates: str | None = None,
    exclude_near_s: float = 0.0,
) -> pa.Table:
    """Find the windows of an archive that sound most like a given sound.

    Parameters
    ----------
    directory : str, Path or StorePath
        A results directory with embeddings.
    like : str or Path, optional
        A sound file, ``FILE`` or ``FILE@SECONDS``: it is cut and encoded as the archive was.
    detection : str, optional
        In its place a window of the archive, ``RECORDING@SECONDS``, such as a detection's path and `start_s`.
    top : int
        How many windows.
    stations, dates
        Only these, as `--stations` and `--dates` choose them.
    exclude_near_s : float
        Leave out windows of the query's own recording that are this near to it, in seconds; those that overlap it
        are always left out.

    Returns
    -------
    Table
        `FOUND`, most similar first.

    Raises
    ------
    NaturelmError
        There are no embeddings, the query is silent or missing, or a station or date matches nothing.
    """
    if (like is None) == (detection is None):
        raise NaturelmError("give either --like FILE or --detection RECORDING@SECONDS")
    if top < 1:
        raise NaturelmError(f"top is {top}; give at least 1")
    stored = StoredVectors(directory)
    if detection is not None:
        sound = sound_of_window(stored, detection)
    else:
        sound = sound_of_file(stored, str(like))
        path = Path(str(like)) if Path(str(like)).is_file() else Path(str(like).rpartition("@")[0])
        sound = replace(sound, recording_id=recording_of_file(stored.directory, path))
    return find_like(stored, sound, top, stations, dates, exclude_near_s)


def find_like(
    stored: StoredVectors,
    sound: QuerySound,
    top: int = TOP,
    stations: Sequence[str] = (),
    dates: str | None = None,
    exclude_near_s: float = 0.0,
) -> pa.Table:
    """As `search`, for a sound that is already encoded."""
    check_width(stored, sound.vector, "the query")
    query = normalised(sound.vector.astype(np.float32))

    def best_of(batch: VectorBatch) -> list[_Hit]:
        vectors = batch.vectors.astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        scores = np.divide(
            vectors @ query, lengths, out=np.full(len(lengths), -np.inf, np.float32), where=lengths > 0
        )
        if sound.recording_id is not None:
            near = (
                np.asarray(batch.keys["recording_id"].to_pylist()) == sound.recording_id
                if scores.size
                else np.zeros(0, bool)
            )
            start_s = batch.keys["start_s"].to_numpy()
            end_s = batch.keys["end_s"].to_numpy()
            near &= (start_s < sound.end_s + exclude_near_s) & (end_s > sound.start_s - exclude_near_s)
            scores[near] = -np.inf
        chosen = np.argpartition(-scores, top - 1)[:top] if len(scores) > top else np.arange(len(scores))
        chosen = chosen[np.isfinite(scores[chosen])]
        rows = batch.keys.take(pa.array(chosen)).to_pylist()
        return [
            (
                float(score),
                row["recording_id"],
                -row["window"],
                row["start_s"],
                row["end_s"],
                row["station"],
                row["date"],
            )
            for score, row in zip(scores[chosen], rows, strict=True)
        ]

    best: list[_Hit] = []
    for hits in stored.map(best_of, stations, dates):
        best = heapq.nlargest(top, [*best, *hits], key=lambda hit: hit[:3])
    return _described(stored.directory, best)


def _described(directory: Location, hits: Sequence[_Hit]) -> pa.Table:
    with open_tables(directory) as tables:
        rows = tables.execute(
            "SELECT recording_id, path, start_local, start_time FROM recordings "
            "WHERE list_contains($ids, recording_id)",
            {"ids": sorted({hit[1] for hit in hits})},
        ).fetchall()
    recordings = {key: rest for key, *rest in rows}
    return pa.Table.from_pylist(
        [
            {
                "rank": rank,
                "similarity": round(score, 4),
                "station": station,
                "date": date,
                "recording_id": key,
                "path": recordings[key][0],
                "window": -window,
                "start_s": start_s,
                "end_s": end_s,
                "start_local": later(recordings[key][1], start_s),
                "start_time": later(recordings[key][2], start_s),
            }
            for rank, (score, key, window, start_s, end_s, station, date) in enumerate(hits, 1)
            if key in recordings
        ],
        schema=FOUND,
    )
