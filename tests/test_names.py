"""One name means one thing: no class, function, module or number of the package has a second home."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.paths import REPO

PACKAGE = REPO / "naturelm"

# These names are an interface: each module that has one implements it, and none imports another's.
INTERFACES = {
    "__getattr__": "naturelm",  # Python's own way to load names when they are first used
    "load": "naturelm/tables/export",  # of each format
    "save": "naturelm/tables/export",
}
NUMBERS = {
    8_000: {
        "recordings/mpeg.py",  # what MPEG headers may state
        "tables/player.py",  # what a browser plays
        "synthetic/sounds.py",  # the band of rain
        "cli/serve.py",  # a port
    },
    16_000: {"windows.py", "recordings/mpeg.py", "tables/player.py"},
}
# Models state what their weights were trained with; the engine compares it with the rate of the sound.
WEIGHTS = "models"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def is_command(path: Path) -> bool:
    """A module of `cli/` is named after its verb, which may also be what the package calls the thing itself."""
    return path.parent == PACKAGE / "cli"


def homes_of_names() -> dict[str, list[Path]]:
    """Public classes and functions of all modules but commands, and the modules that define them."""
    homes = defaultdict(list)
    for path in modules():
        if is_command(path):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            is_definition = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if is_definition and (not node.name.startswith("_") or node.name.startswith("__")):
                homes[node.name].append(path)
    return homes


def test_no_public_class_or_function_is_defined_twice():
    twice = {}
    for name, homes in homes_of_names().items():
        interface = REPO / INTERFACES[name] if name in INTERFACES else None
        own = [path for path in homes if interface is None or interface not in path.parents]
        if len(own) > (interface is None):
            twice[name] = [path.relative_to(PACKAGE).as_posix() for path in homes]
    assert not twice


@pytest.mark.parametrize("name", ["Decoder", "Recording", "Selection", "WindowAnswer"])
def test_names_that_once_meant_two_things_mean_one(name):
    assert len(homes_of_names()[name]) == 1


def test_no_module_has_the_file_name_of_another():
    homes = defaultdict(list)
    for path in modules():
        # The folders of models are alike on purpose: each family has its config, model and names.
        is_of_a_model = (PACKAGE / "models") in path.parent.parents
        if path.name != "__init__.py" and not is_command(path) and not is_of_a_model:
            homes[path.name].append(path.relative_to(PACKAGE).as_posix())
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}


def named_numbers(tree: ast.Module) -> dict[str, float]:
    """Numbers that a module gives a name."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, int | float)
    }


@pytest.mark.parametrize("number", [8_000, 16_000])
def test_sample_rate_and_highest_frequency_are_written_once(number):
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value == number
    }
    assert {name for name in found if name.split("/")[0] != WEIGHTS} == NUMBERS[number]


def test_least_length_of_sound_is_written_once():
    """0.5 is also a half, a volume and a pause; as a length of sound it has one name."""
    found = {}
    for path in modules():
        for name, value in named_numbers(ast.parse(path.read_text(encoding="utf-8"))).items():
            if value == 0.5:
                found[name] = path.relative_to(PACKAGE).as_posix()
    waits = {"_SETTLE_S", "_WATCH_S"}
    assert {name: home for name, home in found.items() if name not in waits} == {"MIN_NEW_S": "windows.py"}
