"""From a YAML file to checked settings: loaded once at the edge and threaded down by section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from naturelm.config.archive import ArchiveConfig
from naturelm.config.label_lists import read_label_list
from naturelm.errors import NaturelmError

_EXAMPLE = "configs/archive.yaml"


def load(path: Path | None = None, overrides: dict[str, Any] | None = None) -> ArchiveConfig:
    """Load an archive configuration: overrides win over the file, the file over the defaults.

    Parameters
    ----------
    path : Path, optional
        YAML file with the sections of `ArchiveConfig`.
    overrides : dict, optional
        Sections that win over the file's, key by key (`{"windows": {"hop_s": 5.0}}`); None values do not.

    Raises
    ------
    NaturelmError
        The file is missing, is not YAML, or a setting is unknown or out of range.
    """
    raw = {} if path is None else _with_files_of(path, read_yaml(path, _EXAMPLE))
    where = str(path) if path is not None else "settings"
    for section, values in (overrides or {}).items():
        if not isinstance(values, dict):
            raw[section] = values
            continue
        base = raw.setdefault(section, {})
        if not isinstance(base, dict):
            raise NaturelmError(f"{where}: {section} is {base!r}, not settings; see {_EXAMPLE}")
        base.update({key: value for key, value in values.items() if value is not None})
    try:
        return ArchiveConfig.model_validate(raw)
    except ValidationError as error:
        raise NaturelmError(f"{where}: {first_problem(error, _EXAMPLE)}") from None


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """The sections of a YAML file; `example` names a file that shows what belongs there.

    Raises
    ------
    NaturelmError
        The file is missing or is not YAML, or it holds something else than sections.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NaturelmError(
            f"{path}: cannot read the configuration ({error.strerror}); check its path"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise NaturelmError(f"{path}: not valid YAML ({problem}); mend the file") from None
    if not isinstance(raw, dict):
        raise NaturelmError(f"{path}: holds {type(raw).__name__}, not sections; see {example}")
    return raw


def _with_files_of(path: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """The same settings, each query's `labels_file` replaced by the lists that it holds.

    Files that settings name are looked for from the settings' own directory.
    """
    if isinstance(raw.get("stations_file"), str):
        raw = raw | {"stations_file": str(path.absolute().parent / raw["stations_file"])}
    queries = raw.get("queries")
    if not isinstance(queries, list):
        return raw
    return raw | {"queries": [_with_label_file(query, path) for query in queries]}


def _with_label_file(query: Any, path: Path) -> Any:
    if not isinstance(query, dict) or "labels_file" not in query:
        return query
    rest = {key: value for key, value in query.items() if key != "labels_file"}
    if rest.get("labels"):
        raise NaturelmError(f"{path}: query {query.get('id')!r} has labels and labels_file; give one of them")
    lists = read_label_list(path.parent / str(query["labels_file"]))
    own = [{"station": name, "labels": labels} for name, labels in lists.items() if name]
    return rest | {"labels": lists[""], "station_labels": own}


def first_problem(error: ValidationError, example: str) -> str:
    """Tell a validation error in one sentence: the setting, its value and what is wrong."""
    problem = error.errors(include_url=False)[0]
    setting = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {setting}; see {example} for the known ones"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{setting}: {message}" if setting else message
    return f"{setting} is {problem['input']!r}: {message[0].lower()}{message[1:]}"
