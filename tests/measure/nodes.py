"""Several Ray nodes on one machine, and a model that sleeps: python -m tests.measure.nodes WORKDIR [CASE...]

Prints segments a second with one node and with two, then what becomes of a run one of whose nodes is killed, and of
one that a node joins; the published files are compared with those of a run without Ray.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from naturelm.archive.job import process_archive
from naturelm.config.loading import load_archive_config
from tests.archive.faults import committed, wait_until
from tests.archive.runs import published, quiet, staged
from tests.archive.stub_model import SLEEP_S, StubAsk
from tests.archive.stub_runs import record

RECORDINGS = 60
SEGMENTS = 4 * RECORDINGS
NODE = {"num_cpus": 2, "memory": 4 << 30, "object_store_memory": 1 << 30}
# Ray counts GPUs that are declared to it; the model that sleeps needs none.
GPU_NODE = NODE | {"num_cpus": 6, "num_gpus": 1}


def config(**job: Any) -> Any:
    windows = {"length_s": 5.0, "hop_s": 2.5}
    return load_archive_config(None, {"job": {"segment_minutes": 0.5} | job, "windows": windows})


def measure(archive: Path, out: Path, nodes: int, what: str, **job: Any) -> tuple[float, dict[str, bytes]]:
    """Run once; returns segments a second from the first one committed on, and the published files."""
    node = GPU_NODE if what == "gpu" else NODE
    cluster = Cluster(initialize_head=True, head_node_args=node)
    others = [cluster.add_node(**NODE) for _ in range(nodes - 1)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    first: list[tuple[float, int]] = []

    def meddle() -> None:
        wait_until(lambda: committed(out) >= 4)
        first.append((time.monotonic(), committed(out)))
        if what in ("kill", "join"):
            wait_until(lambda: committed(out) >= SEGMENTS // 4)
        if what == "kill":
            cluster.remove_node(others[0], allow_graceful=False)
        elif what == "join":
            cluster.add_node(**NODE)

    thread = threading.Thread(target=meddle, daemon=True)
    thread.start()
    try:
        counts = process_archive([archive], out, config(**job), quiet(), make_ask=StubAsk)
        ended = time.monotonic()
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert (counts.segments, counts.left, staged(out)) == (SEGMENTS, 0, [])
    (began, before) = first[0]
    return (SEGMENTS - before) / (ended - began), published(out)


def main() -> None:
    work = Path(sys.argv[1])
    shutil.rmtree(work, ignore_errors=True)
    archive = work / "archive"
    for number in range(RECORDINGS):
        record(archive / f"S{number % 3}/S_2026052{number % 9}_0{number // 9}0000.wav", number, 95.0)
    process_archive([archive], work / "alone", config(workers=0), quiet(), make_ask=StubAsk)
    wanted = published(work / "alone")
    os.environ[SLEEP_S] = "1.0"
    cases: list[tuple[str, int, str, dict[str, Any]]] = [
        ("1 node", 1, "nothing", {}),
        ("2 nodes", 2, "nothing", {}),
        ("2 nodes, one SIGKILLed after a quarter", 2, "kill", {}),
        ("1 node with one logical GPU", 1, "gpu", {}),
        ("the same, gpus_per_worker: 0.25", 1, "gpu", {"gpus_per_worker": 0.25}),
        ("1 node, one joins after a quarter (max_workers: 4)", 1, "join", {"max_workers": 4}),
    ]
    for number, (name, nodes, what, job) in enumerate(cases):
        if len(sys.argv) > 2 and not any(word in name for word in sys.argv[2:]):
            continue
        began = time.monotonic()
        rate, files = measure(archive, work / f"out{number}", nodes, what, **job)
        same = "identical" if files == wanted else "DIFFERENT"
        print(
            f"| {name} | {rate:.2f} segments/s | {time.monotonic() - began:.0f} s in all | {same} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
