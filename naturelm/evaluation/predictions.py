"""Predictions: a model's answers beside the true labels, in JSONL, CSV or Parquet files.

Every cell stays text, in every format: "None" is a label, and "3" is not a number.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from naturelm.errors import NaturelmError
from naturelm.evaluation.components import BEANS_ZERO, Scoring, scoring_of
from naturelm.storage import Location
from naturelm.text import one_line, suggestion

NEEDED = ("prediction", "label", "dataset_name")
PREDICTIONS_FILE = "predictions.parquet"
"""The predictions in a directory that an evaluation wrote."""

FORMATS = (".jsonl", ".json", ".csv", ".parquet")

_READ = (*NEEDED, "id", "task", "status")
# Longer than any answer: Python's own limit of 128 KiB would refuse a model that repeats itself.
_LONGEST_CELL = 1 << 30


@dataclass(slots=True)
class Predictions:
    """The predictions about one component, in the order of the file.

    Attributes
    ----------
    component : str
        Its name.
    scoring : Scoring
        How it is scored.
    ids : list of str
        Names of the rows; their numbers in the file, from 1, where it has no ids.
    answers : list of str or None
        The model's answers; None where there is none, which counts as wrong.
    labels : list of str
        The true labels.
    task : str
        Name of the task in the file or the data; empty where there is none.
    """

    component: str
    scoring: Scoring
    ids: list[str] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    task: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unanswered(self) -> int:
        """Rows without an answer."""
        return sum(answer is None for answer in self.answers)


def read_predictions(place: Location) -> list[Predictions]:
    """Read a file of predictions, or those in a directory that an evaluation wrote.

    Components are in the order of their first rows.

    Columns are `prediction`, `label` and `dataset_name`; `id`, `task` and `status` are read where they exist. A row
    with another status than `ok` has no answer. `task` determines how a component that BEANS-Zero does not know is
    scored.

    Raises
    ------
    NaturelmError
        The file cannot be read, lacks a column or has no rows; a label is empty or not text; an id appears twice in a
        component; or a component is unknown and has no task.
    """
    if place.suffix not in FORMATS and place.is_dir():
        if not (place / PREDICTIONS_FILE).is_file():
            raise NaturelmError(
                f"{place}: contains no {PREDICTIONS_FILE}; give a file of predictions or the --out of an evaluation"
            )
        place = place / PREDICTIONS_FILE
    if place.suffix not in FORMATS:
        raise NaturelmError(
            f"{place}: ends in {place.suffix or 'nothing'!r}; predictions end in {', '.join(FORMATS)}"
        )
    try:
        with place.open("rb") as file:
            return group(_rows(place, file), place)
    except OSError as error:
        raise NaturelmError(f"{place}: cannot be read ({error.strerror or error}); check its path") from None
    except UnicodeDecodeError:
        raise NaturelmError(f"{place}: is not UTF-8 text; save it as UTF-8") from None


def group(rows: Iterable[Mapping[str, Any]], place: object) -> list[Predictions]:
    """Group rows by component; `place` is their source, for errors, which are those of `read_predictions`."""
    found: dict[str, Predictions] = {}
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        name = _text(place, number, "dataset_name", row.get("dataset_name"))
        label = _text(place, number, "label", row.get("label"))
        answer = row.get("prediction")
        if answer is not None and not isinstance(answer, str):
            raise _not_text(place, number, "prediction", answer)
        if row.get("status") not in (None, "", "ok"):
            answer = None
        task = row.get("task") or ""
        part = found.get(name)
        if part is None:
            part = found[name] = Predictions(name, _scoring(place, name, task), task=task)
        elif name not in BEANS_ZERO and _scoring(place, name, task) != part.scoring:
            raise NaturelmError(
                f"{place}, row {number}: component {one_line(name)!r} has tasks {one_line(part.task)!r} and "
                f"{one_line(task)!r}, which are scored differently; give each a dataset_name"
            )
        row_id = str(number) if row.get("id") is None else str(row["id"])
        first = seen.setdefault((name, row_id), number)
        if first != number:
            raise NaturelmError(
                f"{place}, row {number}: id {one_line(row_id)!r} appears twice in {one_line(name)}, first in row "
                f"{first}; remove one of the rows"
            )
        part.ids.append(row_id)
        part.answers.append(answer)
        part.labels.append(label)
    if not found:
        raise NaturelmError(f"{place}: contains no rows; give one for each prediction")
    return list(found.values())


def _scoring(place: object, name: str, task: str) -> Scoring:
    if name in BEANS_ZERO:
        return BEANS_ZERO[name].scoring
    if not task:
        raise NaturelmError(
            f"{place}: component {one_line(name)!r} is not in BEANS-Zero and has no task; add a column task: "
            "classification, detection or captioning"
        )
    return scoring_of(task)


def _text(place: object, number: int, column: str, value: object) -> str:
    if not isinstance(value, str):
        raise _not_text(place, number, column, value)
    if not value.strip(" ,\t\r\n"):
        raise NaturelmError(
            f"{place}, row {number}: {column} is empty; write None where the sound has no label"
        )
    return value


def _not_text(place: object, number: int, column: str, value: object) -> NaturelmError:
    what = "missing" if value is None else f"{one_line(repr(value), 40)}, not text"
    return NaturelmError(f"{place}, row {number}: {column} is {what}; give text")


def _rows(place: Location, file: Any) -> Iterator[Mapping[str, Any]]:
    if place.suffix == ".parquet":
        yield from _parquet_rows(place, file)
    elif place.suffix == ".csv":
        yield from _csv_rows(place, io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    else:
        yield from _json_rows(place, io.TextIOWrapper(file, encoding="utf-8-sig"))


def _json_rows(place: Location, lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    known: set[str] = set()
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        try:
            row = json.loads(line)
        except ValueError as error:
            raise NaturelmError(
                f"{place}, row {number}: is not valid JSON ({error}); write one object on each line"
            ) from None
        if not isinstance(row, dict):
            raise NaturelmError(
                f"{place}, row {number}: is {one_line(line, 40)}; write one object on each line"
            )
        # Columns are those of the first row; one that a later row lacks is a missing value there.
        known = known or _check_columns(place, row)
        yield {name: _whole(value) for name, value in row.items() if name in _READ}


def _whole(value: Any) -> Any:
    """Replace halves of surrogate pairs, which JSON can hold and no other format can."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _csv_rows(place: Location, file: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        _check_columns(place, header)
        for number, cells in enumerate(reader, start=1):
            if not cells:
                continue
            if len(cells) != len(header):
                raise NaturelmError(
                    f"{place}, row {number}: has {len(cells)} cells, the header {len(header)}; quote cells that hold "
                    "commas"
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise NaturelmError(f"{place}: is not valid CSV ({error}); save it again as CSV") from None
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(place: Location, file: Any) -> Iterator[Mapping[str, Any]]:
    try:
        table = pq.ParquetFile(file)
        _check_columns(place, table.schema_arrow.names)
        columns = [name for name in table.schema_arrow.names if name in _READ]
        for batch in table.iter_batches(columns=columns):
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise NaturelmError(
            f"{place}: is not a Parquet file ({one_line(str(error))}); write it again"
        ) from None


def _check_columns(place: Location, there: Iterable[str]) -> set[str]:
    columns = set(there)
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        listed = one_line(", ".join(map(str, there)), 200) or "none"
        raise NaturelmError(f"{place}: has no column {', '.join(missing)}; it has {listed}")
    return columns


def select_components(found: Sequence[Predictions], names: Sequence[str], option: str) -> list[Predictions]:
    """The named components, in the order of `found`; all where no name is given.

    Raises
    ------
    NaturelmError
        A name is not among them; those there are are named.
    """
    check_names([part.component for part in found], names, option)
    return [part for part in found if not names or part.component in names]


def check_names(there: Sequence[str], names: Sequence[str], option: str) -> None:
    """Raise NaturelmError for a component that does not exist, with the nearest spelling."""
    for name in names:
        if name not in there:
            raise NaturelmError(
                f"{option}: there is no component {one_line(name)!r}; {suggestion(name, there)}"
            )
