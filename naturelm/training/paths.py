"""The paths in a training configuration: made absolute once, and looked for before anything slow begins.

Ray's workers have another working directory, so a relative path would mean another place there. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from naturelm.config.loading import read_yaml
from naturelm.errors import NaturelmError
from naturelm.models import presets
from naturelm.storage import is_url
from naturelm.text import one_line
from naturelm.training.settings import EXAMPLE, TrainConfig, parse

# Always a path; a model's name may also be that of a preset or of a model on the hub.
_PATHS = (("model", "beats"), ("data", "prompt_lists"), ("run", "storage"))
_LISTS = (
    *(("data", "manifests"), ("data", "prefix_manifests"), ("data", "shards"), ("data", "noise_folders")),
    ("evaluation", "manifests"),
)
_MODELS = ("checkpoint", "new", "llm")


def load_train_config(path: Path, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """Load a training configuration; `overrides` of the `run` section replace the file's, unless they are None.

    Relative paths in the file are taken from its own directory.

    Raises
    ------
    NaturelmError
        The file is missing, is not YAML, or a setting is unknown, missing or out of range, or needs Ray, without
        which the run is to train.
    """
    raw = with_absolute_paths(read_yaml(path, EXAMPLE), path.absolute().parent)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if isinstance(raw.get("run"), dict):
        raw["run"] = raw["run"] | given
        _check_ray(raw["run"], given, path)
    return parse(raw, str(path))


def _check_ray(run: dict[str, Any], given: dict[str, Any], path: Path) -> None:
    """Refuse settings that need Ray where the run is to train without, naming what set either."""
    if run.get("ray", True) is not False:
        return
    reason = "--no-ray was given" if "ray" in given else f"{path} has run.ray: false"
    for name in ("workers", "address", "shard"):
        value = run.get(name)
        if value and name in given:
            raise NaturelmError(f"--{name} needs Ray, but {reason}; leave --{name} out, or give --ray")
        if value:
            off = "false" if name == "shard" else "null"
            raise NaturelmError(
                f"{path}: run.{name} is {str(value).lower()}, which needs Ray, but {reason}; set run.{name}: {off}, "
                "or give --ray"
            )


def with_absolute_paths(raw: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The same settings, relative paths taken from `directory`; values of other types are left to validation."""
    sections = {name: dict(value) if isinstance(value, dict) else value for name, value in raw.items()}
    for section, name in _PATHS:
        values = sections.get(section)
        if isinstance(values, dict) and isinstance(values.get(name), str) and values[name]:
            values[name] = absolute(values[name], directory)
    for section, name in _LISTS:
        values = sections.get(section)
        if isinstance(values, dict) and isinstance(values.get(name), list):
            values[name] = [
                absolute(text, directory) if isinstance(text, str) and text else text for text in values[name]
            ]
    model = sections.get("model")
    if isinstance(model, dict):
        if isinstance(model.get("part_files"), dict):
            model["part_files"] = {
                part: absolute_model(place, directory) if isinstance(place, str) else place
                for part, place in model["part_files"].items()
            }
        for name in _MODELS:
            if isinstance(model.get(name), str):
                model[name] = absolute_model(model[name], directory)
    return sections


def absolute(text: str, directory: Path) -> str:
    """A path relative to `directory` as an absolute one; URLs stay as they are."""
    return text if is_url(text) else os.path.abspath(directory / os.path.expanduser(text))


def absolute_model(name: str, directory: Path) -> str:
    """A model's directory as an absolute path; the names of presets and of models on the hub stay as they are."""
    if not name.strip() or name in presets.PRESETS or is_url(name):
        return name
    path = absolute(name, directory)
    return name if presets.is_hub_id(name) and not os.path.exists(path) else path


def check_files(config: TrainConfig, where: Path) -> None:
    """Look for the files on disks that a configuration names; `where` is its own file.

    Raises
    ------
    NaturelmError
        One is missing; the message names its setting.
    """
    for name in ("checkpoint", "new", "llm"):
        model = getattr(config.model, name)
        if isinstance(model, str) and not is_url(model):
            _check_model(f"model.{name}", model, where)
    for setting, paths, exists in (
        ("model.beats", [config.model.beats] if config.model.beats else [], os.path.isfile),
        (
            "model.part_files",
            [place for place in config.model.part_files.values() if os.path.isabs(place)],
            os.path.exists,
        ),
        ("data.prompt_lists", [config.data.prompt_lists] if config.data.prompt_lists else [], os.path.isfile),
        ("data.manifests", config.data.manifests, os.path.isfile),
        ("data.shards", config.data.shards, os.path.exists),
        ("evaluation.manifests", config.evaluation.manifests, os.path.isfile),
        ("data.noise_folders", config.data.noise_folders, os.path.isdir),
    ):
        for path in _missing(paths, exists):
            kind = "file" if exists is os.path.isfile else "directory"
            raise NaturelmError(_sentence(setting, path, kind, where))


def _missing(paths: Iterable[str], exists: Any) -> Iterable[str]:
    return (path for path in paths if not is_url(path) and not exists(path))


def _check_model(setting: str, model: str, where: Path) -> None:
    if os.path.isabs(model) and not os.path.exists(model):
        raise NaturelmError(_sentence(setting, model, "directory", where))
    if not os.path.isabs(model) and model not in presets.PRESETS and os.path.exists(model):
        # A hub id that is also a directory here: the workers of a run would not find it.
        raise NaturelmError(
            f"{where}: {setting} is {model!r}, which is a directory here but not beside {where.name}; paths in a "
            "configuration are relative to its own directory: move it there, or give an absolute path"
        )


def _sentence(setting: str, path: str, kind: str, where: Path) -> str:
    return (
        f"{where}: {setting} names {one_line(path, 400)}, and there is no such {kind}; relative paths are taken from "
        f"the directory of {where.name}"
    )
