"""Where a run is kept: settings, checkpoints and metrics, in a directory or an object store.

A file appears whole or not at all; of a checkpoint's files `state.json` comes last, and its presence makes it one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.fs as pafs
import yaml
from torch import Tensor

from naturelm.errors import NaturelmError
from naturelm.ids import settings_hash
from naturelm.training.config import TrainConfig, parse

CONFIG_FILE = "config.yaml"
_STATE = "state.json"
_WEIGHTS = "trainable.safetensors"
_MOMENTS = "optimizer.safetensors"
_STEP = re.compile(r"step-(\d{8})")


@dataclass
class RunState:
    """How far a run has come, beside its weights.

    Attributes
    ----------
    step : int
        Steps taken; with the seed it is also the position in the data.
    seed : int
        Of data, dropout and new weights.
    settings : str
        Hash of the settings that determine the weights.
    skipped, skipped_in_a_row : int
        Steps whose loss was not finite.
    metrics : dict
        Of the evaluation at this step; empty where there was none.
    best : dict
        Step and value of the best evaluation so far; empty before the first.
    """

    step: int
    seed: int
    settings: str
    skipped: int = 0
    skipped_in_a_row: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)


class RunStore:
    """A run's directory.

    Parameters
    ----------
    storage
        Directory, or URL of an object store (`s3://bucket/run`).
    """

    def __init__(self, storage: str) -> None:
        self.storage = storage
        try:
            self._fs, self._root = _file_system(storage)
        except (ValueError, OSError, ImportError) as error:
            reason = str(error).split("\n", 1)[0]
            raise NaturelmError(
                f"{storage}: cannot be used as storage ({reason}); check run.storage"
            ) from None
        self._root = self._root.rstrip("/")

    @property
    def directory(self) -> Path | None:
        """Where it lies on this machine's file system; None in an object store."""
        return Path(self._root) if isinstance(self._fs, pafs.LocalFileSystem) else None

    # -- the run ---------------------------------------------------------------------------------------------

    def begin(self, config: TrainConfig, resume: bool) -> int:
        """Claim the directory for a run, or go on with the one it holds; returns the steps done so far.

        Raises
        ------
        NaturelmError
            It holds a run and `resume` is not set, or a run with other settings.
        """
        stored = self.config() if self._exists(CONFIG_FILE) else None
        if stored is not None:
            if not resume:
                raise NaturelmError(
                    f"{self.storage}: holds a run already, {self.latest() or 0} steps of it in checkpoints; give "
                    "--resume to go on with it, or another run.storage"
                )
            differing = list(_differences(stored.result(), config.result()))
            if differing:
                raise NaturelmError(
                    f"{self.storage}: was begun with other settings: {'; '.join(differing)}; give those, or another "
                    "run.storage"
                )
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        try:
            self.write_file(CONFIG_FILE, text.encode())
        except OSError as error:
            raise NaturelmError(
                f"{self.storage}: cannot be written ({error.strerror or error}); check run.storage"
            ) from None
        return self.latest() or 0

    def config(self) -> TrainConfig:
        """The settings of the run.

        Raises
        ------
        NaturelmError
            There is no run here.
        """
        if not self._exists(CONFIG_FILE):
            raise NaturelmError(
                f"{self.storage}: holds no run ({CONFIG_FILE} is missing); give the directory of one"
            )
        return parse(yaml.safe_load(self._read(CONFIG_FILE)), f"{self.storage}/{CONFIG_FILE}")

    # -- checkpoints -----------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(step for step in self._begun() if self._exists(f"{_checkpoint(step)}/{_STATE}"))

    def latest(self) -> int | None:
        """Step of the last complete checkpoint."""
        return max(self.steps(), default=None)

    def save(
        self, state: RunState, weights: dict[str, Tensor], moments: dict[str, Tensor], keep: int
    ) -> None:
        """Write a checkpoint, then remove all but the last `keep`, the best, and what was never finished."""
        from safetensors.torch import save

        where = _checkpoint(state.step)
        self.write_file(f"{where}/{_WEIGHTS}", save(weights))
        self.write_file(f"{where}/{_MOMENTS}", save(moments))
        self.write_file(f"{where}/{_STATE}", (json.dumps(asdict(state), indent=1) + "\n").encode())
        kept = {*self.steps()[-keep:], state.best.get("step")}
        for step in self._begun():
            if step not in kept:
                # Its state first: what is half removed is no checkpoint any more.
                self._remove(f"{_checkpoint(step)}/{_STATE}")
                self._fs.delete_dir(f"{self._root}/{_checkpoint(step)}")

    def state(self, step: int) -> RunState:
        """The state of a checkpoint.

        Raises
        ------
        NaturelmError
            It cannot be read.
        """
        where = f"{_checkpoint(step)}/{_STATE}"
        try:
            return RunState(**json.loads(self._read(where)))
        except (ValueError, TypeError) as error:
            raise NaturelmError(
                f"{self.storage}/{where}: cannot be read ({error}); remove that checkpoint"
            ) from None

    def weights(self, step: int) -> dict[str, Tensor]:
        """What trained, by name."""
        return self._tensors(f"{_checkpoint(step)}/{_WEIGHTS}")

    def moments(self, step: int) -> dict[str, Tensor]:
        """The optimizer's state."""
        return self._tensors(f"{_checkpoint(step)}/{_MOMENTS}")

    # -- metrics ---------------------------------------------------------------------------------------------

    def metrics(self, after: int = -1) -> Iterator[dict[str, Any]]:
        """Rows of the metrics in order of steps; `after` leaves out those up to a step."""
        parts = sorted(self._files("metrics"))
        for place, name in enumerate(parts):
            if place + 1 < len(parts) and int(parts[place + 1].removesuffix(".jsonl")) <= after:
                continue
            for line in self._read(f"metrics/{name}").decode().splitlines():
                row = json.loads(line)
                if row["step"] > after:
                    yield row

    def write_metrics(self, since: int, rows: Iterable[dict[str, Any]]) -> None:
        """Write all rows since a checkpoint's step; rows are few, so their file is written again and again."""
        self.write_file(
            f"metrics/{since:08d}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()
        )

    def forget_metrics(self, since: int) -> None:
        """Remove the rows after a checkpoint's step: the steps are taken again."""
        for name in self._files("metrics"):
            if int(name.removesuffix(".jsonl")) >= since:
                self._remove(f"metrics/{name}")

    def write_file(self, name: str, content: bytes) -> None:
        """Write any other file, whole or not at all: renamed into place; on an object store a PUT is that already."""
        if self.directory is None:
            with self._fs.open_output_stream(f"{self._root}/{name}") as stream:
                stream.write(content)
            return
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    # -- files -----------------------------------------------------------------------------------------------

    def _begun(self) -> list[int]:
        selector = pafs.FileSelector(f"{self._root}/checkpoints", allow_not_found=True)
        names = (_STEP.fullmatch(info.base_name) for info in self._fs.get_file_info(selector))
        return [int(name.group(1)) for name in names if name]

    def _files(self, directory: str) -> list[str]:
        selector = pafs.FileSelector(f"{self._root}/{directory}", allow_not_found=True)
        return [info.base_name for info in self._fs.get_file_info(selector) if ".tmp" not in info.base_name]

    def _exists(self, name: str) -> bool:
        return self._fs.get_file_info(f"{self._root}/{name}").type == pafs.FileType.File

    def _read(self, name: str) -> bytes:
        with self._fs.open_input_stream(f"{self._root}/{name}") as file:
            return file.read()

    def _remove(self, name: str) -> None:
        if self._exists(name):
            self._fs.delete_file(f"{self._root}/{name}")

    def _tensors(self, name: str) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._read(name))
        except (OSError, SafetensorError) as error:
            raise NaturelmError(
                f"{self.storage}/{name}: cannot be read ({error}); remove that checkpoint"
            ) from None


def config_hash(config: TrainConfig) -> str:
    """Hash of the settings that determine the weights."""
    return settings_hash(config.result())


def _file_system(storage: str) -> tuple[pafs.FileSystem, str]:
    """pyarrow's own file systems, or else any that fsspec knows."""
    if "://" not in storage:
        return pafs.LocalFileSystem(), os.path.abspath(storage)
    try:
        return pafs.FileSystem.from_uri(storage)
    except pa.ArrowInvalid:
        system, root = fsspec.core.url_to_fs(storage)
        return pafs.PyFileSystem(pafs.FSSpecHandler(system)), root


def _checkpoint(step: int) -> str:
    return f"checkpoints/step-{step:08d}"


def _differences(stored: Any, given: Any, where: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*stored, *(key for key in given if key not in stored)]:
            yield from _differences(stored.get(key), given.get(key), f"{where}.{key}" if where else str(key))
    elif stored != given:
        yield f"{where} was {str(stored)[:60]} and is {str(given)[:60]}"
