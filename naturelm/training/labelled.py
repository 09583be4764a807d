"""From labelled recordings, a folder for each label or a CSV, to the questions of a manifest."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from naturelm.errors import NaturelmError
from naturelm.labels import normal_form
from naturelm.recordings.discovery import is_audio_name
from naturelm.text import one_line
from naturelm.training.manifest import Problems, Span
from naturelm.training.tasks import QUESTIONS

NAMING = "What is the {} name for the focal species in the audio? Answer:"
NAMING_OPTIONS = "Which of these, if any, is the focal species in the audio recording? {}, None."
DETECTION = "What are the {} names for the species in the audio, if any?"
DETECTION_OPTIONS = "Which of these, if any, are present in the audio recording? {}, None."
CAPTION = "Caption the audio, using the common name for any animal species."
LIFE_STAGE = "What is the life stage of the focal species in the audio?"
CALL_TYPE = "What is the call type of the focal species in the audio?"
CALL_OR_SONG = (
    "What type of vocalization is heard from the focal species in the audio? "
    "Answer with either 'call' or 'song'."
)
"""The questions as the released model was trained on them."""

_COLUMNS = {
    "file": ("path", "file", "filename", "file_name", "filepath"),
    "common": ("common_name", "label", "labels", "category", "species"),
    "sci": ("scientific_name", "sci_name", "scientific"),
    "lifestage": ("life_stage", "lifestage"),
    "call-type": ("call_type", "calltype"),
    "caption": ("caption",),
}
_SEPARATOR = ";"


@dataclass
class Labelled:
    """What is known about a recording.

    Attributes
    ----------
    path : Path
        The file.
    names : dict
        Under `common` and `sci` the names of all species present, in order; empty where none is.
    answers : dict
        Under `caption`, `lifestage` and `call-type` what is known.
    span : (float, float), optional
        The part of the file that this is known of, in seconds; all of it by default.
    """

    path: Path
    names: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    span: Span | None = None


def read_folder(directory: Path) -> list[Labelled]:
    """Recordings below directories named after the species in them; `None` contains recordings without any.

    Raises
    ------
    NaturelmError
        The directory does not exist, or no subdirectory contains a recording.
    """
    if not directory.is_dir():
        raise NaturelmError(f"{directory}: there is no such directory; give one with a folder for each label")
    recordings = [
        Labelled(Path(where) / name, {"common": _names(label.name)})
        for label in sorted(path for path in directory.iterdir() if path.is_dir())
        for where, _, names in sorted(os.walk(label))
        for name in sorted(names)
        if is_audio_name(name)
    ]
    if not recordings:
        raise NaturelmError(
            f"{directory}: no folder in it contains a recording; give one with a folder for each label"
        )
    return recordings


def read_label_table(
    table: Path, audio: Path | None = None, where: Mapping[str, Collection[str]] | None = None
) -> list[Labelled]:
    """Recordings of a CSV with a header.

    Columns are `path` (or `file`, `filename`), `common_name` (or `label`, `category`, `species`) and, optionally,
    `scientific_name`, `life_stage`, `call_type` and `caption`; others are ignored. Several names of one recording are
    separated by semicolons, or are in several rows; `None` means that there is nothing to name.

    Parameters
    ----------
    table
        The CSV, UTF-8.
    audio
        Directory of its recordings. Default: `audio` beside the table, or the table's own directory.
    where
        For a column, the values of the rows to take.

    Raises
    ------
    NaturelmError
        The table cannot be read or lacks a column, no row matches, or rows are invalid: all problems are reported.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            header = [(name or "").strip() for name in reader.fieldnames or ()]
    except OSError as error:
        raise NaturelmError(f"{table}: cannot be read ({error.strerror or error}); check its path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise NaturelmError(f"{table}: not a CSV in UTF-8 ({error}); save it as one") from None
    columns = _find_columns(table, header, where or {})
    if audio is None:
        audio = table.parent / "audio" if (table.parent / "audio").is_dir() else table.parent
    problems, recordings = Problems(table), dict[Path, Labelled]()
    for number, raw in enumerate(rows, start=1):
        row = {
            str(name).strip(): (value or "").strip() for name, value in raw.items() if isinstance(value, str)
        }
        if any(row.get(column, "") not in values for column, values in (where or {}).items()):
            continue
        cells = {kind: row.get(name, "") for kind, name in columns.items()}
        if not cells["file"]:
            problems.add(number, f"{columns['file']} is empty")
            continue
        path = audio / cells["file"]
        if not path.is_file():
            problems.add(number, f"there is no file {one_line(str(path), 400)}")
        known = recordings.setdefault(path, Labelled(path))
        for kind in ("common", "sci"):
            if kind in columns and not cells[kind]:
                problems.add(number, f"{columns[kind]} is empty; write None where there is nothing to name")
            elif kind in columns:
                names = known.names.setdefault(kind, [])
                names += [name for name in _names(cells[kind]) if name not in names]
        for kind in ("caption", "lifestage", "call-type"):
            if cells.get(kind):
                known.answers.setdefault(kind, cells[kind])
    problems.stop()
    if not recordings:
        raise NaturelmError(f"{table}: no row matches; check --where")
    return list(recordings.values())


def manifest_rows(
    recordings: Sequence[Labelled],
    kinds: Collection[str] = QUESTIONS,
    options: int = 4,
    none_share: float = 0.25,
    seed: int = 0,
    root: Path | None = None,
) -> list[dict[str, Any]]:
    """Rows of a manifest: every question of some kinds that can be answered about each recording.

    Parameters
    ----------
    recordings
        What is known.
    kinds
        Some of `naturelm.training.tasks.QUESTIONS`.
    options
        How many options a closed question offers; at least the correct ones.
    none_share
        Share of closed questions without the correct options, which are answered by None.
    seed
        Of the options and their order.
    root
        Directory to which paths are relative; the current one by default.

    Raises
    ------
    NaturelmError
        No question of these kinds can be answered.
    """
    rng = np.random.default_rng(seed)
    all_names = {
        naming: sorted({name for known in recordings for name in known.names.get(naming, ())})
        for naming in ("common", "sci")
    }
    rows: list[dict[str, Any]] = []
    for known in recordings:
        path = Path(os.path.relpath(known.path, root)).as_posix()
        for task, prompt, text in _questions(known, all_names, kinds, options, none_share, rng):
            row: dict[str, Any] = {
                "path": path,
                "prompt": prompt,
                "text": text,
                "task": task,
                "id": f"{path}:{task}",
            }
            if known.span:
                start_s, end_s = known.span
                row |= {"start_s": start_s, "end_s": end_s, "id": f"{path}:{start_s:g}-{end_s:g}:{task}"}
            rows.append(row)
    if not rows:
        raise NaturelmError(
            f"no question of the kinds {', '.join(kinds)} can be made; give other --ask, or more columns"
        )
    return rows


def _questions(
    known: Labelled,
    all_names: Mapping[str, Sequence[str]],
    kinds: Collection[str],
    options: int,
    none_share: float,
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, str]]:
    """Task, prompt and answer."""
    for naming, word in (("common", "common"), ("sci", "scientific")):
        if naming not in known.names:
            continue
        names = sorted(known.names[naming], key=normal_form)
        if "naming" in kinds and len(names) == 1:
            yield f"{naming}-naming", NAMING.format(word), names[0]
        if "naming-options" in kinds and len(names) == 1:
            offered = _offered(names, all_names[naming], options, none_share, rng)
            text = names[0] if names[0] in offered else "None"
            yield f"{naming}-naming-random", NAMING_OPTIONS.format(", ".join(offered)), text
        if "detection" in kinds:
            yield f"{naming}-multiple-detection", DETECTION.format(word), ", ".join(names) or "None"
        if "detection-options" in kinds and all_names[naming]:
            offered = _offered(names, all_names[naming], options, none_share, rng)
            text = ", ".join(name for name in names if name in offered) or "None"
            yield f"{naming}-detection-random", DETECTION_OPTIONS.format(", ".join(offered)), text
    call_or_song = known.answers.get("call-type", "").lower() in ("call", "song")
    call_type = CALL_OR_SONG if call_or_song else CALL_TYPE
    for kind, prompt in (("caption", CAPTION), ("lifestage", LIFE_STAGE), ("call-type", call_type)):
        if kind in kinds and kind in known.answers:
            yield kind, prompt, known.answers[kind]


