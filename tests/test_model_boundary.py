"""Outside its folder, a model family is known by the boundary alone: never by its name or its parts."""

from __future__ import annotations

import ast

import pytest

from naturelm.models.presets import FAMILIES
from tests.paths import REPO

PACKAGE = REPO / "naturelm"
PARTS = {"llama", "qformer", "audio_norm", "audio_projection"}
OUTSIDE = [path for path in sorted(PACKAGE.rglob("*.py")) if PACKAGE / "models" not in path.parents]


def crossings(code: str) -> list[str]:
    """Comparisons with a family's name, and attributes that are parts of a family's model."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Compare):
            strings = {
                part.value
                for side in (node.left, *node.comparators)
                for part in ast.walk(side)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
            if strings & {*FAMILIES, "llama"}:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute) and node.attr in PARTS:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_family_is_known_by_the_boundary_alone(path):
    assert crossings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "code",
    ["name != 'llama'", "model.family in ('naturelm', 'other')", "model.llama.generate()", "x.qformer"],
)
def test_crossings_are_seen(code):
    assert len(crossings(code)) == 1
