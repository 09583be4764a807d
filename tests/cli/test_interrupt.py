"""Ctrl-C: one word and exit code 130, wherever it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

LOST = """
import io, sys, time, types
import click, numpy, soundfile
from naturelm import cli

class Interrupted(io.BytesIO):
    interrupt = True

    def write(self, data):
        if Interrupted.interrupt:
            Interrupted.interrupt = False
            raise KeyboardInterrupt
        return super().write(data)

@click.command()
def verb():
    # libsndfile calls `write`, and cannot hand on what it raises.
    try:
        soundfile.write(Interrupted(), numpy.zeros(9), 8000, format="WAV")
    except Exception:
        pass
    for _ in range(1200):
        time.sleep(0.05)

cli.VERBS["verb"] = ""
sys.modules["naturelm.cli.verb"] = types.SimpleNamespace(verb=verb)
cli.main(["verb"])
"""


def test_ctrl_c_that_a_c_library_drops_ends_the_command_all_the_same():
    done = subprocess.run(
        [sys.executable, "-c", LOST],
        capture_output=True,
        text=True,
        timeout=55,
        # A shell starts what runs in the background with this signal ignored, the tests as well.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
