"""What all tests share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from tests.object_store import GoogleStore, ObjectStore

# Several threads that share few cores with other processes wait for each other far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines are noisy; a slow example is no defect.
settings.register_profile("naturelm", deadline=None, max_examples=60)
settings.load_profile("naturelm")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One small Ray on this machine for all tests that need one."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=256 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


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
