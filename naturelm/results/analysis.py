"""`analysis.yaml`: what determines the rows of an output directory, and the form of its tables.

One directory holds one analysis. A directory of an older schema version is refused, by the writer and by every reader,
until `naturelm migrate` has converted it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from naturelm.errors import NaturelmError
from naturelm.ids import settings_hash
from naturelm.results.layout import ANALYSIS, analysis_home, check_results, holds_results
from naturelm.results.schemas import SCHEMA_VERSION, TABLES, VECTOR_TABLES, table_columns
from naturelm.storage import Location, location, write_whole

# Lists of ten thousand labels take the loader that is written in Python seconds.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

OLDER_VERSIONS = (1, 2)
"""Schema versions that `migrate` converts."""

UNFINISHED = f"{SCHEMA_VERSION} (migration not finished)"
"""Stands for the schema version while files of an older one are being removed."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What determines the rows.

    Attributes
    ----------
    settings : dict
        As `ArchiveConfig.analysis` has them.
    segment_windows : int
        Windows a segment.
    config : dict
        The whole resolved configuration of the run that began the directory.
    columns : dict
        The columns of each table when the directory was begun: files that were written then have no others.
    """

    settings: dict[str, Any]
    segment_windows: int
    config: dict[str, Any]
    columns: dict[str, list[str]]

    @property
    def hash(self) -> str:
        return settings_hash(self.settings)

    @property
    def encoder(self) -> str:
        """Name of the model as the first run gave it."""
        return str(dict(self.config.get("model") or {}).get("name", ""))

    @property
    def revision(self) -> str:
        """What identifies the model's weights."""
        return str(dict(self.settings.get("model") or {}).get("revision", ""))

    @property
    def hop_s(self) -> float:
        """Seconds between window starts."""
        return float(self.settings["windows"]["hop_s"])

    @property
    def queries(self) -> dict[str, dict[str, Any]]:
        """The queries' settings by their ids."""
        return dict(self.settings.get("queries", {}))


def check_version(directory: str | Location) -> dict[str, list[str]]:
    """Refuse a directory without results, or of another schema version.

    Returns
    -------
    dict
        `Analysis.columns`.

    Raises
    ------
    NaturelmError
        It is one, or it cannot be read.
    """
    directory = location(directory)
    check_results(directory)
    directory = analysis_home(directory)
    # What comes first is short; lists of labels may be long.
    stored = _parse(read_settings_text(directory).partition("\nanalysis:")[0])
    if "schema_version" not in stored:
        stored = read_stored(directory)
    _refuse_other(directory, stored)
    return dict(stored.get("columns") or {})


def check_begun(directory: Location) -> None:
    """Refuse a directory that a run has begun in another schema version; before anything slow begins.

    Raises
    ------
    NaturelmError
        It is one.
    """
    try:
        begun = holds_results(directory)
    except OSError:  # what is wrong with it is reported by who makes it
        return
    if begun:
        check_version(directory)


def read_analysis(directory: str | Location) -> Analysis:
    """Read what determined the rows.

    Raises
    ------
    NaturelmError
        The directory holds no results or is of another schema version, or the file is damaged.
    """
    directory = analysis_home(location(directory))
    stored = read_stored(directory)
    _refuse_other(directory, stored)
    return analysis_of(directory, stored)


def analysis_of(directory: Location, stored: Mapping[str, Any]) -> Analysis:
    """The content of a directory's file as an analysis.

    Raises
    ------
    NaturelmError
        Something is missing there.
    """
    try:
        analysis = Analysis(
            dict(stored["analysis"]),
            int(stored["segment_windows"]),
            dict(stored.get("config") or {}),
            dict(stored.get("columns") or {}),
        )
        # What readers of the tables rely on.
        _ = analysis.hop_s, analysis.queries
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _damaged(directory) from None
    return analysis


