"""What fine-tuning learns from: windows of labelled recordings, divided so that no station is on both sides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from naturelm.errors import NaturelmError
from naturelm.results.layout import ANALYSIS
from naturelm.training.annotations import Annotated, read_annotations, station_by_path
from naturelm.training.labelled import Labelled, label_name, read_folder
from naturelm.training.manifest import Span
from naturelm.training.pieces import claimed_s
from naturelm.windows import MIN_NEW_S, plan_windows

HELD_OUT_SHARE = 0.2

# Windows without any label, for each with one.
_NONE_SHARE = 1 / 3
_FEWEST_STATIONS = 3


@dataclass(frozen=True)
class Clip:
    """A window of a recording and all labels in it.

    Attributes
    ----------
    path : Path
        The recording.
    span : (float, float) or None
        The window in seconds; None for all of a recording that has one label throughout.
    names : tuple of str
        Labels; empty where there is nothing to name.
    station : str
        "" where it is not known.
    scientific : bool
        Labels are scientific names.
    """

    path: Path
    span: Span | None
    names: tuple[str, ...]
    station: str = ""
    scientific: bool = False

    def labelled(self) -> Labelled:
        """As questions are made of it."""
        return Labelled(self.path, {"sci" if self.scientific else "common": list(self.names)}, span=self.span)


def read_labels(source: Path, audio: Path | None) -> list[Annotated] | list[Clip]:
    """Labels in whatever form they are: reviews and folders give clips, tables annotated recordings.

    Parameters
    ----------
    source
        A directory of results with reviews, a directory with a folder for each label, a table of labels, or a directory
        of tables.
    audio
        Directory of the recordings; not needed for folders, nor for reviews of recordings that lie where they were.

    Raises
    ------
    NaturelmError
        There is no such file, it contains no labels, or rows are invalid.
    """
    if not source.exists():
        raise NaturelmError(f"{source}: there is no such file or directory; give the labels")
    if audio is not None and not audio.is_dir():
        raise NaturelmError(
            f"{audio}: there is no such directory; give --audio the directory of the recordings"
        )
    if (source / ANALYSIS).is_file():
        return _reviewed(source, audio)
    if source.is_dir() and _has_folders_of_sound(source):
        return [
            Clip(
                known.path,
                None,
                tuple(known.names["common"]),
                station_by_path(known.path, _class_folder(source, known.path)),
            )
            for known in read_folder(source)
        ]
    if audio is None:
        raise NaturelmError(
            "--audio is missing; give the directory of the recordings that the labels are about"
        )
    return read_annotations(source, audio)


def label_windows(
    labels: Sequence[Annotated | Clip], window_s: float, only_labelled: bool, seed: int
) -> list[Clip]:
    """Windows of annotated recordings, end to end, with the labels in each; clips stay as they are.

    Parameters
    ----------
    labels
        From `read_labels`.
    window_s
        The model's window in seconds.
    only_labelled
        Leave out windows without a label; otherwise they are taken for sound without anything to name, up to a third
        as many as there are with labels.
    seed
        Of the choice among them.
    """
    clips: list[Clip] = []
    silent: list[Clip] = []
    for known in labels:
        if isinstance(known, Clip):
            clips.append(known)
            continue
        for window in plan_windows(claimed_s(str(known.path)), window_s, window_s):
            span = (window.start_s, window.end_s)
            inside = [name for start_s, end_s, name in known.spans if _belongs(start_s, end_s, span)]
            names = tuple(sorted({name for name in inside if name}))
            clip = Clip(known.path, span, names, known.station, known.scientific)
            (clips if inside else silent).append(clip)
    if only_labelled:
        return clips
    kept = min(len(silent), round(len(clips) * _NONE_SHARE))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(silent))[:kept])
    return clips + [silent[number] for number in chosen]


def split(clips: Sequence[Clip], seed: int) -> tuple[list[Clip], list[Clip], str]:
    """Clips to train on and held-out ones, about a fifth of each label, and what was kept together.

    All clips of a station are on one side where there are several stations, otherwise all clips of a recording.

    Raises
    ------
    NaturelmError
        There are fewer than two recordings.
    """
    stations = {clip.station for clip in clips}
    by_station = "" not in stations and len(stations) >= _FEWEST_STATIONS
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.station if by_station else str(clip.path)].append(clip)
    kind = "station" if by_station else "recording"
    if len(groups) < 2:
        raise NaturelmError(
            "the labels are about 1 recording, and one more is needed to evaluate on; give more, or --held-out"
        )
    names = sorted(groups)
    order = [names[number] for number in np.random.default_rng(seed).permutation(len(names))]
    total, left = Counter[str](), Counter[str]()
    for group in groups.values():
        total.update(_counts(group))
        left.update(set(_counts(group)))
    held: set[str] = set()
    out = Counter[str]()
    # The rarest labels first, since they have the fewest groups to choose from.
    for label in sorted(total, key=lambda name: (total[name], name)):
        for name in order:
            counts = _counts(groups[name])
            if out[label] >= HELD_OUT_SHARE * total[label]:
                break
            # The last group with a label stays to train on.
            if name in held or label not in counts or any(left[other] < 2 for other in counts):
                continue
            held.add(name)
            out.update(counts)
            left.subtract(set(counts))
    if not held:
        held = {order[0]}
    return (
        [clip for name in names if name not in held for clip in groups[name]],
        [clip for name in names if name in held for clip in groups[name]],
        kind,
    )


def _counts(group: Sequence[Clip]) -> Counter[str]:
    return Counter(name for clip in group for name in (clip.names or ("None",)))


def _belongs(start_s: float, end_s: float, span: Span) -> bool:
    overlap_s = min(end_s, span[1]) - max(start_s, span[0])
    if start_s == end_s:
        return span[0] <= start_s < span[1]
    # Half of a short annotation belongs to a window too.
    return overlap_s >= min(MIN_NEW_S, (end_s - start_s) / 2)


def _has_folders_of_sound(directory: Path) -> bool:
    try:
        return bool(read_folder(directory))
    except NaturelmError:
        return False


def _class_folder(directory: Path, path: Path) -> Path:
    return directory / path.relative_to(directory).parts[0]


def _reviewed(directory: Path, audio: Path | None) -> list[Clip]:
    """One clip for each reviewed window: what reviewers agreed with and wrote is in it, what they rejected is not."""
    from naturelm.tables.originals import locate_originals
    from naturelm.tables.query import open_tables

    with open_tables(directory) as tables:
        rows = tables.sql(
            "SELECT recording_id, start_s, end_s, decision, label, new_label FROM decisions "
            "ORDER BY recording_id, start_s, end_s, label"
        ).fetchall()
        recordings = tables.sql("SELECT recording_id, path, station FROM recordings").fetchall()
    if not rows:
        raise NaturelmError(
            f"{directory}: contains no reviews; review detections with: naturelm inference-app"
        )
    paths = {recording_id: path for recording_id, path, _ in recordings}
    stations = {recording_id: station or "" for recording_id, _, station in recordings}
    reviewed = {row[0] for row in rows}
    files = locate_originals(directory, {name: paths[name] for name in reviewed & paths.keys()}, audio)
    missing = sorted(paths.get(name, name) for name in reviewed - files.keys())
    if missing:
        raise NaturelmError(
            f"{directory}: {len(missing)} of {len(reviewed)} reviewed recordings are not where they were, such as "
            f"{missing[0]}; give --audio the directory that was processed"
        )
    windows: dict[tuple[str, float, float], set[str]] = {}
    for recording_id, start_s, end_s, decision, label, new_label in rows:
        names = windows.setdefault((recording_id, start_s, end_s), set())
        if decision != "disagree":
            names.add(label_name(new_label if decision == "relabel" else label))
    return [
        Clip(files[recording_id], (start_s, end_s), tuple(sorted(names)), stations[recording_id])
        for (recording_id, start_s, end_s), names in windows.items()
    ]
