"""The difference between two sets of predictions in one figure."""

from __future__ import annotations

from dataclasses import dataclass

from naturelm.evaluation.components import MAX_VALUES
from naturelm.evaluation.intervals import Interval


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of a component in both sets.

    Attributes
    ----------
    component, metric : str
        Which figure.
    examples : int
        On how many examples.
    first, second : float
        Its values.
    interval : tuple of float
        95 % bootstrap interval of second less first.
    p : float
        Two-sided bootstrap p-value of the hypothesis that there is no difference.
    """

    component: str
    metric: str
    examples: int
    first: float
    second: float
    interval: Interval
    p: float

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def max_value(self) -> float:
        """The largest possible value of the figure."""
        return MAX_VALUES.get(self.metric, 1.0)

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval[0] > 0 or self.interval[1] < 0
