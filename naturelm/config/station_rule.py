"""How the user says where a recording's station is written: the setting `recordings.station`.

==================  ===================================================================================
`auto`              the prefix of the file name, else a directory; a station whose recordings overlap
                    is divided (see `naturelm.recordings.station_names`)
`name`              the file name: its prefix, or a serial number or a number of a recorder in it
`folder`            the first directory that is not named after a date, a card or a kind of file
`folder:N`          the N-th directory below PATH; negative numbers count from the file: `folder:-1`
                    is the directory that holds it
a pattern           as `--name-pattern` takes it, with `{station}`, such as `{station}_*` or `{station}/*/*`
==================  ===================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from naturelm.config.name_pattern import GivenPattern
from naturelm.errors import NaturelmError

_FOLDER = re.compile(r"folder:([+-]?[1-9]\d?)")


@dataclass(frozen=True, slots=True)
class StationRule:
    """Where a recording's station is written.

    Attributes
    ----------
    kind : {"auto", "name", "folder", "pattern"}
    level : int, optional
        Of `folder:N`: which directory, from 1 below the root, or from -1 above the file.
    pattern : GivenPattern, optional
        Of `pattern`: it has a `{station}`.
    """

    kind: Literal["auto", "name", "folder", "pattern"]
    level: int | None = None
    pattern: GivenPattern | None = None


def parse_station_rule(text: str) -> StationRule:
    """Read the setting.

    Raises
    ------
    NaturelmError
        It is none of the forms in this module's text.
    """
    if text in ("auto", "name", "folder"):
        return StationRule(text)  # type: ignore[arg-type]
    level = _FOLDER.fullmatch(text)
    if level is not None:
        return StationRule("folder", int(level[1]))
    if "{station}" in text:
        return StationRule("pattern", pattern=GivenPattern(text))
    raise NaturelmError(
        f"station is taken from {text[:80]!r}; give auto, name, folder, folder:N with N from 1 or from -1, "
        "or a pattern with {station}, such as '{station}_*'"
    )
