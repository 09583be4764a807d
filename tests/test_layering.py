"""Imports run one way, by folder, and the heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPO

PACKAGE = REPO / "naturelm"

# From what is on disk to what people look at: a module imports from its own folder or from those before it.
ORDER = (
    *("errors", "ids", "text", "windows", "storage", "machine", "labels", "config", "recordings", "segments"),
    *("audio", "models", "engine", "synthetic", "infer", "ray_cluster", "results", "archive", "tables"),
    *("training", "evaluation", "bench", "app", "service", "cli"),
)
RANK = {name: rank for rank, name in enumerate(ORDER)}
MOST_LOOSE_MODULES = 10
RAY_HOMES = {
    "archive/backends/ray.py",
    "archive/backends/ray_metrics.py",
    "ray_cluster.py",
    "training/ray_adapter.py",
}
# Of this package, what a bare GPU box runs: families, the engine, and the error type.
MODEL_LIBRARIES = {"torch", "transformers", "peft", "safetensors", "numpy"}
# transformers itself requires huggingface_hub; only the fetching of weights talks to it.
HUB_HOME = "models/presets.py"
MODEL_PARTS = {"models", "engine", "errors"}


def imports(path: Path) -> set[str]:
    """Dotted names of all modules and names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def own_imports(path: Path) -> set[str]:
    """Modules of this package that a file imports."""
    found = set()
    for name in imports(path):
        pieces = name.split(".")
        while pieces[0] == "naturelm" and len(pieces) > 1:
            module = PACKAGE.joinpath(*pieces[1:])
            if module.with_suffix(".py").exists():
                found.add(relative(module.with_suffix(".py")))
                break
            if (module / "__init__.py").exists():
                found.add(relative(module / "__init__.py"))
                break
            pieces.pop()
    return found


def test_every_folder_has_its_place_and_few_modules_are_loose():
    assert {part(path) for path in modules()} == set(ORDER)
    assert len([path for path in modules() if path.parent == PACKAGE]) <= MOST_LOOSE_MODULES


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_module_imports_no_later_folder(path):
    for name in own_imports(path):
        assert RANK[part(PACKAGE / name)] <= RANK[part(path)], f"{relative(path)} imports {name}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {relative(path): own_imports(path) - {relative(path)} for path in modules()}
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name in finished:
            return
        for imported in graph.get(name, ()):
            visit(imported, (*above, name))
        finished.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_ray_is_imported_in_its_adapters_only(path):
    ray = {name for name in imports(path) if name.split(".")[0] == "ray"}
    assert not ray or relative(path) in RAY_HOMES


@pytest.mark.parametrize("path", [p for p in modules() if part(p) in ("models", "engine")], ids=relative)
def test_models_and_engine_need_only_the_libraries_of_a_bare_gpu_box(path):
    allowed = MODEL_LIBRARIES | set(sys.stdlib_module_names) | {"naturelm"}
    if relative(path) == HUB_HOME:
        allowed |= {"huggingface_hub"}
    assert {name.split(".")[0] for name in imports(path)} <= allowed
    assert {part(PACKAGE / name) for name in own_imports(path)} <= MODEL_PARTS


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("naturelm", {"torch", "ray", "transformers", "pyarrow", "duckdb"}),
        ("naturelm.cli", {"torch", "ray", "pyarrow", "duckdb"}),
        ("naturelm.archive.job", {"torch", "ray", "transformers"}),
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
