"""One archive and its results for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.embeddings.places import make_archive, run


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("places") / "archive")


@pytest.fixture(scope="session")
def processed(archive: Path) -> Path:
    """Answers and embeddings of one pass; not to be changed."""
    out = archive.parent / "processed"
    run(archive, out)
    return out


@pytest.fixture
def results(processed: Path, tmp_path: Path) -> Path:
    """A copy of `processed` to be changed."""
    return Path(shutil.copytree(processed, tmp_path / "results"))
