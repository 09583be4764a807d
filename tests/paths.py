"""The repository's files that tests read. Tests name them from here, so that a test file can move."""

from __future__ import annotations

from pathlib import Path

REPO = Path(__file__).parents[1]
DATA = REPO / "tests/data"
SMALL_PARITY = DATA / "parity/naturelm-small"
"""A small checkpoint with its language model, and what the published code answers with it."""
SMALL_MODEL = SMALL_PARITY / "release"
SALMONN_PARITY = DATA / "parity/salmonn-small"
LTU_PARITY = DATA / "parity/ltu-small"
"""Small checkpoints of the other families, and what their published code answers with them."""
FULL_PARITY = DATA / "parity/naturelm-8b"
"""Names and shapes of the released checkpoint's tensors, and what its audio branch computes."""
SHARED = REPO.parent / "shared"
"""Recordings and weights that are not part of the repository. Tests that read them skip where they are absent."""
