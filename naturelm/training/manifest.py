"""Manifests: one row for each question about a recording, with its answer.

JSONL, JSON (`{"annotation": [...]}`, as published, or a list) or Parquet, with the columns of `COLUMNS`, or those of
LTU's data, `instruction`, `input`, `audio_id` and `output`. Paths are relative to the manifest's own directory, on a
disk or in an object store.
"""

from __future__ import annotations

import io
import json
import math
import os
import posixpath
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naturelm.errors import NaturelmError
from naturelm.storage import Location, StoreError, StorePath, is_url, list_files, location
from naturelm.text import one_line
from naturelm.training.prompt_lists import PromptLists

COLUMNS = ("path", "files", "text", "prompt", "task", "id", "start_s", "end_s", "Q", "expand_wav")
"""`path`, or `files` with one path; the answer; the question; the kind of question; a unique id; part in seconds; as in
SALMONN's data the row's own text within a prompt that is drawn from its task's list, and recordings that follow."""

_INSTRUCTION = frozenset({"instruction", "input", "audio_id", "output", "dataset"})

Span = tuple[float, float]
"""Start and end of a part of a recording, in seconds."""

FORMATS = (".jsonl", ".json", ".parquet")

_SHOWN = 20
_NEEDED = "path, text, prompt and task"


@dataclass(frozen=True, slots=True)
class Example:
    """One question about a recording, and its answer.

    Attributes
    ----------
    path : str
        The recording.
    prompt, text : str
        Question and answer.
    task : str
        Kind of question; determines which augmentations are allowed (see `naturelm.training.tasks`).
    id : str
        Unique within its manifest.
    span : (float, float), optional
        The part of the recording that the question is about, in seconds; all of it by default.
    own_text : str
        What a prompt that is drawn from a list takes in; `prompt` is then empty.
    following : tuple of str
        Recordings that follow after a short silence.
    prefix : str
        What is put before the prompt in a share of the draws.
    """

    path: str
    prompt: str
    text: str
    task: str
    id: str
    span: Span | None = None
    own_text: str = ""
    following: tuple[str, ...] = ()
    prefix: str = ""


class Problems:
    """The problems of a table, reported all at once.

    Parameters
    ----------
    where
        The table's name, for the message.
    """

    def __init__(self, where: object) -> None:
        self._where, self._count = where, 0
        self._shown: list[str] = []

    def add(self, row: int, sentence: str) -> None:
        """Record a problem of a row, counted from 1."""
        self._count += 1
        if len(self._shown) < _SHOWN:
            self._shown.append(f"row {row}: {sentence}")

    def stop(self) -> None:
        """Raise NaturelmError if there was any problem."""
        if not self._count:
            return
        more = [f"and {self._count - _SHOWN} more"] if self._count > _SHOWN else []
        count = "1 problem" if self._count == 1 else f"{self._count} problems"
        raise NaturelmError("\n  ".join([f"{self._where}: {count}; fix the rows:", *self._shown, *more]))


