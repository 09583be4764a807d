"""The archive job as clusters start it, with a real Ray: python -m tests.measure.cluster WORKDIR

`configs/cluster/slurm.sh` over two Ray nodes (Slurm's own commands run here what they are given), interrupted as Slurm
does and submitted again; and `jobs/process_archive.py` by `ray job submit`. The published files are compared with those
of a run without Ray. Then `jobs/train.py`, two workers, with recordings and checkpoints in an object store; its loss
curve is compared with that of one process on a disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from naturelm.storage import list_files, location, write_whole
from naturelm.synthetic.nights import make_night
from tests.archive.faults import committed, start, wait_for_exit, wait_until
from tests.archive.runs import published, staged
from tests.object_store import ObjectStore
from tests.paths import REPO
from tests.training.runs import config, losses, make_manifest, make_shape, run, settings, write_config

BIN = Path(sys.executable).parent
SHIMS = {
    "scontrol": "echo node-1; echo node-2",
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
}
SETTINGS = "job: {segment_minutes: 0.5, batch_size: 4}\ngeneration: {max_new_tokens: 16}\n"


def environment(work: Path) -> dict[str, str]:
    return os.environ | {"PATH": f"{work}/bin:{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(REPO)}


def slurm(work: Path, out: Path, number: int, interrupt_at: int | None = None) -> tuple[int, str]:
    """Run the batch script as Slurm does; returns its exit code and output."""
    env = environment(work) | {
        "SLURM_JOB_ID": str(os.getpid() + number),
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_GPUS_ON_NODE": "0",
        "ARCHIVE": str(work / "archive"),
        "OUT": str(out),
    }
    command = [REPO / "configs/cluster/slurm.sh", "--config", work / "archive.yaml"]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        if interrupt_at is not None:
            wait_until(lambda: committed(out) >= interrupt_at, process)
            process.send_signal(signal.SIGINT)
        # Ray's processes keep the pipe open: the script's own end counts.
        code = process.wait(600)
    finally:
        # Slurm ends the steps of a job with it.
        os.killpg(process.pid, signal.SIGTERM)
    return code, process.communicate(timeout=60)[0]


@contextmanager
def ray_head(env: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster of one node; yields where it takes jobs, and the environment that may reach it."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        port, dashboard = first.getsockname()[1], second.getsockname()[1]
    env = env | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(16).hex()}
    options = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2", "--block"]
    head = subprocess.Popen(
        ["ray", "start", *options],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{dashboard}", env
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(60)


def submitted(env: dict[str, str], *job: object) -> tuple[int, str]:
    """Run a script by `ray job submit`; returns its exit code and output."""
    with ray_head(env) as (address, reaching):
        deadline = time.monotonic() + 120
        while True:
            done = subprocess.run(
                ["ray", "job", "submit", "--address", address, "--", "python", *job],
                env=reaching,
                cwd=REPO,
                capture_output=True,
                text=True,
            )
            if (
                "Could not connect" not in done.stdout + done.stderr
                and "Failed to connect" not in done.stderr
            ):
                return done.returncode, done.stdout + done.stderr
            if time.monotonic() > deadline:
                raise AssertionError(done.stderr)
            time.sleep(1)


def trained(work: Path) -> None:
    """Train a tiny model of code-made sounds by the job script, and in this process."""
    shape, manifest = make_shape(work / "tiny"), make_manifest(work / "sounds")
    changes = {"optimisation": {"steps": 40}}
    run(config(shape, manifest, work / "one", **changes))
    store = ObjectStore()
    try:
        os.environ |= store.environment
        where = {"LocationConstraint": os.environ["AWS_REGION"]}
        boto3.client("s3").create_bucket(Bucket="season", CreateBucketConfiguration=where)
        for file in list_files(manifest.parent):
            write_whole(location("s3://season/sounds") / file.relative_path, file.location.read_bytes())
        values = settings(shape, Path("unused"), "s3://season/run", run={"ray": True}, **changes)
        values["data"]["manifests"] = [f"s3://season/sounds/{manifest.name}"]
        path = write_config(work / "train.yaml", values)
        began = time.monotonic()
        code, output = submitted(environment(work), "jobs/train.py", path, "--workers", "2", "--resume")
        here, there = losses(work / "one"), losses("s3://season/run")
        same = here.keys() == there.keys()
        apart = max(abs(here[step] - there[step]) for step in here) if same else float("nan")
        result = f"curves differ by {apart:.1e} at most" if same and code == 0 else f"DIFFERENT {output}"
        print(
            f"| jobs/train.py, S3 | exit code {code} | {result} | {time.monotonic() - began:.0f} s |",
            flush=True,
        )
    finally:
        store.stop()


def main() -> None:
    work = Path(sys.argv[1])
    shutil.rmtree(work, ignore_errors=True)
    for name, body in SHIMS.items():
        path = work / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    for night in range(4):
        make_night(work / "archive" / f"night{night}", seed=night)
    (work / "archive.yaml").write_text(SETTINGS)
    options = ["--config", str(work / "archive.yaml"), "--workers", "0"]
    code, output = wait_for_exit(start("pocket", work / "archive", work / "alone", *options))
    assert code == 0, output
    wanted = published(work / "alone")

    def record(name: str, out: Path, codes: str, output: str, began: float) -> None:
        same = "identical" if published(out) == wanted and not staged(out) else f"DIFFERENT {output}"
        print(f"| {name} | exit code {codes} | {same} | {time.monotonic() - began:.0f} s |", flush=True)

    began, out = time.monotonic(), work / "slurm"
    first, _ = slurm(work, out, 0, interrupt_at=4)
    left = "all" if published(out) == wanted else "not all"
    second, output = slurm(work, out, 1)
    codes = f"{first} ({left} done), then {second}"
    record("slurm.sh, two nodes, interrupted and submitted again", out, codes, output, began)

    began, out = time.monotonic(), work / "submitted"
    job = ["jobs/process_archive.py", work / "archive", "--out", out, "--config", work / "archive.yaml"]
    code, output = submitted(environment(work), *job)
    record("jobs/process_archive.py by `ray job submit`", out, str(code), output, began)

    trained(work)


if __name__ == "__main__":
    main()
