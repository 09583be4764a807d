"""`analysis.yaml`: what determines the rows of an output directory. One directory holds one analysis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from naturelm.errors import NaturelmError
from naturelm.ids import settings_hash
from naturelm.results.layout import ANALYSIS, check_results
from naturelm.storage import Location, location, write_whole

# Lists of ten thousand labels take the loader that is written in Python seconds.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What determines the rows.

    Attributes
    ----------
    settings : dict
        As `ArchiveConfig.analysis` has them.
    segment_windows : int
        Windows a segment.
    schema_version : int
        Of the tables.
    config : dict
        The whole resolved configuration of the run that began the directory.
    """

    settings: dict[str, Any]
    segment_windows: int
    schema_version: int
    config: dict[str, Any]

    @property
    def hash(self) -> str:
        return settings_hash(self.settings)

    @property
    def hop_s(self) -> float:
        """Seconds between window starts."""
        return float(self.settings["windows"]["hop_s"])

    @property
    def queries(self) -> dict[str, dict[str, Any]]:
        """The queries' settings by their ids."""
        return dict(self.settings.get("queries", {}))


def read_analysis(directory: str | Location) -> Analysis:
    """Read what determined the rows.

    Raises
    ------
    NaturelmError
        The directory holds no results, or the file is damaged.
    """
    directory = location(directory)
    check_results(directory)
    try:
        stored = yaml.load(read_settings_text(directory), _Loader)
        settings = stored["analysis"]
        # What readers of an analysis rely on.
        float(settings["windows"]["hop_s"])
        dict(settings.get("queries", {}))
        return Analysis(
            settings,
            int(stored["segment_windows"]),
            int(stored.get("schema_version", 1)),
            stored.get("config") or {},
        )
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise NaturelmError(
            f"{directory / ANALYSIS}: is damaged; the tables can be read, the settings cannot"
        ) from None


def read_settings_text(directory: Location) -> str:
    """The file as it is, for people."""
    return (directory / ANALYSIS).read_bytes().decode("utf-8", "replace")


def differences(stored: Any, given: Any, where: str = "") -> Iterator[str]:
    """The settings in which two analyses differ, each with both values."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*stored, *(key for key in given if key not in stored)]:
            yield from differences(stored.get(key), given.get(key), f"{where}.{key}" if where else str(key))
    elif stored != given:
        yield f"{where} ({_short(stored)} there, {_short(given)} now)"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def write_analysis(directory: Location, analysis: Analysis) -> None:
    """Write the file, which makes a directory one of results."""
    text = yaml.safe_dump(
        {
            "hash": analysis.hash,
            "schema_version": analysis.schema_version,
            "segment_windows": analysis.segment_windows,
            "analysis": analysis.settings,
            "config": analysis.config,
        },
        sort_keys=False,
        allow_unicode=True,
    )
    write_whole(directory / ANALYSIS, text.encode())