def _offered(
    names: Sequence[str], all_names: Sequence[str], options: int, none_share: float, rng: np.random.Generator
) -> list[str]:
    others = [name for name in all_names if name not in names]
    # Without another name to offer, the correct ones are offered.
    kept = [] if others and rng.random() < none_share else list(names)
    added = rng.permutation(others)[: max(1, options - len(kept))]
    return [str(name) for name in rng.permutation([*kept, *added])]


def label_name(text: str) -> str:
    """A label as models answer it: words separated by spaces, and a capital first unless a capital follows anyway.

    `dog` becomes `Dog` and `crying_baby` `Crying baby`; `Green Treefrog` and `mEagle2` stay as they are.
    """
    name = " ".join(text.replace("_", " ").split())
    return name[:1].upper() + name[1:] if name == name.lower() else name


def _names(cell: str) -> list[str]:
    names = [label_name(name) for name in cell.split(_SEPARATOR)]
    return [name for name in names if name and normal_form(name) != "none"]


def _find_columns(table: Path, header: Iterable[str], where: Mapping[str, Collection[str]]) -> dict[str, str]:
    by_form = {name.lower().replace(" ", "_"): name for name in header}
    found = {
        kind: by_form[alias]
        for kind, aliases in _COLUMNS.items()
        if (alias := next((alias for alias in aliases if alias in by_form), None))
    }
    present = ", ".join(by_form.values()) or "none"
    if "file" not in found or not {"common", "sci", "caption"} & found.keys():
        raise NaturelmError(
            f"{table}: needs a column for the file (filename) and one for the label (label, scientific_name or "
            f"caption); it has {present}"
        )
    for column in where:
        if column not in by_form.values():
            raise NaturelmError(f"{table}: has no column {column!r} for --where; it has {present}")
    return found
