"""Manifests as shards: the sound of every row beside its question, in the columns of the hub's data sets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from naturelm.audio.streaming import DecodeError
from naturelm.errors import NaturelmError
from naturelm.training.manifest import Example
from naturelm.training.pieces import claimed_s, piece
from naturelm.training.shards import SOUND_MARK
from naturelm.windows import SAMPLE_RATE_HZ

SHARD_ROWS = 2500
LONGEST_S = 600.0

_GROUP_ROWS = 50
_SCHEMA = pa.schema(
    [
        ("audio", pa.list_(pa.float32())),
        ("id", pa.string()),
        ("metadata", pa.string()),
        ("file_name", pa.string()),
        ("instruction", pa.string()),
        ("instruction_text", pa.string()),
        ("output", pa.string()),
        ("task", pa.string()),
        ("dataset_name", pa.string()),
    ]
)


def write_shards(examples: Sequence[Example], out: Path, name: str) -> list[Path]:
    """Write shards of 2,500 rows into a new or empty directory; returns their paths.

    Parameters
    ----------
    examples
        Rows of a manifest.
    out
        Directory.
    name
        Of the data set.

    Raises
    ------
    NaturelmError
        `out` is not empty or cannot be written, or a recording cannot be decoded or is longer than ten minutes.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NaturelmError(f"{out}: is not empty; give --out a new directory")
    written: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(_parts(examples, SHARD_ROWS)):
            path = out / f"shard-{number:05d}.parquet"
            temporary = path.with_name(f"{path.name}.tmp")
            with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
                for rows in _parts(part, _GROUP_ROWS):
                    writer.write_table(
                        pa.Table.from_pylist([_row(row, name) for row in rows], schema=_SCHEMA)
                    )
            os.replace(temporary, path)
            written.append(path)
    except OSError as error:
        raise NaturelmError(f"{out}: cannot be written ({error.strerror or error}); check --out") from None
    return written


def _parts(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    return (examples[start : start + size] for start in range(0, len(examples), size))


def _row(example: Example, name: str) -> dict[str, Any]:
    if example.following or not example.prompt:
        raise NaturelmError(
            f"row {example.id}: has {'expand_wav' if example.following else 'no prompt'}, which shards do not hold; "
            "train on the manifest itself"
        )
    try:
        seconds = example.span[1] - example.span[0] if example.span else claimed_s(example.path)
        if seconds > LONGEST_S:
            raise NaturelmError(
                f"{example.path}: {seconds:.0f} s of sound in one row; give the part of each row by start_s and end_s, "
                f"at most {LONGEST_S:.0f} s"
            )
        sound = piece(example.path, seconds, 0.0, example.span)
    except DecodeError as error:
        raise NaturelmError(f"{example.path}: {error}; leave it out of the manifest") from None
    return {
        "audio": sound,
        "id": example.id,
        "metadata": json.dumps(
            {"sample_rate": SAMPLE_RATE_HZ, "duration": round(len(sound) / SAMPLE_RATE_HZ, 4)}
        ),
        "file_name": os.path.basename(example.path),
        "instruction": f"{SOUND_MARK} {example.prompt}",
        "instruction_text": example.prompt,
        "output": example.text,
        "task": example.task,
        "dataset_name": name,
    }
