"""The files that hold an evaluation or a comparison: JSON, CSV, Parquet, plots and a page."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from naturelm.errors import NaturelmError
from naturelm.evaluation.plots import confusion_plots, differences_plot, scores_plot
from naturelm.evaluation.predictions import PREDICTIONS_FILE
from naturelm.evaluation.result import ComponentResult
from naturelm.evaluation.score_page import render_comparison, render_page
from naturelm.storage import Location, write_whole
from naturelm.tables.row_formats import csv_writer
from naturelm.text import guard

if TYPE_CHECKING:
    from naturelm.evaluation.differences import Difference

_MAX_TIES_LISTED = 50


def write_result(directory: Location, results: Sequence[ComponentResult], notes: Sequence[str]) -> list[str]:
    """Write metrics, details, tables, plots and the page; returns the names of the files.

    Raises
    ------
    NaturelmError
        The directory cannot be written.
    """
    files: dict[str, bytes] = {
        "metrics.json": _json({result.name: result.figures for result in results}),
        "details.json": _json({"notes": list(notes), "components": [_details(result) for result in results]}),
        "components.csv": _csv(
            ("component", "scoring", "examples", "unanswered", "metric", "value", "low", "high"),
            (
                (
                    result.name,
                    result.predictions.scoring,
                    len(result.predictions),
                    result.predictions.unanswered,
                    metric,
                    value,
                    *result.intervals[metric],
                )
                for result in results
                for metric, value in result.figures.items()
            ),
        ),
        "labels.csv": _csv(
            ("component", "label", "examples", "answered", "correct", "precision", "recall", "f1"),
            ((result.name, *row.values()) for result in results for row in result.by_label),
        ),
        "confusions.csv": _csv(
            ("component", "label", "answered", "examples"),
            ((result.name, *row) for result in results for row in result.confusions),
        ),
        "out_of_vocabulary.csv": _csv(
            ("component", "answer", "matched", "distance", "times"),
            (
                (result.name, match.text, match.label, match.distance, count)
                for result in results
                for match, count in result.out_of_vocabulary
            ),
        ),
        PREDICTIONS_FILE: _parquet(results),
        "scores.png": scores_plot(results),
        **confusion_plots(results),
    }
    files["evaluation.html"] = render_page(results, notes).encode("utf-8")
    _write_files(directory, files)
    return list(files)


def write_comparison(
    directory: Location, differences: Sequence[Difference], names: tuple[str, str], notes: Sequence[str]
) -> list[str]:
    """Write the comparison as JSON, CSV, PNG and one page; returns the names of the files."""
    mains: dict[str, Difference] = {}
    for part in differences:
        mains.setdefault(part.component, part)
    rows = [{**asdict(part), "difference": part.difference} for part in differences]
    header = ("component", "metric", "examples", "first", "second", "difference", "low", "high", "p")
    cells = (
        (
            part.component,
            part.metric,
            part.examples,
            part.first,
            part.second,
            part.difference,
            *part.interval,
            part.p,
        )
        for part in differences
    )
    comparison = {"first": names[0], "second": names[1], "notes": list(notes), "differences": rows}
    files = {
        "comparison.json": _json(comparison),
        "comparison.csv": _csv(header, cells),
        "comparison.png": differences_plot(list(mains.values()), *names),
        "comparison.html": render_comparison(differences, *names, notes).encode("utf-8"),
    }
    _write_files(directory, files)
    return list(files)


def _write_files(directory: Location, files: dict[str, bytes]) -> None:
    """Write files into a directory, each whole or not at all; NaturelmError where that fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(directory / name, content)
    except OSError as error:
        raise NaturelmError(
            f"{directory}: cannot be written ({error.strerror or error}); give another --out"
        ) from None


def _details(result: ComponentResult) -> dict[str, Any]:
    part, ties = result.predictions, result.ties
    return {
        "component": part.component,
        "scoring": part.scoring,
        "task": part.task or None,
        "examples": len(part),
        "unanswered": part.unanswered,
        "metrics": result.figures,
        "intervals": {name: list(bounds) for name, bounds in result.intervals.items()},
        "out_of_vocabulary": sum(count for _, count in result.out_of_vocabulary),
        "ties": ties
        and {
            "answers": [asdict(match) for match in ties.matches[:_MAX_TIES_LISTED]],
            "count": len(ties.matches),
            "first_sorted": ties.first_sorted,
            "fewest_right": ties.fewest_right,
            "most_right": ties.most_right,
        },
    }


def _parquet(results: Sequence[ComponentResult]) -> bytes:
    tables = [
        pa.table(
            {
                "dataset_name": pa.array([result.name] * len(result.predictions), pa.string()),
                "id": pa.array(result.predictions.ids, pa.string()),
                "task": pa.array([result.predictions.task or None] * len(result.predictions), pa.string()),
                "prediction": pa.array(result.predictions.answers, pa.string()),
                "label": pa.array(result.predictions.labels, pa.string()),
                "matched": pa.array(result.rows["matched"], pa.string()),
                "correct": pa.array(result.rows["correct"], pa.float64()),
            }
        )
        for result in results
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """CSV whose text cells no spreadsheet evaluates as formulas: labels and answers are untrusted."""
    stream = io.StringIO()
    writer = csv_writer(stream)
    writer.writerow(header)
    writer.writerows([guard(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return stream.getvalue().encode("utf-8")
