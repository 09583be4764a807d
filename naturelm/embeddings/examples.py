"""Windows that a probe learns from: reviewed or annotated ones, and others of the archive that stand for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturelm.embeddings.vectors import StoredVectors, VectorBatch
from naturelm.errors import NaturelmError
from naturelm.labels import normal_form
from naturelm.recordings.discovery import path_to_text
from naturelm.tables.originals import archive_roots
from naturelm.tables.query import open_tables
from naturelm.text import suggestion
from naturelm.training.annotations import read_annotations
from naturelm.windows import MIN_NEW_S

# Recording, start and end in seconds, and whether the label is there.
_Span = tuple[str, float, float, bool]


@dataclass(frozen=True)
class Examples:
    """What a probe is trained with.

    Attributes
    ----------
    vectors : array, float32 [windows, width], of length 1
    present : array, bool [windows]
        The label is there.
    reviewed : array, bool [windows]
        Somebody said so; the others are drawn from the archive and taken to be without the label.
    recordings, stations : list of str
        Of each window.
    """

    vectors: NDArray[np.float32]
    present: NDArray[np.bool_]
    reviewed: NDArray[np.bool_]
    recordings: list[str]
    stations: list[str]


def reviewed_spans(stored: StoredVectors, label: str) -> list[_Span]:
    """What the newest decisions in the app say about a label.

    Raises
    ------
    NaturelmError
        No decision is about the label.
    """
    wanted = normal_form(label)
    with open_tables(stored.directory) as tables:
        rows = tables.sql(
            "SELECT recording_id, start_s, end_s, label, decision, new_label FROM decisions"
        ).fetchall()
    spans: list[_Span] = []
    for key, start_s, end_s, found, decision, new_label in rows:
        if new_label is not None and normal_form(new_label) == wanted:
            spans.append((key, start_s, end_s, True))
        elif normal_form(found) == wanted:
            spans.append((key, start_s, end_s, decision == "agree"))
        elif decision == "relabel":
            spans.append((key, start_s, end_s, False))
    if not spans:
        names = {name for row in rows for name in (row[3], row[5]) if name}
        raise NaturelmError(f"--label: no review is about {label!r}; {suggestion(label, names)}")
    return spans


def annotated_spans(stored: StoredVectors, label: str, source: Path, archive: Path | None) -> list[_Span]:
    """What a table of annotations says: spans with the label, and spans with other labels.

    Raises
    ------
    NaturelmError
        The table cannot be read, none of its recordings is in the directory, or none of its labels is meant.
    """
    if archive is None:
        roots = archive_roots(stored.directory) if isinstance(stored.directory, Path) else []
        if not roots:
            raise NaturelmError(f"{source}: it is not known where its recordings are; give --archive")
        archive = roots[0]
    with open_tables(stored.directory) as tables:
        ids = dict(tables.sql("SELECT path, recording_id FROM recordings").fetchall())
    wanted, spans, names = normal_form(label), [], set()
    for annotated in read_annotations(source, archive):
        key = ids.get(_relative(annotated.path, archive))
        for start_s, end_s, name in annotated.spans:
            names.add(name)
            if key is not None:
                spans.append((key, start_s, end_s, normal_form(name) == wanted))
    if wanted not in {normal_form(name) for name in names}:
        raise NaturelmError(f"{source}: no row has the label {label!r}; {suggestion(label, names - {''})}")
    if not any(present for *_, present in spans):
        raise NaturelmError(
            f"{source}: no recording with the label {label!r} is in {stored.directory}; give --archive, the folder "
            "that was processed"
        )
    return spans


def _relative(path: Path, archive: Path) -> str:
    try:
        return path_to_text(path.resolve().relative_to(archive.resolve()).as_posix())
    except ValueError:
        return ""


def gather(stored: StoredVectors, spans: Sequence[_Span], background: int, seed: int) -> Examples:
    """The vectors of windows with these spans, and `background` others drawn evenly from all stations.

    Raises
    ------
    NaturelmError
        None of the spans has a vector.
    """
    by_recording: dict[str, list[_Span]] = {}
    for span in spans:
        by_recording.setdefault(span[0], []).append(span)
    rng = np.random.default_rng(seed)
    stations = {day.station for day in stored.days()} or {""}
    share = -(-background // len(stations))

    where = itemgetter("station", "recording_id", "window")

    def pick(batch: VectorBatch) -> list[tuple[float, str, str, int, bool | None, NDArray[np.float32]]]:
        rows = batch.keys.to_pylist()
        unit = batch.unit_vectors()
        chosen = []
        for number, row in enumerate(rows):
            overlapping = [
                present
                for _, start_s, end_s, present in by_recording.get(row["recording_id"], ())
                if _shares(row["start_s"], row["end_s"], start_s, end_s)
            ]
            if overlapping:
                chosen.append((number, any(overlapping)))
        known = {number for number, _ in chosen}
        others = [number for number in range(len(rows)) if number not in known]
        # Drawn by the window itself, so that the order in which files are read does not matter.
        keys = [_draw(rows[number]["recording_id"], rows[number]["window"], seed) for number in others]
        some = sorted(zip(keys, others, strict=True))[:share]
        taken: list[tuple[float, int, bool | None]] = [
            *((-1.0, number, present) for number, present in chosen),
            *((key, number, None) for key, number in some),
        ]
        return [(key, *where(rows[number]), present, unit[number]) for key, number, present in taken]

    known: list[Any] = []
    drawn: dict[str, list[Any]] = {}
    for found in stored.map(pick):
        for item in found:
            if item[4] is None:
                drawn.setdefault(item[1], []).append(item)
            else:
                known.append(item)
        for station, items in drawn.items():
            drawn[station] = sorted(items, key=lambda item: item[:1] + item[2:4])[:share]
    if not known:
        raise NaturelmError(
            f"{stored.directory}: none of the {len(spans)} reviewed windows has an embedding; embed the recordings "
            "that were reviewed"
        )
    others = [item for items in drawn.values() for item in items]
    others = [others[number] for number in sorted(rng.permutation(len(others))[:background])]
    rows = sorted([*known, *others], key=lambda item: item[2:4])
    return Examples(
        np.stack([row[5] for row in rows]),
        np.array([bool(row[4]) for row in rows]),
        np.array([row[4] is not None for row in rows]),
        [row[2] for row in rows],
        [row[1] for row in rows],
    )


def _shares(start_s: float, end_s: float, from_s: float, to_s: float) -> bool:
    """Whether a window and a span have enough sound in common, or all of the shorter one."""
    shared_s = min(end_s, to_s) - max(start_s, from_s)
    return shared_s > 0 and shared_s >= min(MIN_NEW_S, end_s - start_s, to_s - from_s) - 1e-6


def _draw(recording_id: str, window: int, seed: int) -> float:
    mixed = (int(recording_id[:15], 16) ^ (window * 0x9E3779B97F4A7C15) ^ (seed * 0xBF58476D1CE4E5B9)) & (
        2**64 - 1
    )
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) / 2**64
