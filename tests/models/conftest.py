"""The small NatureLM-audio checkpoint and what the published code answered with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from naturelm.models import NatureLM
from tests.paths import SMALL_MODEL, SMALL_PARITY


@pytest.fixture(scope="session")
def small_release() -> Path:
    """The checkpoint, in the published layout."""
    return SMALL_MODEL


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Arrays and texts under one roof: what the published code gave in float32 on a CPU."""
    return {**np.load(SMALL_PARITY / "golden.npz"), **json.loads((SMALL_PARITY / "golden.json").read_text())}


@pytest.fixture(scope="session")
def waveforms(golden: dict[str, Any]) -> torch.Tensor:
    """Three windows of 10 s, ``[3, 160000]``."""
    return torch.from_numpy(golden["wav"])


@pytest.fixture(scope="session")
def _shared_model(small_release: Path) -> NatureLM:
    return NatureLM.from_pretrained(small_release, device="cpu")


@pytest.fixture
def model(_shared_model: NatureLM) -> NatureLM:
    """The small model as loaded; loaded once, so a test may change nothing of it but merging_alpha."""
    _shared_model.merging_alpha = 1.0
    return _shared_model
