"""A command's argument that is a path, or the URL of a place in an object store."""

from __future__ import annotations

from typing import Any

import click

from naturelm.storage import Location, location


class _LocationType(click.ParamType):
    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        return location(value)


LOCATION = _LocationType()
