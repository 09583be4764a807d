"""Detections in the formats of other tools, one module each with `save` and `load`."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from naturelm.errors import NaturelmError
from naturelm.tables.export.rows import Load, Save

FORMATS = {
    "raven": "Raven selection tables: one per recording, or all in one where --out ends in .txt",
    "audacity": "Audacity labels, one file per recording",
    "kaleidoscope": "Kaleidoscope CSV",
    "birdnet-csv": "BirdNET-Analyzer CSV",
    "birdnet-parquet": "BirdNET-Analyzer's columns as Parquet",
    "camtrap-dp": "Camtrap DP package (deployments, media, observations), a directory",
    "csv": "every column, safe to open in a spreadsheet",
    "geojson": "one feature per detection, at its station",
}


class Format(Protocol):
    """What a module of a format has."""

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
    return cast(Format, import_module(f"naturelm.tables.export.{name.replace('-', '_')}"))
