"""Types of command-line values: places on a disk or in an object store, and finite numbers."""

from __future__ import annotations

import math
from typing import Any

import click

from naturelm.storage import Location, location


class _LocationType(click.ParamType):
    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        return location(value)


LOCATION = _LocationType()


class FiniteRange(click.FloatRange):
    """A range of numbers; unlike `click.FloatRange` it takes neither NaN nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        checked: float = super().convert(number, param, ctx)
        return checked


SCORE = FiniteRange(0, 1)
