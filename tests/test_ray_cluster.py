"""Who may use a Ray that is started here, and with which token a cluster is joined."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode

from naturelm import ray_cluster
from naturelm.errors import NaturelmError, RunStopped
from naturelm.ray_cluster import connected_ray

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
ADDRESS = "192.0.2.7:6379"
# What can be reached only on the loopback Ray finds only so.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
TRY = """
import json, os, sys
import ray
from naturelm.ray_cluster import _environment

outcomes = []
for variables in json.loads(sys.argv[2]):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        os.environ.pop(name, None)
    with _environment(variables):
        try:
            ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
            outcomes.append(ray.get(ray.remote(lambda: "ran").remote()))
        except Exception as error:
            outcomes.append(type(error).__name__)
        ray.shutdown()
print(json.dumps(outcomes))
"""


@pytest.mark.ray
def test_local_ray_listens_on_the_loopback_only(local_ray) -> None:
    this = psutil.Process()
    listening = [
        (process.name(), connection.laddr.ip)
        for process in [this, *this.children(recursive=True)]
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert {ip.removeprefix("::ffff:") for _, ip in listening} <= {"127.0.0.1", "::1"}


@pytest.mark.ray
def test_stranger_cannot_use_a_local_ray(local_ray) -> None:
    token = os.environ["RAY_AUTH_TOKEN"]
    attempts = [
        {},
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * len(token)},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
    ]
    done = subprocess.run(
        [sys.executable, "-c", TRY, ray.get_runtime_context().gcs_address, json.dumps(attempts)],
        env=os.environ | LOOPBACK | {"RAY_NUM_REDIS_GET_RETRIES": "1"},
        capture_output=True,
        text=True,
    )
    # The last attempt shows that it was the token that the others lacked.
    assert json.loads(done.stdout) == ["ConnectionError"] * 3 + ["ran"], done.stderr


@pytest.fixture
def joined(monkeypatch, tmp_path) -> list[tuple[AuthenticationMode, str | None]]:
    """Authentication mode and token at each start of Ray, which is not started; the user has neither."""
    calls: list[tuple[AuthenticationMode, str | None]] = []
    monkeypatch.setattr(
        ray, "init", lambda **_: calls.append((get_authentication_mode(), os.environ.get("RAY_AUTH_TOKEN")))
    )
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    # The Ray that other tests use stays up.
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_cluster, "_check_listening", lambda _: None)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ray_cluster._reload_authentication()
    yield calls
    monkeypatch.undo()
    ray_cluster._reload_authentication()


@pytest.mark.parametrize("mode", [None, "disabled", "token"])
def test_local_ray_requires_a_new_token_whatever_the_default_is(joined, mode, monkeypatch) -> None:
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    for _ in range(2):
        with connected_ray(None):
            pass
    (first, one), (second, other) = joined
    assert first == second == AuthenticationMode.TOKEN
    assert len(one) >= 32
    assert one != other
    assert os.environ.get("RAY_AUTH_MODE") == mode
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize("source", ["variable", "path", "home"])
def test_cluster_is_joined_with_the_users_token(joined, source, monkeypatch, tmp_path) -> None:
    file = tmp_path / ".ray/auth_token"
    file.parent.mkdir()
    if source == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    else:
        file.write_text("secret")
    if source == "path":
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file.rename(tmp_path / "token")))
    ray_cluster._reload_authentication()
    with connected_ray(ADDRESS):
        pass
    assert [mode for mode, _ in joined] == [AuthenticationMode.TOKEN]
    assert "RAY_AUTH_MODE" not in os.environ


def test_mode_that_the_user_has_set_applies_to_a_cluster(joined, monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with connected_ray(ADDRESS):
        pass
    assert [mode for mode, _ in joined] == [AuthenticationMode.DISABLED]


def test_cluster_is_joined_without_a_token_where_there_is_none(joined) -> None:
    with connected_ray(ADDRESS):
        pass
    assert joined == [(AuthenticationMode.DISABLED, None)]


def test_token_file_that_is_missing_is_named(joined, monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/missing/token")
    with (
        pytest.raises(NaturelmError, match=r"RAY_AUTH_TOKEN_PATH is set but .* /missing/token"),
        connected_ray(ADDRESS),
    ):
        pass


def test_cluster_that_refuses_is_reported_with_where_the_token_belongs(joined, monkeypatch) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError(f"Failed to connect to Ray cluster at {ADDRESS}")

    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(
            NaturelmError, match=r"--address 192\.0\.2\.7:6379: Ray cannot be joined.*RAY_AUTH_TOKEN"
        ),
        connected_ray(ADDRESS),
    ):
        pass


def test_ray_that_does_not_start_in_time_is_started_again(joined, monkeypatch) -> None:
    """Ray allows itself half a minute, which a busy machine may exceed."""
    tries = []

    def busy(**_: object) -> None:
        tries.append(1)
        if len(tries) < needed:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", busy)
    needed = 3
    with connected_ray(None):
        pass
    assert len(tries) == 3
    tries, needed = [], 99
    with (
        pytest.raises(
            RunStopped, match=r"Ray cannot be started on this machine \(The current node timed out"
        ),
        connected_ray(None),
    ):
        pass
    assert len(tries) == 3


@pytest.mark.slow
@pytest.mark.ray
def test_run_joins_a_cluster_with_its_token_and_is_refused_without(tmp_path: Path) -> None:
    from tests.archive.stub_runs import record

    record(tmp_path / "archive/S_20260520_040000.wav", 1, 25.0)
    port = str(20000 + os.getpid() % 20000)
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    with_token = environment | {"RAY_AUTH_TOKEN": "1" * 64}
    start = [
        Path(sys.executable).parent / "ray",
        "start",
        "--head",
        "--block",
        "--num-cpus=2",
        f"--port={port}",
    ]
    cluster = subprocess.Popen(
        [*start, "--include-dashboard=false"],
        env=with_token | {"RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def process(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.archive.fault_driver", "stub", tmp_path / "archive"]
        address = f"{ray.util.get_node_ip_address()}:{port}"
        return subprocess.run(
            [*command, "--out", tmp_path / "out", "--workers", "1", "--address", address],
            env=env,
            capture_output=True,
            text=True,
        )

    try:
        refused = process(with_token | {"RAY_AUTH_TOKEN": "2" * 64})
        assert refused.returncode == 2, refused.stderr
        assert "Ray cannot be joined there" in refused.stderr
        assert "Traceback" not in refused.stderr
        done = process(with_token)
        assert done.returncode == 0, done.stderr
    finally:
        cluster.terminate()
        cluster.wait(60)
