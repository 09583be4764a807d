"""`naturelm evaluate`: score a model, or a file of predictions; compare two."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from naturelm.cli._types import LOCATION
from naturelm.errors import NaturelmError
from naturelm.storage import Location

if TYPE_CHECKING:
    from naturelm.evaluation.differences import Difference
    from naturelm.evaluation.result import ComponentResult

_LIBRARIES = ("sklearn", "rapidfuzz", "pycocoevalcap")


def _components(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    return [name.strip() for name in (value or "").split(",") if name.strip()]


_COMPONENTS = click.option(
    "--components", metavar="NAMES", callback=_components,
    help="Only these components, separated by commas.  [default: all]",
)  # fmt: skip


@click.group(invoke_without_command=True)
@click.option(
    "--predictions", "predictions_file", type=LOCATION, metavar="FILE",
    help="Predictions of any model to score: JSONL, CSV or Parquet with columns prediction, label and dataset_name.",
)  # fmt: skip
@click.option(
    "--out", type=LOCATION, metavar="DIR", help="Directory for metrics, tables, plots and the HTML page."
)
@_COMPONENTS
@click.option(
    "--require-spider", is_flag=True,
    help="Fail where SPIDEr cannot be computed (it needs Java 8 and SPICE's models), instead of giving CIDEr alone.",
)  # fmt: skip
@click.pass_context
def evaluate(
    ctx: click.Context,
    predictions_file: Location | None,
    out: Location | None,
    components: list[str],
    require_spider: bool,
) -> None:
    """Score a model as BEANS-Zero's official tool does.

    --predictions scores a file, or the predictions in a directory that an evaluation wrote. A component that BEANS-Zero
    does not know is scored by the file's column task: classification, detection or captioning.

    \b
    naturelm evaluate --predictions predictions.jsonl --out scores
    naturelm evaluate compare one.jsonl other.jsonl --out comparison
    """
    if ctx.invoked_subcommand is not None:
        return
    if predictions_file is None:
        raise NaturelmError("--predictions is missing; give a file of predictions")
    if out is None:
        raise NaturelmError("--out is missing; give a directory for the results")
    _check_libraries()
    _check_directory(out)
    from naturelm.evaluation.predictions import read_predictions, select_components
    from naturelm.evaluation.result import evaluate_components
    from naturelm.evaluation.writing import write_result

    results, notes = evaluate_components(
        select_components(read_predictions(predictions_file), components, "--components"), require_spider
    )
    files = write_result(out, results, notes)
    _print_results(results)
    _print_notes(notes)
    click.echo(f"{out}: {', '.join(files)}")


@evaluate.command()
@click.argument("first", type=LOCATION)
@click.argument("second", type=LOCATION)
@click.option(
    "--out",
    type=LOCATION,
    metavar="DIR",
    help="Directory for the tables, plot and HTML page of the comparison.",
)
@_COMPONENTS
def compare(first: Location, second: Location, out: Location | None, components: list[str]) -> None:
    """Compare two sets of predictions about the same examples, with a paired bootstrap.

    FIRST and SECOND are files of predictions, or directories that `naturelm evaluate` wrote. Differences are the second
    minus the first.
    """
    _check_libraries()
    if out is not None:
        _check_directory(out)
    from naturelm.evaluation.compare import compare_predictions, short_name
    from naturelm.evaluation.predictions import read_predictions, select_components
    from naturelm.evaluation.writing import write_comparison

    ours, theirs = (
        select_components(read_predictions(place), components, "--components") for place in (first, second)
    )
    differences, notes = compare_predictions(ours, theirs, (first, second))
    _print_differences(differences)
    _print_notes(notes)
    if out is not None:
        names = short_name(first), short_name(second)
        if names[0] == names[1]:
            names = str(first), str(second)
        files = write_comparison(out, differences, names, notes)
        click.echo(f"{out}: {', '.join(files)}")


def _check_directory(out: Location) -> None:
    """Refuse a --out that is a file, before anything slow begins."""
    if out.is_file():
        raise NaturelmError(f"{out}: is a file; give --out a directory")


def _check_libraries() -> None:
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise NaturelmError(
            f"{', '.join(missing)}: not installed; install what evaluate needs with: pip install 'naturelm[evaluate]'"
        )


def _print_results(results: Sequence[ComponentResult]) -> None:
    """Print a table for each kind of scoring, with the interval of the figure that is usually reported."""
    from naturelm.text import one_line

    for scoring in dict.fromkeys(result.predictions.scoring for result in results):
        shown = [result for result in results if result.predictions.scoring == scoring]
        metrics = list(dict.fromkeys(metric for result in shown for metric in result.figures))
        rows = [[scoring, "examples", *metrics[:1], *(["95 % interval"] if metrics else []), *metrics[1:]]]
        for result in shown:
            cells = [f"{result.figures[metric]:.4f}" if result.figures else "–" for metric in metrics]
            bounds = [f"{low:.4f} to {high:.4f}" for low, high in list(result.intervals.values())[:1]]
            name = one_line(result.name, 40)
            rows.append(
                [
                    name,
                    f"{len(result.predictions):,}",
                    *cells[:1],
                    *(bounds or ["–"] * bool(metrics)),
                    *cells[1:],
                ]
            )
        _print_table(rows, 1)


def _print_differences(differences: Sequence[Difference]) -> None:
    from naturelm.text import one_line

    rows = [["component", "metric", "examples", "first", "second", "difference", "95 % interval", "p"]]
    for part in differences:
        low, high = part.interval
        rows.append(
            [
                one_line(part.component, 40),
                part.metric,
                f"{part.examples:,}",
                f"{part.first:.4f}",
                f"{part.second:.4f}",
                f"{part.difference:+.4f}",
                f"{low:+.4f} to {high:+.4f}",
                f"{part.p:.3f}",
            ]
        )
    _print_table(rows, 2)


def _print_table(rows: list[list[str]], words: int) -> None:
    """Print aligned rows; the first `words` columns are text, the others numbers."""
    from naturelm.tables.row_formats import aligned
    from naturelm.text import printable

    right = [column >= words for column in range(len(rows[0]))]
    for line in aligned([[printable(cell) for cell in row] for row in rows], right):
        click.echo(line)
    click.echo()


def _print_notes(notes: Sequence[str]) -> None:
    from naturelm.text import printable

    for note in notes:
        click.echo(printable(note))