def read_stored(directory: Location) -> dict[str, Any]:
    """The content of the file, of whatever schema version.

    Raises
    ------
    NaturelmError
        The directory holds no results, or the file is damaged.
    """
    check_results(directory)
    stored = _parse(read_settings_text(directory))
    if "analysis" not in stored:
        raise _damaged(directory)
    return stored


def version_of(stored: Mapping[str, Any]) -> Any:
    """The schema version; files of the first one do not say it."""
    return stored.get("schema_version", 1)


def read_settings_text(directory: Location) -> str:
    """The file as it is, for people."""
    return (directory / ANALYSIS).read_bytes().decode("utf-8", "replace")


def write_analysis(directory: Location, analysis: Analysis, version: int | str = SCHEMA_VERSION) -> None:
    """Write the file, which makes a directory one of results."""
    text = yaml.safe_dump(
        {
            "hash": analysis.hash,
            "schema_version": version,
            "segment_windows": analysis.segment_windows,
            "columns": analysis.columns,
            "analysis": analysis.settings,
            "config": analysis.config,
        },
        sort_keys=False,
        allow_unicode=True,
    )
    write_whole(directory / ANALYSIS, text.encode())


def encoder_metadata(analysis: Analysis) -> dict[bytes, bytes]:
    """Of embeddings: what a file's metadata hold about the encoder; nothing for words."""
    if "embeddings" not in analysis.settings:
        return {}
    return {
        b"naturelm.encoder": analysis.encoder.encode(),
        b"naturelm.encoder_revision": analysis.revision.encode(),
        b"naturelm.pooling": str(analysis.settings["embeddings"]["pooling"]).encode(),
    }


def check_same(directory: Location, analysis: Analysis, settings: dict[str, Any]) -> None:
    """Refuse to continue with other settings, or to leave out columns that a newer program has written.

    Raises
    ------
    NaturelmError
        The settings differ, or the tables have columns that this program does not know.
    """
    differing = list(differences(analysis.settings, settings))
    if differing:
        raise NaturelmError(
            f"{directory}: holds another analysis, which differs in {'; '.join(differing)}; "
            "give another --out or the same settings"
        )
    known = table_columns(TABLES | VECTOR_TABLES)
    unknown = [
        f"{table}.{column}"
        for table, columns in analysis.columns.items()
        for column in columns
        if column not in known.get(table, ())
    ]
    if unknown:
        raise NaturelmError(
            f"{directory}: its tables have columns that this version of naturelm does not write "
            f"({', '.join(unknown)}); install a newer naturelm or give another --out"
        )


def differences(stored: Any, given: Any, where: str = "") -> Iterator[str]:
    """The settings in which two analyses differ, each with both values."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*stored, *(key for key in given if key not in stored)]:
            yield from differences(stored.get(key), given.get(key), f"{where}.{key}" if where else str(key))
    elif stored != given:
        yield f"{where} ({_short(stored)} there, {_short(given)} now)"


def _parse(text: str) -> dict[str, Any]:
    """YAML as a dict; an empty one for anything else."""
    try:
        stored = yaml.load(text, _Loader)
    except yaml.YAMLError:
        return {}
    return stored if isinstance(stored, dict) else {}


def _refuse_other(directory: Location, stored: Mapping[str, Any]) -> None:
    version = version_of(stored)
    if version == SCHEMA_VERSION:
        return
    if version in (*OLDER_VERSIONS, UNFINISHED):
        remedy = f"convert them with: naturelm migrate {shlex.quote(str(directory))}"
    elif isinstance(version, int) and version > SCHEMA_VERSION:
        remedy = "install a newer naturelm"
    else:
        raise _damaged(directory)
    raise NaturelmError(
        f"{directory}: holds tables of schema version {version}, and this naturelm reads and writes version "
        f"{SCHEMA_VERSION}; {remedy}"
    )


def _damaged(directory: Location) -> NaturelmError:
    return NaturelmError(
        f"{directory / ANALYSIS}: is damaged; restore it from a copy, or process into another --out"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
