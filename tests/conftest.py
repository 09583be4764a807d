"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

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
