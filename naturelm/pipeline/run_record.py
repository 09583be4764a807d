"""`_runs/<start>.json`: what ran where, on what, and how it went."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from naturelm import __version__
from naturelm.config import ArchiveConfig
from naturelm.pipeline.commit import RUNS, write_whole
from naturelm.pipeline.counts import Counts
from naturelm.recordings import Recording
from naturelm.schemas import SCHEMA_VERSION

_VERSIONS_OF = ("torch", "transformers", "peft", "ray", "pyarrow", "soundfile", "soxr")


class RunRecord:
    """`_runs/<start>.json`: what ran where, on what, and how it went."""

    def __init__(
        self,
        out: Path,
        paths: Sequence[Path],
        recordings: Sequence[Recording],
        config: ArchiveConfig,
        analysis_hash: str,
    ) -> None:
        started = dt.datetime.now(dt.UTC)
        self._path = out / RUNS / f"{started:%Y%m%dT%H%M%S.%fZ}.json"
        self._record: dict[str, Any] = {
            "status": "running",
            "started": started.isoformat(),
            "paths": [str(path) for path in paths],
            "roots": sorted({recording.root for recording in recordings}),
            "analysis": analysis_hash,
            "schema_version": SCHEMA_VERSION,
            "config": config.model_dump(mode="json"),
            "versions": {"naturelm": __version__, "python": platform.python_version(), **_versions()},
            "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        }
        self._write()

    def finish(self, counts: Counts, complete: bool) -> None:
        self._record |= {
            "status": "complete" if complete else "interrupted",
            "finished": dt.datetime.now(dt.UTC).isoformat(),
            "counts": {field.name: getattr(counts, field.name) for field in fields(counts)}
            | {"times_real_time": counts.times_real_time},
        }
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._record, indent=2, ensure_ascii=False)
        write_whole(self._path, text.encode("utf-8", "surrogateescape"))


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS_OF:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