class _Existing:
    """Which recordings exist. In an object store a directory is listed once, instead of one request for each."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}
        self._listed: dict[StorePath, set[str]] = {}

    def __contains__(self, recording: str) -> bool:
        if recording not in self._known:
            self._known[recording] = self._look(location(recording))
        return self._known[recording]

    def _look(self, place: Location) -> bool:
        if isinstance(place, Path):
            return place.is_file()
        if place.parent not in self._listed:
            self._listed[place.parent] = {file.relative_path for file in list_files(place.parent)}
        return place.name in self._listed[place.parent]


def read_manifest(path: Location, prompt_lists: PromptLists | None = None) -> list[Example]:
    """Read a manifest and check every row of it.

    A row without an `id` is named after its manifest and number. One without a prompt is of a task in `prompt_lists`.

    Raises
    ------
    NaturelmError
        It cannot be read, has no rows, a store does not answer, or rows are invalid: a file is missing, a text,
        prompt or task is empty, a column is unknown, an id appears twice. All problems are counted, and the first
        20 are described.
    """
    problems = Problems(path)
    examples: list[Example] = []
    ids: dict[str, int] = {}
    existing = _Existing()
    for number, row in enumerate(_read_rows(path, problems), start=1):
        if row is None:
            continue
        row = _as_columns(row)
        for column in row.keys() - COLUMNS:
            problems.add(number, f"unknown column {one_line(column)!r}; known are {', '.join(COLUMNS)}")
        texts = {name: row.get(name) for name in ("text", "prompt", "task")}
        if texts["prompt"] is None and str(texts["task"]) in (prompt_lists or {}):
            texts.pop("prompt")
        elif texts["prompt"] is None and prompt_lists is not None and texts["task"]:
            problems.add(
                number, f"has no prompt, and the lists have none for task {one_line(texts['task'])!r}"
            )
            continue
        for name, value in texts.items():
            if not isinstance(value, str) or not value.strip():
                problems.add(number, f"{name} is {_empty(value)}")
        recording = _recording(row, number, problems)
        following = _following(row, number, problems)
        span = _span(row, number, problems)
        own_id = row.get("id")
        own_id = f"{path.name.removesuffix(path.suffix)}-{number}" if own_id is None else str(own_id)
        if first := ids.get(own_id):
            problems.add(number, f"id {one_line(own_id)!r} is already used in row {first}")
        ids.setdefault(own_id, number)
        if recording is None:
            continue
        recording = _resolved(path, recording)
        following = tuple(_resolved(path, name) for name in following)
        try:
            for name in (recording, *following):
                if name not in existing:
                    problems.add(number, f"there is no file {one_line(name, 400)}")
        except NaturelmError as error:
            problems.add(number, one_line(str(error), 400))
        except StoreError as error:
            raise NaturelmError(
                f"{path}, row {number}: {one_line(recording, 400)} cannot be found ({error.strerror}); "
                "check the URL and your credentials"
            ) from None
        # Few prompts, tasks and recordings are repeated in many rows.
        prompt, text, task = (sys.intern(str(texts.get(name, ""))) for name in ("prompt", "text", "task"))
        own_text = str(row.get("Q") or "")
        examples.append(Example(sys.intern(recording), prompt, text, task, own_id, span, own_text, following))
    problems.stop()
    if not examples:
        raise NaturelmError(f"{path}: contains no rows; give one for each question, with {_NEEDED}")
    return examples


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as JSONL, JSON or Parquet, by the name's ending, whole or not at all.

    Raises
    ------
    NaturelmError
        The ending is unknown, or the file cannot be written.
    """
    _check_format(path)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), temporary)
        elif path.suffix == ".json":
            text = json.dumps({"annotation": [dict(row) for row in rows]}, ensure_ascii=False, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
        else:
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
        os.replace(temporary, path)
    except OSError as error:
        raise NaturelmError(f"{path}: cannot be written ({error.strerror or error}); check --out") from None


def relative_rows(examples: Iterable[Example], root: Path) -> list[dict[str, Any]]:
    """Rows of a manifest that will be stored in `root`."""
    return [
        {
            "path": _relative(example.path, root),
            **({"prompt": example.prompt} if example.prompt else {}),
            "text": example.text,
            "task": example.task,
            "id": example.id,
            **({"start_s": example.span[0], "end_s": example.span[1]} if example.span else {}),
            **({"Q": example.own_text} if example.own_text else {}),
            **(
                {"expand_wav": [_relative(name, root) for name in example.following]}
                if example.following
                else {}
            ),
        }
        for example in examples
    ]


def _relative(path: str, root: Path) -> str:
    return path if is_url(path) else Path(os.path.relpath(path, root)).as_posix()


def _as_columns(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of LTU's data with our columns; others as they are."""
    if "instruction" not in row or "prompt" in row:
        return row
    prompt = "\n".join(text for text in (row["instruction"], row.get("input")) if text)
    return {
        **{name: value for name, value in row.items() if name not in _INSTRUCTION},
        "path": row.get("audio_id"),
        "prompt": prompt,
        "text": row.get("output"),
        "task": row.get("task") or row.get("dataset") or "qa",
    }


def _following(row: Mapping[str, Any], number: int, problems: Problems) -> tuple[str, ...]:
    names = row.get("expand_wav") or ()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        problems.add(number, f"expand_wav is {one_line(repr(names), 40)}; give a list of paths")
        return ()
    return tuple(names)


def _read_rows(path: Location, problems: Problems) -> Iterator[Mapping[str, Any] | None]:
    """The rows of a table; None for an invalid one, which is recorded."""
    _check_format(path)
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
            return
        with io.TextIOWrapper(path.open("rb"), encoding="utf-8") as file:
            lines = _json_rows(path, file.read()) if path.suffix == ".json" else _json_lines(file, problems)
            for number, row in enumerate(lines, start=1):
                if row is not None and not isinstance(row, dict):
                    problems.add(number, f"is {one_line(json.dumps(row), 40)}, not an object with columns")
                    row = None
                yield row
    except OSError as error:
        raise NaturelmError(
            f"{path}: cannot read the manifest ({error.strerror or error}); check its path"
        ) from None
    except UnicodeDecodeError:
        raise NaturelmError(f"{path}: is not UTF-8 text; save the manifest as UTF-8") from None


def _json_rows(path: Location, text: str) -> Iterable[Any]:
    try:
        table = json.loads(text)
    except ValueError as error:
        raise NaturelmError(
            f"{path}: not valid JSON ({error}); fix the file, or rename it to .jsonl"
        ) from None
    rows = table.get("annotation") if isinstance(table, dict) else table
    if not isinstance(rows, list):
        raise NaturelmError(
            f'{path}: contains no {{"annotation": [...]}}; a file with one row per line needs the ending .jsonl'
        )
    return rows


def _json_lines(lines: Iterable[str], problems: Problems) -> Iterator[Any]:
    for number, line in enumerate((line for line in lines if line.strip()), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            problems.add(number, f"is not valid JSON ({error})")
            yield None


def _parquet_rows(path: Location) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file, pq.ParquetFile(file) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise NaturelmError(f"{path}: not a Parquet file ({one_line(str(error))}); fix the file") from None


def _resolved(manifest: Location, recording: str) -> str:
    if is_url(recording) or os.path.isabs(recording):
        return recording
    if isinstance(manifest, Path):
        return os.path.join(manifest.parent, recording)
    # A key has no `..` in it.
    return str(StorePath(manifest.scheme, posixpath.normpath(f"{manifest.parent.key}/{recording}")))


def _recording(row: Mapping[str, Any], number: int, problems: Problems) -> str | None:
    path, files = row.get("path"), row.get("files")
    if files is not None and not (isinstance(files, list) and len(files) == 1):
        count = len(files) if isinstance(files, list) else 1
        problems.add(
            number, f"files contains {count} paths; a question is about one recording, so give one in a list"
        )
        return None
    if path is not None and files:
        problems.add(number, "has path and files; give one of them")
        return None
    path = files[0] if files else path
    if not isinstance(path, str) or not path.strip():
        problems.add(number, f"path is {_empty(path)}")
        return None
    return path


def _span(row: Mapping[str, Any], number: int, problems: Problems) -> Span | None:
    given = {name: row.get(name) for name in ("start_s", "end_s")}
    if all(value is None for value in given.values()):
        return None
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            problems.add(number, f"{name} is {one_line(repr(value), 40)}; give start_s and end_s as numbers")
            return None
    start_s, end_s = (float(row[name]) for name in given)
    if not 0 <= start_s < end_s:
        problems.add(number, f"start_s is {start_s:g} and end_s {end_s:g}; give a part of the recording")
        return None
    return start_s, end_s


def _empty(value: object) -> str:
    if value is None:
        return "missing"
    return "empty" if isinstance(value, str) else f"{one_line(repr(value), 40)}, not text"


def _check_format(path: Location) -> None:
    if path.suffix not in FORMATS:
        raise NaturelmError(
            f"{path}: ends in {path.suffix or 'nothing'!r}; a manifest ends in {', '.join(FORMATS)}"
        )
