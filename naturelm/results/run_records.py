"""`_runs/<start>.json`: what ran where, on what, and how it went."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from naturelm import __version__
from naturelm.config.archive import ArchiveConfig
from naturelm.machine import memory_bytes, processor, read_gpus, usable_cores
from naturelm.recordings import Recording
from naturelm.results.layout import RUNS
from naturelm.results.schemas import SCHEMA_VERSION
from naturelm.storage import Location, list_files, write_whole

UPDATE_EVERY_S = 20.0
"""How often a run writes down how far it has come."""

_VERSIONS_OF = ("torch", "transformers", "peft", "ray", "pyarrow", "soundfile", "soxr")


class RunRecord:
    """`_runs/<start>.json`: what ran where, on what, and how it went."""

    def __init__(
        self,
        out: Location,
        paths: Sequence[Location],
        recordings: Sequence[Recording],
        config: ArchiveConfig,
        analysis_hash: str,
    ) -> None:
        started = dt.datetime.now(dt.UTC)
        self._path = out / RUNS / f"{started:%Y%m%dT%H%M%S.%fZ}.json"
        self._record: dict[str, Any] = {
            "status": "running",
            "started": started.isoformat(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "paths": [str(path) for path in paths],
            "roots": sorted({recording.root for recording in recordings}),
            "analysis": analysis_hash,
            "schema_version": SCHEMA_VERSION,
            "config": config.model_dump(mode="json"),
            "versions": {"naturelm": __version__, "python": platform.python_version(), **_versions()},
            "commit": _commit(),
            "hardware": hardware(),
        }
        self._write()

    def progress(self, figures: Mapping[str, Any]) -> None:
        """Write down how far the run has come, for `naturelm status` and for whoever finds it dead."""
        self._record |= {"updated": dt.datetime.now(dt.UTC).isoformat(), "progress": dict(figures)}
        self._write()

    def finish(self, counts: Mapping[str, Any], complete: bool) -> dict[str, Any]:
        """Write down how it went, and return that."""
        outcome = {
            "status": "complete" if complete else "interrupted",
            "finished": dt.datetime.now(dt.UTC).isoformat(),
            "counts": dict(counts),
        }
        self._record |= outcome
        self._write()
        return outcome

    def _write(self) -> None:
        text = json.dumps(self._record, indent=2, ensure_ascii=False)
        write_whole(self._path, text.encode("utf-8", "surrogateescape"))


def read_records(directory: Location) -> Iterator[dict[str, Any]]:
    """The runs' records, newest first; those that a killed run left damaged are left out."""
    for file in reversed(list_files(directory / RUNS)):
        if not file.relative_path.endswith(".json"):
            continue
        record: Any = None
        with suppress(OSError, ValueError):
            # As it is written: paths may hold any bytes.
            record = json.loads(file.location.read_bytes().decode("utf-8", "surrogateescape"))
        if isinstance(record, dict):
            yield record


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS_OF:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The git commit that the program runs from, with `+` where files differ from it; None where it is installed."""
    package = Path(__file__).resolve().parents[1]
    git = shutil.which("git")
    if git is None or not (package.parent / ".git").exists():
        return None
    outputs = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", package.name]):
        done = subprocess.run(
            [git, "-C", str(package.parent), *command], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return None
        outputs.append(done.stdout.strip())
    return outputs[0] + ("+" if outputs[1] else "")


def hardware() -> dict[str, Any]:
    """The machine that the run was started on."""
    memory = memory_bytes()
    return {
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gib": None if memory is None else round(memory / 2**30, 1),
        "gpus": [gpu.name for gpu in read_gpus()],
        "system": f"{platform.system()} {platform.release()}",
    }
