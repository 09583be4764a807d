"""Memory, speed and order of the reader of packed training sets, on as many rows as the released set has.

python -m tests.measure.training_shards DIRECTORY    # 30 shards of 2,500 rows are made there, if they are missing

Rows are reached by repetition: the same files are listed until there are 26.4 million. Four of the 30 files are
different, the others are links to them.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from naturelm.training.data import Stream
from naturelm.training.data_settings import DataSettings
from naturelm.training.shards import ShardRows, find_shards, open_shards

SHARDS, ROWS, DIFFERENT = 30, 2500, 4
WANTED = 26_400_000
RATE_HZ, SECONDS = 16_000, 10
BATCH, STEPS = 16, 100


def make(directory: Path) -> None:
    """Shards whose sound is noise and tones, of 16 bits, so that it packs about as recordings do."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    schema = pa.schema([("audio", pa.list_(pa.float32()))] + [(n, pa.string()) for n in _row(0, 0)])
    for shard in range(SHARDS):
        path = directory / f"train-{shard:05d}.parquet"
        if shard >= DIFFERENT:
            os.link(directory / f"train-{shard % DIFFERENT:05d}.parquet", path)
            continue
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, ROWS, 100):
                rows = []
                for number in range(start, start + 100):
                    sound = np.rint(rng.normal(0, 20, RATE_HZ * SECONDS)).astype(np.float32) / 32768
                    rows.append({"audio": sound} | _row(shard, number))
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _row(shard: int, number: int) -> dict[str, str]:
    return {
        "id": f"{shard}-{number}",
        "metadata": json.dumps({"sample_rate": RATE_HZ}),
        "instruction_text": "What are the common names for the species in the audio, if any?",
        "output": "Owl",
        "task": "common-detection",
    }


def read(rows: ShardRows, first: int, last: int) -> list[str]:
    """Digests of the examples of some steps."""
    stream = Stream([], DataSettings(shards=("s",)), 0, rows)
    return [
        hashlib.blake2b(loaded.id.encode() + loaded.waveform.tobytes(), digest_size=8).hexdigest()
        for step in range(first, last)
        for loaded in map(stream.load, stream.specs(step, BATCH))
    ]


def main(directory: Path) -> None:
    if not directory.exists():
        make(directory)
        print(f"made: {sum(f.stat().st_size for f in directory.iterdir()) / SHARDS / 1e6:.0f} MB a shard")
    began = time.monotonic()
    shards = open_shards([str(directory)], 0, 512, SECONDS, True)
    print(f"{len(shards)} rows of {SHARDS} shards opened in {time.monotonic() - began:.2f} s")
    paths = find_shards([str(directory)])
    times = -(-WANTED // len(shards))
    began = time.monotonic()
    many = ShardRows(paths * times, [ROWS] * (len(paths) * times), 0, 512, SECONDS, True)
    print(f"{len(many):,} rows by listing them {times} times, {time.monotonic() - began:.2f} s")
    before_s, began = time.process_time(), time.monotonic()
    whole = read(many, 0, STEPS)
    cpu_s, wall_s = time.process_time() - before_s, time.monotonic() - began
    print(f"{len(whole)} examples: {len(whole) / cpu_s:.0f} per CPU-second, {wall_s:.1f} s by the clock")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    again = ShardRows(paths * times, [ROWS] * (len(paths) * times), 0, 512, SECONDS, True)
    assert read(again, STEPS - 5, STEPS) == whole[-5 * BATCH :]
    print(f"resumed at step {STEPS - 5}: the same examples")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
