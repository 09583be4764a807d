"""The files in configs/cluster hold what those who read them ask for, and name what this project has."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from naturelm.cli import main
from tests.paths import DATA, REPO

CLUSTER = REPO / "configs/cluster"
KUBERAY = json.loads((DATA / "kuberay-fields.json").read_text())
BIN = Path(sys.executable).parent


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"].get("rayClusterSpec", document["spec"])


def groups(document: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(document)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def check(document: dict[str, Any]) -> None:
    jsonschema.validate(document, KUBERAY, jsonschema.Draft202012Validator)
    for group in groups(document):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.30", strict=True)


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_manifest_has_the_fields_that_kuberay_and_kubernetes_publish(name: str) -> None:
    check(manifest(name))


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "backofLimit"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"),
        ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "serviceAcountName"),
        ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "command_"),
    ],
)
def test_misspelt_field_is_found(path: tuple[str | int, ...]) -> None:
    document = copy.deepcopy(manifest("rayjob.yaml"))
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = 3
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(document)


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_pods_agree_with_themselves_and_with_the_image(name: str) -> None:
    document = manifest(name)
    assert cluster_of(document)["rayVersion"] == importlib.metadata.version("ray")
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert f"WORKDIR {groups(document)[0]['template']['spec']['containers'][0]['workingDir']}\n" in dockerfile
    user = int(re.search(r"^USER (\d+)$", dockerfile, re.MULTILINE)[1])
    for group in groups(document):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        mounted = {mount["name"] for c in pod["containers"] for mount in c.get("volumeMounts", [])}
        assert volumes == mounted
        assert pod["securityContext"]["runAsUser"] == user
        if "minReplicas" in group:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    (gpu,) = cluster_of(document)["workerGroupSpecs"]
    resources = gpu["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"]


def test_entry_point_is_a_command_that_this_version_takes() -> None:
    python, script, *arguments = shlex.split(manifest("rayjob.yaml")["spec"]["entrypoint"])
    assert (python, (REPO / script).is_file()) == ("python", True)
    result = CliRunner().invoke(main, ["process", *arguments, "--help"])
    assert result.exit_code == 0, result.output


def test_launcher_file_is_what_ray_reads() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = manifest("aws.yaml")
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    kinds = prepared["available_node_types"]
    assert prepared["head_node_type"] in kinds
    assert sum(kind["max_workers"] for kind in kinds.values()) <= prepared["max_workers"]
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        validate_config(prepared | {"idle_timeout_minuts": 5})


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_pods_require_a_token(name: str) -> None:
    assert cluster_of(manifest(name))["authOptions"] == {"mode": "token"}
    # The token's secret is named after the cluster: no other may have that name.
    names = [source["secretRef"]["name"] for g in groups(manifest(name)) for source in env_from(g)]
    assert manifest(name)["metadata"].get("name") not in names


def env_from(group: dict[str, Any]) -> list[dict[str, Any]]:
    return [source for c in group["template"]["spec"]["containers"] for source in c["envFrom"]]


def test_launched_nodes_require_the_token_that_is_copied_to_them() -> None:
    config = manifest("aws.yaml")
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    starts = [
        command
        for nodes in ("head", "worker")
        for command in config[f"{nodes}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ray start") for command in starts)


def test_slurm_script_passes_shellcheck() -> None:
    # SC2250 wants braces around every variable.
    command = [BIN / "shellcheck", "--enable=all", "--exclude=SC2250", CLUSTER / "slurm.sh"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_dockerfile_passes_hadolint_and_copies_what_is_there() -> None:
    done = subprocess.run([BIN / "hadolint", CLUSTER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for line in (CLUSTER / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            assert all((REPO / source).exists() for source in line.split()[1:-1]), line


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment whose Slurm, Ray and naturelm write down their arguments."""
    listen = "import socket, sys, time; s = socket.create_server(('', int(sys.argv[1]))); time.sleep(60)"
    shims = {
        "scontrol": "echo node-1; echo node-2",
        "srun": f'''echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> {tmp_path}/tokens
            echo "srun $*" >> {tmp_path}/calls
            while [[ $1 == --* ]]; do shift; done; exec "$@"''',
        # The head listens, as Ray's does when it is up.
        "ray": f"""[[ $* =~ --port=([0-9]+) ]] || exit 0
            echo $$ > {tmp_path}/head
            exec {sys.executable} -c "{listen}" "${{BASH_REMATCH[1]}}\"""",
        "naturelm": f"""trap 'echo interrupted >> {tmp_path}/calls; exit 130' INT
            echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> {tmp_path}/tokens
            echo "naturelm $*" >> {tmp_path}/calls
            for _ in {{1..600}}; do [[ -e {tmp_path}/done ]] && exit 3; sleep 0.1; done""",
    }
    for name, body in shims.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "1",
        "ARCHIVE": "/archive 1",
        "OUT": "/tables",
    }


def test_slurm_script_says_what_it_lacks(slurm: dict[str, str]) -> None:
    del slurm["OUT"]
    done = subprocess.run([CLUSTER / "slurm.sh"], env=slurm, capture_output=True, text=True)
    assert done.returncode != 0
    assert "OUT: give the directory for the tables" in done.stderr


@pytest.mark.parametrize(("ending", "code"), [("done", 3), ("interrupted", 130)])
@pytest.mark.slow
def test_slurm_script_starts_ray_on_every_node_and_ends_as_the_job_does(
    slurm: dict[str, str], tmp_path: Path, ending: str, code: int
) -> None:
    script = subprocess.Popen(
        [CLUSTER / "slurm.sh", "--hop", "5"],
        env=slurm,
        # What was ignored when a shell began, it cannot trap; tests may have been started so, in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        # The nodes and the job start beside each other.
        while len((calls := read(tmp_path / "calls")).splitlines()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        if ending == "done":
            (tmp_path / "done").touch()
        else:
            # As Slurm does with --signal=B:INT, once the script has its handler.
            time.sleep(2)
            script.send_signal(signal.SIGINT)
        assert script.wait(60) == code
    finally:
        script.kill()
        # Slurm ends the steps of a job with it.
        os.kill(int(read(tmp_path / "head")), signal.SIGKILL)
    head, worker = sorted(line for line in calls.splitlines() if line.startswith("srun"))
    assert "--nodelist=node-1 ray start --head" in head
    assert "--num-cpus=8 --num-gpus=1" in head
    address = re.search(r"--nodelist=node-2 ray start --address=(\S+) --num-cpus=8 --num-gpus=1", worker)[1]
    assert f"naturelm process /archive 1 --out /tables --address {address} --hop 5" in calls
    # Both nodes and the job have the job's token.
    modes = [line.split() for line in read(tmp_path / "tokens").splitlines()]
    assert len(modes) == 3
    assert len({token for _, token in modes}) == 1
    assert all(mode == "token" and len(token) == 32 for mode, token in modes)
    assert ("interrupted" in read(tmp_path / "calls")) == (ending == "interrupted")


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
