"""Cutting the best detections out of the original recordings."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from naturelm.errors import NaturelmError
from naturelm.results.layout import CLIPS
from naturelm.tables.interrupt import interruptible
from naturelm.tables.originals import Excerpt, locate_originals, read_excerpts
from naturelm.tables.query import open_tables
from naturelm.tables.row_formats import check_folder, check_out, whole_file
from naturelm.tables.spectrogram import save_picture, spectrogram
from naturelm.tables.spellings import check_labels, label_key
from naturelm.text import file_name, guard, one_line

if TYPE_CHECKING:
    import duckdb

COLUMNS = (
    "file",
    "label",
    "score",
    "query",
    "station",
    "path",
    "start_s",
    "end_s",
    "clip_start_s",
    "clip_end_s",
    "start_local",
    "start_time",
    "recording_id",
    "text",
)
"""Columns of clips.csv; times in seconds are within the recording."""

_TEXT_COLUMNS = ("label", "query", "station", "path", "text")


@dataclass(slots=True)
class ClipsSummary:
    """What `write_clips` did.

    Attributes
    ----------
    written : int
        Clips written.
    missing : list of str
        Paths of recordings whose original was not found.
    failed : list of str
        One sentence for each recording or clip that could not be read or written.
    """

    written: int = 0
    missing: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def best_detections(
    tables: duckdb.DuckDBPyConnection,
    labels: Sequence[str] | None = None,
    min_score: float = 0.0,
    top: int | None = None,
) -> list[dict[str, Any]]:
    """Detections with their `rank` within the label, best scores first.

    `label` is the label's shown name: the most frequent of its spellings.

    Parameters
    ----------
    tables : DuckDB connection
        As `open_tables` gives it.
    labels : sequence of str, optional
        Labels in any spelling; all where not given.
    min_score : float
        Lowest score that counts.
    top : int, optional
        How many of each label; all where not given.
    """
    keys = None if labels is None else [label_key(label) for label in labels]
    cursor = tables.execute(
        """
        SELECT recording_id, path, station, start_s, end_s, start_local, start_time, query, labels.name AS label,
               score, text, row_number() OVER (
                   PARTITION BY labels.name ORDER BY score DESC, start_local, path, start_s, query) AS rank
        FROM detections JOIN labels USING (label)
        WHERE score >= $min_score AND ($keys IS NULL OR list_contains($keys, label_key))
        QUALIFY rank <= $top
        ORDER BY score DESC, labels.name, rank""",
        {"min_score": min_score, "keys": keys, "top": top or 2**62},
    )
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def write_clips(
    directory: Path,
    out: Path,
    labels: Sequence[str] = (),
    min_score: float = 0.0,
    top: int | None = None,
    pad_s: float = 1.0,
    pictures: bool = False,
    archive: Path | None = None,
    overwrite: bool = False,
) -> ClipsSummary:
    """Write FLAC excerpts of detections, at the recordings' own rate and channels, and `clips.csv`.

    Samples of up to 24 bits are kept as they are; wider ones are cut to 24 bits, the most that FLAC holds.
    Each label has a folder; within it, files are numbered by score.

    Parameters
    ----------
    directory : Path
        A results directory.
    out : Path
        Directory to write into; made if missing.
    labels : sequence of str
        Labels to cut out, in any spelling; all where empty.
    min_score, top
        As in `best_detections`.
    pad_s : float
        Seconds of sound to add before and after a detection.
    pictures : bool
        Also write a spectrogram (PNG) beside each clip.
    archive : Path, optional
        Where the originals lie, if not where the runs found them.
    overwrite : bool
        Write into `out` where it holds files, and replace those of the same names.

    Raises
    ------
    NaturelmError
        `directory` holds no results, no detection has one of the labels, or `out` is not empty or cannot be written.
    """
    with interruptible(open_tables(directory)) as tables:
        check_labels(tables, labels)
        check_out(out, overwrite)
        detections = best_detections(tables, labels or None, min_score, top)
    return cut_clips(directory, detections, out, pad_s, pictures, archive)


def cut_clips(
    directory: Path,
    detections: Sequence[dict[str, Any]],
    out: Path,
    pad_s: float,
    pictures: bool,
    archive: Path | None,
) -> ClipsSummary:
    """Write clips of rows that are as `best_detections` gives them; the rest as for `write_clips`."""
    summary = ClipsSummary()
    by_recording: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in detections:
        by_recording[row["recording_id"]].append(row)
    paths = {recording_id: of_one[0]["path"] for recording_id, of_one in by_recording.items()}
    originals = locate_originals(directory, paths, archive)
    summary.missing = sorted({path for key, path in paths.items() if key not in originals})
    folders = _folders(row["label"] for row in detections)

    rows: list[dict[str, Any]] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for folder in folders.values():
            check_folder(out, out / folder)
        for recording_id, original in originals.items():
            wanted = by_recording[recording_id]
            spans = [(row["start_s"] - pad_s, row["end_s"] + pad_s) for row in wanted]
            try:
                for excerpt in read_excerpts(original, spans):
                    row = wanted[excerpt.index]
                    name = _write_clip(out / folders[row["label"]], row, excerpt, pictures)
                    rows.append(row | {"file": f"{folders[row['label']]}/{name}"} | _span(excerpt))
            except (NaturelmError, soundfile.LibsndfileError) as error:
                summary.failed.append(str(error))
        _write_csv(out / CLIPS, rows)
    except OSError as error:
        raise NaturelmError(f"{out}: cannot be written ({error.strerror}); give --out a directory") from None
    summary.written = len(rows)
    return summary


def _folders(labels: Iterable[str]) -> dict[str, str]:
    """A folder name for each label; no two are the same, on disks that ignore case either."""
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for label in sorted(set(labels)):
        base = name = file_name(label)
        number = 2
        while name.casefold() in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name.casefold())
        folders[label] = name
    return folders


def _write_clip(folder: Path, row: dict[str, Any], excerpt: Excerpt, picture: bool) -> str:
    folder.mkdir(exist_ok=True)
    recording = file_name(Path(row["path"]).stem)
    name = f"{row['rank']:04d}_{row['score']:.2f}_{recording}_{row['start_s']:.1f}s"
    with whole_file(folder / f"{name}.flac", "wb") as file:
        soundfile.write(
            file, excerpt.pcm(), excerpt.sample_rate_hz, format="FLAC", subtype=f"PCM_{excerpt.bits}"
        )
    if picture:
        title = f"{one_line(row['label'], 60)} · score {row['score']:.2f} · {one_line(row['path'], 60)}"
        save_picture(
            folder / f"{name}.png",
            spectrogram(excerpt.mono(), excerpt.sample_rate_hz, columns=1000, rows=320),
            title,
            excerpt.start_s,
            (row["start_s"], row["end_s"]),
        )
    return f"{name}.flac"


def _span(excerpt: Excerpt) -> dict[str, float]:
    return {"clip_start_s": round(excerpt.start_s, 6), "clip_end_s": round(excerpt.end_s, 6)}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with whole_file(path) as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for row in sorted(rows, key=lambda row: (-row["score"], row["label"], row["rank"])):
            writer.writerow(
                row
                | {column: guard(row[column]) for column in _TEXT_COLUMNS}
                | {
                    column: row[column].isoformat() if row[column] else ""
                    for column in ("start_local", "start_time")
                }
            )
