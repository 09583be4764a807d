"""The web app, started once as a person would start it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.paths import SMALL_MODEL
from tests.tables.listening_night import HOSTILE_LABELS, Night, make_listening_night


@dataclass(frozen=True)
class RunningApp:
    """Where the app is, and what it shows."""

    address: str
    night: Night


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """`naturelm inference-app` on the synthetic night with hostile labels, and a small model of random weights."""
    pytest.importorskip("gradio", reason="gradio is not installed (pip install 'naturelm[app]')")
    night = make_listening_night(tmp_path_factory.mktemp("app"), HOSTILE_LABELS)
    command = "from naturelm.cli.inference_app import inference_app; inference_app()"
    arguments = ["--results", str(night.results), "--model", str(SMALL_MODEL), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", command, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("naturelm is at http://127.0.0.1:"), line
        yield RunningApp(line.split()[3], night)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
