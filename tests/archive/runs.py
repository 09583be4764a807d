"""Runs of the job for tests, and what they wrote."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from naturelm.archive.figures import Counts
from naturelm.archive.job import process_archive
from naturelm.archive.progress import Progress
from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load_archive_config

# Short answers: what they say is tested with the model.
SETTINGS = {
    "queries": [
        {"id": "species", "prompt": "What are the common names for the species in the audio, if any?"},
        {"id": "caption", "prompt": "Caption the audio.", "kind": "caption"},
    ],
    "generation": {"max_new_tokens": 8},
    "job": {"workers": 0, "segment_minutes": 0.5},
}
CONFIG = load_archive_config(None, SETTINGS)


def run(paths: Sequence[Path], out: Path, config: ArchiveConfig = CONFIG) -> Counts:
    return process_archive(paths, out, config, quiet())


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def table(out: Path, name: str) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(p, partitioning=None) for p in sorted(out.glob(f"{name}/**/*.parquet"))]
    )


def published(out: Path) -> dict[str, bytes]:
    files = [path for path in out.rglob("*.parquet") if not path.relative_to(out).parts[0].startswith("_")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def staged(out: Path) -> list[Path]:
    return [path for path in (out / "_staging").rglob("*") if path.is_file()]
