"""An object store beside a disk: python -m tests.measure.store WORKDIR

Listing 20,000 keys; and the job over the same eight hours of recordings on a disk and in a store, with how many
requests it sent. The store is moto's server on this machine: its own time counts, a network's does not.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import numpy as np
import soundfile

from naturelm.archive.job import process_archive
from naturelm.config.loading import load_archive_config
from naturelm.storage import Location, list_files, location, write_whole
from tests.archive.runs import quiet
from tests.archive.stub_model import StubAsk
from tests.object_store import ObjectStore

KEYS = 20_000
RECORDINGS, SECONDS, RATE_HZ = 48, 600, 32_000
CONFIG = load_archive_config(None, {"job": {"workers": 0, "segment_minutes": 5.0}})


def job(archive: Location, out: Location) -> None:
    counts = process_archive([archive], out, CONFIG, quiet(), make_ask=StubAsk)
    done = counts.recordings
    assert (done["ok"] + done["done before"], counts.left) == (RECORDINGS, 0), done


def measure(what: str, work: Callable[[], object], store: ObjectStore) -> None:
    asked, began = len(store.requests()), time.monotonic()
    work()
    seconds = time.monotonic() - began
    kinds = Counter(line.split()[0] for line in store.requests()[asked:])
    requests = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    print(f"| {what} | {seconds:.1f} s | {requests or 'none'} |", flush=True)


def main() -> None:
    work = Path(sys.argv[1])
    shutil.rmtree(work, ignore_errors=True)
    for number in range(RECORDINGS):
        path = work / f"archive/S{number % 4}/S_202605{number // 8 + 1:02d}_{number % 8:02d}0000.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, SECONDS * RATE_HZ)
        soundfile.write(path, noise.astype(np.float32), RATE_HZ, "PCM_16")
    store = ObjectStore()
    try:
        os.environ |= store.environment
        where = {"LocationConstraint": os.environ["AWS_REGION"]}
        boto3.client("s3").create_bucket(Bucket="night", CreateBucketConfiguration=where)
        many, archive, out = (location(f"s3://night/{name}") for name in ("many", "archive", "out"))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: write_whole(many / f"{key:06d}.wav", b""), range(KEYS)))
        for file in list_files(work / "archive", recursive=True):
            write_whole(archive / file.relative_path, file.location.read_bytes())
        measure(f"listing {KEYS:,} keys", lambda: list_files(many, recursive=True), store)
        measure("disk", lambda: job(work / "archive", work / "out"), store)
        measure("disk, nothing to do", lambda: job(work / "archive", work / "out"), store)
        measure("store", lambda: job(archive, out), store)
        measure("store, nothing to do", lambda: job(archive, out), store)
    finally:
        store.stop()


if __name__ == "__main__":
    main()
