"""From a YAML file to validated settings: loaded once at the edge and passed down by section."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from naturelm.config.archive import ArchiveConfig
from naturelm.config.label_lists import read_label_list
from naturelm.errors import NaturelmError
from naturelm.ids import file_recording_id

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_EXAMPLE = "configs/archive.yaml"


def load_archive_config(
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    flags: Mapping[str, str] | None = None,
) -> ArchiveConfig:
    """Load an archive configuration: overrides take precedence over the file, the file over the defaults.

    Parameters
    ----------
    path : Path, optional
        YAML file with the sections of `ArchiveConfig`.
    overrides : mapping, optional
        Sections that take precedence over the file's, key by key (`{"windows": {"hop_s": 5.0}}`); None values do not.
    flags : mapping of str to str, optional
        The command-line option behind an override, by setting (`{"windows.hop_s": "--hop"}`), for error messages.

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
            raise NaturelmError(f"{where}: {section} is {shortened(base)}, not a section; see {_EXAMPLE}")
        base.update({key: value for key, value in values.items() if value is not None})
    try:
        return ArchiveConfig.model_validate(raw)
    except ValidationError as error:
        raise NaturelmError(_sentence(error, where, flags or {})) from None


def _sentence(error: ValidationError, where: str, flags: Mapping[str, str]) -> str:
    """The first problem of a validation, attributed to the options that set it or else to the file."""
    problem = error.errors(include_url=False)[0]
    setting = ".".join(str(part) for part in problem["loc"])
    behind = [flag for name, flag in flags.items() if _is_within(setting, name) or _is_within(name, setting)]
    if not behind or problem["type"] == "extra_forbidden":
        return f"{where}: {first_problem(error, _EXAMPLE)}"
    message = _message(problem)
    if problem["type"] == "value_error":
        named = any(re.search(rf"{flag}\b", message) for flag in behind)
        return message if named else f"{' and '.join(behind)}: {message}"
    return f"{' and '.join(behind)} is {shortened(problem['input'])}: {message}"


def _is_within(setting: str, section: str) -> bool:
    return setting == section or setting.startswith(f"{section}.")


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses duplicate keys: the last one would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {shortened(key)}", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """The sections of a YAML file, none where it is empty; `example` names a file that shows what belongs there.

    Raises
    ------
    NaturelmError
        The file is missing or is not YAML, or it holds something other than sections.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except OSError as error:
        raise NaturelmError(
            f"{path}: cannot read the configuration ({error.strerror}); check its path"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise NaturelmError(
            f"{path}: {line}not valid YAML ({str(error.problem)[:200]}); fix the file"
        ) from None
    # ValueError: not UTF-8, a NUL in the path, a number of thousands of digits.
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())[:200]
        raise NaturelmError(f"{path}: not valid YAML ({problem}); fix the file") from None
    except RecursionError:
        raise NaturelmError(f"{path}: not valid YAML (nested too deeply); fix the file") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise NaturelmError(f"{path}: contains {type(raw).__name__}, not sections; see {example}")
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
    return raw | {"queries": [_with_examples(_with_label_file(query, path), path) for query in queries]}


def _with_examples(query: Any, path: Path) -> Any:
    """The same query, its examples' recordings found from the settings' own directory and identified."""
    examples = query.get("examples") if isinstance(query, dict) else None
    if not isinstance(examples, list):
        return query
    found = []
    for example in examples:
        if isinstance(example, dict) and isinstance(example.get("path"), str) and example["path"]:
            file = path.absolute().parent / example["path"]
            try:
                identity = file_recording_id(file, "")
            except OSError as error:
                raise NaturelmError(
                    f"{path}: query {query.get('id')!r} has the example {shortened(example['path'])}, which cannot be "
                    f"read ({error.strerror or error}); paths are relative to the settings file"
                ) from None
            example = example | {"path": str(file), "identity": identity}
        found.append(example)
    return query | {"examples": found}


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
    """Describe a validation error in one sentence: the setting, its value and what is wrong."""
    problem = error.errors(include_url=False)[0]
    setting = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {setting[:200]}; see {example} for the known ones"
    message = _message(problem)
    if problem["type"] == "value_error":
        return f"{setting}: {message}" if setting else message
    return f"{setting} is {shortened(problem['input'])}: {message}"


def _message(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    return message if problem["type"] == "value_error" else message[0].lower() + message[1:]


def shortened(value: object, limit: int = 200) -> str:
    """A value as an error message shows it: at most `limit` characters of its text or representation."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a structure that contains itself
        text = f"a value of type {type(value).__name__}"
    text = repr(text) if isinstance(value, str) else text
    return text if len(text) <= limit else f"{text[:limit]}…"
