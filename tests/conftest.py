"""What all tests share."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings

from tests.object_store import GoogleStore, ObjectStore

# Several threads that share few cores with other processes wait for each other far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines are noisy; a slow example is no defect.
settings.register_profile(
    "quick",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
    max_examples=20,
    print_blob=True,
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=100)
settings.register_profile("random", settings.get_profile("thorough"), derandomize=False, max_examples=500)
settings.load_profile("quick")


# Before the one of pytest-xdist, which reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Assign tests to the workers of pytest-xdist, and give slow tests more time."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))
    # Of the groups, the one on Ray takes longest: it starts first.
    items.sort(key=lambda item: not item.get_closest_marker("ray"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run for twice as long because groups are ignored: pytest-xdist appends them to the ids of tests."""
    items = session.items
    if hasattr(session.config, "workerinput") and items and not items[0].nodeid.endswith(_group(items[0])):
        pytest.exit(
            "pytest-xdist ignores groups with this pytest: install the versions in constraints.txt", 2
        )


def _group(item: pytest.Item) -> str:
    """What shares fixtures that are slow to make, such as Ray, the web app or a processed night."""
    if item.get_closest_marker("ray"):
        return "ray"
    return "app" if item.path.parent.name == "app" else str(item.path)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands that run in this process give PyTorch more threads, which would stay for all tests that follow."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One small Ray on this machine for all tests that need one."""
    from naturelm.ray_cluster import connected_ray

    with connected_ray(None, cores=2, store_bytes=256 << 20):
        yield


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """One S3 server on this machine for all tests that need one."""
    store = ObjectStore()
    yield store
    store.stop()


@pytest.fixture(scope="session")
def google_store() -> Iterator[GoogleStore]:
    """One emulator of Google Cloud Storage on this machine for all tests that need one."""
    store = GoogleStore()
    yield store
    store.stop()


@contextmanager
def _named(scheme: str, store: ObjectStore | GoogleStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket, with what it takes to reach it in the environment."""
    from naturelm import storage

    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    storage._filesystem.cache_clear()
    name = f"night-{uuid.uuid4().hex}"
    store.create(name)
    yield f"{scheme}://{name}"
    storage._filesystem.cache_clear()


@pytest.fixture
def google_bucket(google_store: GoogleStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket of Google's, with what it takes to reach it in the environment."""
    with _named("gs", google_store, monkeypatch) as url:
        yield url


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket of S3, with what it takes to reach it in the environment."""
    with _named("s3", object_store, monkeypatch) as url:
        yield url


@pytest.fixture
def point_at(bucket: str, monkeypatch: pytest.MonkeyPatch):
    """Have another server answer for the store of `bucket`."""
    from naturelm import storage

    def point(endpoint: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        storage._filesystem.cache_clear()

    return point
