"""The project's own files agree with each other: version, licence, checks."""

from __future__ import annotations

import re
import tomllib

import yaml

import naturelm
from tests.paths import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(path: str) -> str:
    return (REPO / path).read_text(encoding="utf-8")


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    newest = re.search(r"^## (\S+?),? ", read("docs/changelog.md"), flags=re.MULTILINE)
    assert newest
    assert PROJECT["version"] == naturelm.__version__ == citation["version"] == newest[1]
    assert f"naturelm:{PROJECT['version']} " in read("configs/cluster/Dockerfile")


def test_licence_is_the_same_everywhere() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    assert re.search(r"Apache License\n\s+Version 2.0, January 2004", read("LICENSE"))
    assert PROJECT["authors"] == [{"name": "naturelm contributors"}] == citation["authors"]


def test_extras_are_installed_by_make_and_their_packages_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    [installed] = re.findall(r"--editable '\.\[(.*)\]'", read("Makefile"))
    assert set(installed.split(",")) == set(extras)
    pinned = {line.partition("==")[0] for line in read("constraints.txt").splitlines()[1:]}
    for requirement in [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]:
        package = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert package
        assert package[0].lower().replace("_", "-") in pinned


def test_a_commit_is_checked_as_in_ci() -> None:
    hooks = {
        hook["id"]: hook["entry"]
        for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
        for hook in repo["hooks"]
    }
    makefile = read("Makefile")
    for entry in hooks.values():
        command = entry.removeprefix(".venv/bin/").removesuffix(" --force-exclude")
        assert f"$(BIN)/{command}" in makefile
    assert set(hooks) == {"ruff-check", "ruff-format", "mypy"}
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    assert [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step] == [".ci/run"]


def test_ci_runs_every_check_of_make() -> None:
    [checks] = re.findall(r"^check: ([a-z ]+?) *##", read("Makefile"), flags=re.MULTILINE)
    [targets] = re.findall(r"^make ([a-z -]+)$", read(".ci/run"), flags=re.MULTILINE)
    assert {*checks.split(), "test-all"} == set(targets.split())


def test_readme_starts_with_two_make_targets() -> None:
    block = re.search(r"```sh\n(.*?)```", read("README.md"), flags=re.DOTALL)
    assert block
    assert block[1].splitlines() == ["make demo", "make test"]
    assert len(read("README.md").splitlines()) <= 150
