"""Private names of other libraries have one home each, with the checked version; without them, all else works."""

from __future__ import annotations

import ast
import importlib.util
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from naturelm.audio.streaming import decode
from naturelm.models.parts import linear
from naturelm.recordings import sound_files
from tests.paths import REPO

PACKAGE = REPO / "naturelm"
HOMES = {
    "archive/backends/ray_metrics.py": ("ray", {"_internal", "_topology"}),
    "models/parts/beats.py": ("torch", {"_version"}),
    "models/parts/linear.py": ("torch", {"_linear_pointwise"}),
    "models/parts/quantized_int8.py": ("torch", {"_int_mm"}),
    "ray_cluster.py": ("ray", {"_private", "_raylet"}),
    "recordings/sound_files.py": ("soundfile", {"_ffi", "_snd", "_file"}),
}
# `os._exit` is documented, with its underscore; `_typeshed` exists for type checkers alone, `_thread` is documented.
PUBLIC = {"os._exit", "_typeshed", "_thread"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def foreign_private_names(path: Path) -> set[str]:
    """Private names that a module imports, reaches or looks up, and that it does not define itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        elif isinstance(node, ast.alias) and node.asname:
            own.add(node.asname)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] != "naturelm":
            found.update(node.module.split("."))
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) not in PUBLIC:
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not is_own and node.attr not in own:
                found.add(node.attr)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "hasattr", "setattr")
            and isinstance(node.args[1], ast.Constant)
        ):
            found.add(str(node.args[1].value))
    return {name for name in found if is_private(name) and name not in PUBLIC}


def test_private_names_of_libraries_have_one_home_each():
    found = {
        path.relative_to(PACKAGE).as_posix(): foreign_private_names(path) for path in PACKAGE.rglob("*.py")
    }
    assert {name: names for name, names in found.items() if names} == {
        home: names for home, (_, names) in HOMES.items()
    }


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import torch._dynamo", {"_dynamo"}),
        ("from ray._private import services", {"_private"}),
        ("from click import _compat", {"_compat"}),
        ("def f(model):\n    return model._orig_mod", {"_orig_mod"}),
        ("def f(table):\n    return getattr(table, '_cells')", {"_cells"}),
        ("class A:\n    def f(self, other):\n        self._x = 1\n        return other._x", set()),
    ],
)
def test_private_names_are_seen_wherever_they_are_used(code, names, tmp_path):
    (tmp_path / "module.py").write_text(code, encoding="utf-8")
    assert foreign_private_names(tmp_path / "module.py") == names


@pytest.mark.parametrize("home", HOMES)
def test_checked_version_is_the_tested_one(home):
    library, _ = HOMES[home]
    stated = re.findall(rf"Private in {library} (\d+\.\d+)\b", (PACKAGE / home).read_text(encoding="utf-8"))
    (pinned,) = re.findall(
        rf"(?m)^{library}==(\d+\.\d+)", (REPO / "constraints.txt").read_text(encoding="utf-8")
    )
    assert stated == [pinned], f"check what {home} uses of {library} {pinned}, then state that version there"


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "noise.flac"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.5, 0.5, (48_000, 2)), 32_000, subtype="PCM_16")
    return path


def test_sound_is_the_same_without_the_functions_of_libsndfile(sound, monkeypatch, caplog):
    expected = np.concatenate(list(decode(sound)))
    public = {name: value for name, value in vars(soundfile).items() if not is_private(name)}
    monkeypatch.setattr(sound_files, "soundfile", SimpleNamespace(**public))
    sound_files.has_c_functions.cache_clear()
    try:
        for _ in range(2):
            assert np.array_equal(np.concatenate(list(decode(sound))), expected)
    finally:
        sound_files.has_c_functions.cache_clear()
    (line,) = caplog.messages
    assert f"soundfile {soundfile.__version__}" in line


def test_products_are_the_same_without_the_operator_of_onednn(monkeypatch, caplog):
    monkeypatch.setattr(linear.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    x, weight, bias = torch.randn(32, 8), torch.randn(4, 8), torch.randn(4)
    linear.has_onednn.cache_clear()
    try:
        with torch.inference_mode():
            for _ in range(2):
                assert torch.equal(
                    linear.linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias)
                )
    finally:
        linear.has_onednn.cache_clear()
    (line,) = caplog.messages
    assert f"PyTorch {torch.__version__}" in line


@pytest.fixture
def metrics(monkeypatch):
    from naturelm.archive.backends import ray_metrics

    monkeypatch.setattr(ray_metrics.QueueWatch, "depths", dict(ray_metrics.QueueWatch.depths))
    return ray_metrics


def test_queues_are_left_out_without_rays_executor(metrics, caplog):
    watch = metrics.QueueWatch()
    for _ in range(2):
        watch.on_execution_step(SimpleNamespace())
    (line,) = caplog.messages
    assert line.startswith("Ray ")
    assert line.endswith("does not show its queues: progress leaves them out")
    assert watch.depths == {}


def test_queues_are_left_out_where_ray_calls_nobody(metrics, caplog):
    context = SimpleNamespace()
    for _ in range(2):
        metrics.watch_queues(context)
    assert len(caplog.messages) == 1
    assert not vars(context)
    assert metrics.QueueWatch.depths == {}


def test_ray_starts_and_is_joined_without_its_private_names(monkeypatch, caplog):
    from naturelm import ray_cluster

    for name in ("Config", "AuthenticationTokenLoader", "ray_constants"):
        monkeypatch.setattr(ray_cluster, name, None)
    for function in (ray_cluster._can_reload_authentication, ray_cluster._can_stay_on_loopback):
        function.cache_clear()
    inits = []
    monkeypatch.setattr(ray_cluster.ray, "init", lambda **options: inits.append(options["address"]))
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)
    # The Ray that other tests use stays up.
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_cluster, "_check_listening", lambda _: None)
    try:
        for address in (None, "192.0.2.7:6379") * 2:
            with ray_cluster.connected_ray(address):
                pass
    finally:
        ray_cluster._can_reload_authentication.cache_clear()
        ray_cluster._can_stay_on_loopback.cache_clear()
    assert inits == ["local", "192.0.2.7:6379"] * 2
    assert sorted(line.partition("only")[0] for line in caplog.messages) == [
        f"Ray {ray_cluster.ray.__version__} listens on all addresses of this machine; it requires a token",
        f"Ray {ray_cluster.ray.__version__} reads RAY_AUTH_MODE ",
    ]


def test_queues_are_left_out_without_rays_class(metrics, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ray.data._internal.execution.execution_callback", None)
    # A second copy: the archive job keeps the module that it has imported.
    spec = importlib.util.spec_from_file_location("without_the_class", metrics.__file__)
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)
    context = SimpleNamespace(custom_execution_callback_classes=[])
    for _ in range(2):
        without.watch_queues(context)
    assert context.custom_execution_callback_classes == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
