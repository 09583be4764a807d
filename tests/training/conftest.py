"""A tiny model's shape and a few short sounds, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import make_manifest, make_shape


@pytest.fixture(scope="session")
def shape(tmp_path_factory) -> Path:
    """Directory of a tiny model's shape."""
    return make_shape(tmp_path_factory.mktemp("shape") / "tiny")


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> Path:
    """A manifest of twelve sounds of two seconds."""
    return make_manifest(tmp_path_factory.mktemp("sounds") / "made")
