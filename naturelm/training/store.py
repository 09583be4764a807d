"""A run's storage: settings, checkpoints and metrics, in a directory or an object store.

A file appears whole or not at all; of a checkpoint's files `state.json` comes last, and its presence makes it one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml
from torch import Tensor

from naturelm.errors import NaturelmError
from naturelm.ids import settings_hash
from naturelm.results.analysis import differences
from naturelm.storage import Location, list_files, location, remove_directory, write_whole
from naturelm.training.settings import TrainConfig, parse

CONFIG_FILE = "config.yaml"
_STATE = "state.json"
_WEIGHTS = "trainable.safetensors"
_MOMENTS = "optimizer.safetensors"
_FILE = re.compile(r"step-(\d{8})/(.+)")


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
        Directory, or URL of an object store (`s3://bucket/run`, `gs://bucket/run`).

    Raises
    ------
    NaturelmError
        It is a URL of another kind.
    """

    def __init__(self, storage: str) -> None:
        self.storage = storage
        self.root: Location = location(storage)

    # -- the run ---------------------------------------------------------------------------------------------

    def begin(self, config: TrainConfig, resume: bool) -> int:
        """Claim the directory for a run, or resume the one it contains; returns the steps done so far.

        Raises
        ------
        NaturelmError
            It contains a run and `resume` is not set, or a run with other settings; or it cannot be used.
        """
        try:
            done = self._claim(config, resume)
        except OSError as error:
            raise NaturelmError(
                f"{self.storage}: cannot be used as storage ({error.strerror or error}); check run.storage"
            ) from None
        return done

    def _claim(self, config: TrainConfig, resume: bool) -> int:
        stored = self.config() if self._contains_run() else None
        done = self.latest() or 0
        if stored is not None:
            if not resume:
                raise NaturelmError(
                    f"{self.storage}: already contains a run, {done} steps of it in checkpoints; give --resume to "
                    "continue it, or another run.storage"
                )
            differing = list(differences(stored.result(), config.result()))
            if differing:
                raise NaturelmError(
                    f"{self.storage}: was started with other settings: {'; '.join(differing)}; give those, or another "
                    "run.storage"
                )
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        self.root.mkdir(parents=True, exist_ok=True)
        write_whole(self.root / CONFIG_FILE, text.encode())
        return done

    def config(self) -> TrainConfig:
        """The settings of the run.

        Raises
        ------
        NaturelmError
            The directory contains no run.
        """
        if not self._contains_run():
            raise NaturelmError(
                f"{self.storage}: contains no run ({CONFIG_FILE} is missing); give the directory of one"
            )
        return parse(yaml.safe_load((self.root / CONFIG_FILE).read_bytes()), f"{self.storage}/{CONFIG_FILE}")

    # -- checkpoints -----------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(step for step, names in self._begun().items() if _STATE in names)

    def latest(self) -> int | None:
        """Step of the last complete checkpoint."""
        return max(self.steps(), default=None)

    def save(
        self, state: RunState, weights: dict[str, Tensor], moments: dict[str, Tensor], keep: int
    ) -> None:
        """Write a checkpoint, then remove all but the last `keep`, the best, and unfinished ones."""
        from safetensors.torch import save

        where = self._checkpoint(state.step)
        where.mkdir(parents=True, exist_ok=True)
        write_whole(where / _WEIGHTS, save(weights))
        write_whole(where / _MOMENTS, save(moments))
        write_whole(where / _STATE, (json.dumps(asdict(state), indent=1) + "\n").encode())
        kept = {*self.steps()[-keep:], state.best.get("step")}
        for step in self._begun().keys() - kept:
            # Its state first: a half removed checkpoint must not count as complete.
            (self._checkpoint(step) / _STATE).unlink(missing_ok=True)
            remove_directory(self._checkpoint(step))

    def state(self, step: int) -> RunState:
        """The state of a checkpoint.

        Raises
        ------
        NaturelmError
            It cannot be read.
        """
        place = self._checkpoint(step) / _STATE
        try:
            return RunState(**json.loads(place.read_bytes()))
        except (ValueError, TypeError) as error:
            raise NaturelmError(f"{place}: cannot be read ({error}); remove that checkpoint") from None

    def weights(self, step: int) -> dict[str, Tensor]:
        """What trained, by name."""
        return _tensors(self._checkpoint(step) / _WEIGHTS)

    def moments(self, step: int) -> dict[str, Tensor]:
        """The optimizer's state."""
        return _tensors(self._checkpoint(step) / _MOMENTS)

    # -- metrics ---------------------------------------------------------------------------------------------

    def metrics(self, after: int = -1) -> Iterator[dict[str, Any]]:
        """Rows of the metrics in order of steps; `after` leaves out those up to a step."""
        parts = self._metrics()
        for (_, part), (end, _) in zip(parts, [*parts[1:], (math.inf, None)], strict=False):
            if end <= after:
                continue
            for line in part.read_text().splitlines():
                row = json.loads(line)
                if row["step"] > after:
                    yield row

    def write_metrics(self, since: int, rows: Iterable[dict[str, Any]]) -> None:
        """Write all rows since a checkpoint's step; rows are few, so their file is rewritten each time."""
        directory = self.root / "metrics"
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(
            directory / f"{since:08d}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()
        )

    def forget_metrics(self, since: int) -> None:
        """Remove the rows after a checkpoint's step: the steps will be repeated."""
        for begins, part in self._metrics():
            if begins >= since:
                part.unlink(missing_ok=True)

    def write_held_out(self, step: int, rows: Iterable[dict[str, Any]]) -> None:
        """Write an evaluation's figures by label."""
        directory = self.root / "held_out"
        directory.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_whole(directory / f"step-{step:08d}.jsonl", text.encode())

    # -- files -----------------------------------------------------------------------------------------------

    def _contains_run(self) -> bool:
        return (self.root / CONFIG_FILE).is_file()

    def _checkpoint(self, step: int) -> Location:
        return self.root / "checkpoints" / f"step-{step:08d}"

    def _begun(self) -> dict[int, set[str]]:
        """Names of the files that each checkpoint has, complete or not."""
        begun: dict[int, set[str]] = {}
        for file in list_files(self.root / "checkpoints", recursive=True):
            match = _FILE.fullmatch(file.relative_path)
            if match:
                begun.setdefault(int(match[1]), set()).add(match[2])
        return begun

    def _metrics(self) -> list[tuple[int, Location]]:
        """Files of metrics in order, and the step that each begins after."""
        found = (file.location for file in list_files(self.root / "metrics"))
        return [(int(part.name.removesuffix(".jsonl")), part) for part in found if part.suffix == ".jsonl"]


def _tensors(place: Location) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(place.read_bytes())
    except (OSError, SafetensorError) as error:
        raise NaturelmError(f"{place}: cannot be read ({error}); remove that checkpoint") from None


def config_hash(config: TrainConfig) -> str:
    """Hash of the settings that determine the weights."""
    return settings_hash(config.result())
