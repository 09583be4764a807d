"""Imports run one way, and the heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "naturelm"

# From what is on disk to what people look at: a module imports from its own layer or an earlier one.
LAYERS = [
    {"errors", "ids", "schemas", "spans", "storage", "sun", "text", "windows", "synthesis", "label"},
    {"config", "answers", "prompts"},
    {"recordings"},
    {"audio", "decoding"},
    {"models"},
    {"engine"},
    {"infer"},
    {"pipeline"},
    {"tables"},
    {"bench", "training", "evaluation"},
    {"app"},
    {"cli"},
]
LAYER = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
RAY_HOMES = {
    "pipeline/ray_adapter.py",
    "pipeline/ray_cluster.py",
    "pipeline/ray_watch.py",
    "training/ray_adapter.py",
}
MODEL_LIBRARIES = {"torch", "transformers", "peft", "safetensors", "numpy", "huggingface_hub", "naturelm"}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part(path: Path) -> str:
    # `engine_*.py` are parts of the engine; `label_lists.py` is `label`.
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py").split("_")[0]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_imports_no_later_layer(path):
    own = LAYER[part(path)]
    for name in imports(path):
        pieces = name.split(".")
        if pieces[0] == "naturelm" and len(pieces) > 1 and pieces[1] in LAYER:
            assert LAYER[pieces[1]] <= own, f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_ray_is_imported_in_its_adapters_only(path):
    ray = {name for name in imports(path) if name.split(".")[0] == "ray"}
    assert not ray or str(path.relative_to(PACKAGE)) in RAY_HOMES


def test_models_and_engine_need_only_the_libraries_of_a_bare_gpu_box():
    allowed = MODEL_LIBRARIES | set(sys.stdlib_module_names)
    paths = [
        *(PACKAGE / "models").rglob("*.py"),
        PACKAGE / "engine.py",
        PACKAGE / "prompts.py",
        PACKAGE / "errors.py",
    ]
    assert len(paths) > 5
    for path in paths:
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("naturelm", {"torch", "ray", "transformers", "pyarrow", "duckdb"}),
        ("naturelm.cli", {"torch", "ray", "pyarrow", "duckdb"}),
        ("naturelm.pipeline.job", {"torch", "ray", "transformers"}),
        ("naturelm.tables.query", {"torch", "ray", "transformers"}),
        ("naturelm.recordings", {"torch", "ray", "pyarrow"}),
    ],
)
def test_import_leaves_heavy_libraries_alone(module, absent):
    code = f"import {module}, sys; print(*sorted(sys.modules))"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert module in loaded
    assert not absent & loaded
