"""Detections in the formats of other tools: one module of this folder for each format, with its name.

docs/contributing/adding-an-export.md shows how to add one.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Protocol, cast

from naturelm.errors import NaturelmError
from naturelm.tables.export.source import Load, Save

_NO_FORMATS = {"source"}

FORMATS = tuple(
    module.name.replace("_", "-")
    for module in pkgutil.iter_modules(__path__)
    if module.name not in _NO_FORMATS
)
"""Names of the formats: those of their modules, with hyphens."""


class Format(Protocol):
    """What the module of a format has; `SUMMARY` describes it in `export --help`."""

    SUMMARY: str
    save: Save
    load: Load


def get_format(name: str) -> Format:
    """The module that writes and reads a format.

    Raises
    ------
    NaturelmError
        There is no such format.
    """
    if name not in FORMATS:
        raise NaturelmError(f"format is {name!r}; give one of {', '.join(FORMATS)}")
    return cast(Format, import_module(f"{__name__}.{name.replace('-', '_')}"))
