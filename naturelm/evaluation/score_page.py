"""One self-contained HTML page about an evaluation or a comparison; opens offline, in any browser."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from naturelm import __version__
from naturelm.evaluation.components import MAX_VALUES

if TYPE_CHECKING:
    import jinja2

    from naturelm.evaluation.differences import Difference
    from naturelm.evaluation.result import ComponentResult

# So that a page about many labels still opens on a phone; the CSV files contain all rows.
MAX_LABELS = 40
MAX_CONFUSIONS = 20
MAX_OUT_OF_VOCABULARY = 20
MAX_TIES = 10


def render_page(results: Sequence[ComponentResult], notes: Sequence[str]) -> str:
    """The page of an evaluation."""
    return _templates().get_template("evaluation.html.j2").render(
        version=__version__,
        results=results,
        notes=notes,
        examples=sum(len(result.predictions) for result in results),
        unanswered=sum(result.predictions.unanswered for result in results),
        max_values=MAX_VALUES,
        most={
            "labels": MAX_LABELS,
            "confusions": MAX_CONFUSIONS,
            "out_of_vocabulary": MAX_OUT_OF_VOCABULARY,
            "ties": MAX_TIES,
        },
    )  # fmt: skip


def render_comparison(
    differences: Sequence[Difference], first: str, second: str, notes: Sequence[str]
) -> str:
    """The page of a comparison."""
    bounds = [bound / part.max_value for part in differences for bound in (*part.interval, part.difference)]
    return _templates().get_template("comparison.html.j2").render(
        version=__version__, differences=differences, first=first, second=second, notes=notes,
        widest=max(map(abs, bounds), default=0.0) or 1.0,
    )  # fmt: skip


@cache
def _templates() -> jinja2.Environment:
    """The templates of this folder, with the style of `naturelm report`. They escape all values."""
    import jinja2

    from naturelm.tables.player import templates

    environment: Any = templates().overlay(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("naturelm.evaluation"), jinja2.PackageLoader("naturelm.tables")]
        )
    )
    environment.filters = {
        **environment.filters,
        "number": lambda value: f"{value:,.0f}",
        "figure": lambda value: "–" if value is None else f"{value:.4f}",
        "signed": lambda value: f"{value:+.4f}",
    }
    checked: jinja2.Environment = environment
    return checked
