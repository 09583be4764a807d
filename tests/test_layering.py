"""Imports run one way, by folder, and the heavy libraries stay where they belong."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from docs.import_graph import (
    PACKAGE,
    drawing,
    imports,
    levels,
    modules,
    own_imports,
    part,
    part_imports,
    relative,
)

# From what is on disk to what people look at: a module imports from its own folder or from those before it.
ORDER = (
    *("errors", "ids", "text", "windows", "storage", "machine", "labels", "config", "recordings", "segments"),
    *(
        "audio",
        "models",
        "engine",
        "synthetic",
        "infer",
        "ray_cluster",
        "results",
        "archive",
        "tables",
        "embeddings",
    ),
    *("training", "embeddings", "evaluation", "bench", "app", "service", "cli"),
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
HUB_HOME = "models/hub.py"
# Comes with PyTorch for GPUs; a bare box without it decodes with PyTorch's attention.
TRITON_HOME = "engine/attention.py"
MODEL_PARTS = {"models", "engine", "errors"}


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


def test_drawing_has_every_part_above_what_it_imports():
    graph = part_imports()
    text = drawing(graph)
    heights = {name: float(y) for y, name in re.findall(r'<text x="\d+" y="(\d+)">(\w+)</text>', text)}
    assert heights.keys() == graph.keys()
    for name, imported in graph.items():
        assert all(heights[name] < heights[below] for below in imported)


def test_circle_of_parts_is_named():
    with pytest.raises(ValueError, match="a, b import each other in a circle"):
        levels({"a": {"b"}, "b": {"a"}, "c": set()})


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_ray_is_imported_in_its_adapters_only(path):
    ray = {name for name in imports(path) if name.split(".")[0] == "ray"}
    assert not ray or relative(path) in RAY_HOMES


@pytest.mark.parametrize("path", [p for p in modules() if part(p) in ("models", "engine")], ids=relative)
def test_models_and_engine_need_only_the_libraries_of_a_bare_gpu_box(path):
    allowed = MODEL_LIBRARIES | set(sys.stdlib_module_names) | {"naturelm"}
    if relative(path) == HUB_HOME:
        allowed |= {"huggingface_hub"}
    if relative(path) == TRITON_HOME:
        allowed |= {"triton"}
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
