"""The `naturelm` command: a group whose verbs load when they are called, one file per verb."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from importlib import import_module

import click

from naturelm import __version__
from naturelm.errors import NaturelmError

# As shells count a process that Ctrl-C ended.
INTERRUPTED = 130

# verb -> one line of help, shown without importing the verb
VERBS = {
    "plan": "Say what an archive holds and what processing it will take.",
    "process": "Run a model over an archive of recordings and write tables.",
    "status": "Say what a run is doing, from another terminal or after a crash.",
    "query": "Ask the tables in SQL.",
    "summary": "Print labels by hour, effort and recording statuses.",
    "events": "Merge neighbouring detections of one label.",
    "export": "Write detections for Raven, Audacity, Kaleidoscope, BirdNET, Camtrap DP and others.",
    "clips": "Cut the best detections out of the original recordings.",
    "report": "Write one self-contained HTML page about a results directory.",
    "inference-app": "Open the web app: ask about sounds, explore results.",
    "infer": "Ask a few recordings a question, without a job.",
    "manifest": "Write questions to train on, from labelled recordings; check a manifest.",
    "train": "Train a model, in this process or on Ray; plot how a run went.",
    "export-checkpoint": "Write a training run's weights as a model.",
    "models": "List the models, what each needs and whether it is here.",
    "bench": "Measure the engine, the pipeline and decoding.",
}


class _Verbs(click.Group):
    """Verbs by name; a NaturelmError becomes one sentence and exit code 2, Ctrl-C one word and 130."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        attribute = name.replace("-", "_")
        command: click.Command = getattr(import_module(f"naturelm.cli.{attribute}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except NaturelmError as error:
            raise _InputMistake(str(error)) from None
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def _raise_interrupts(lost: sys.UnraisableHookArgs) -> None:
    """Raise a KeyboardInterrupt that could not be raised where it came, as soon as it can."""
    if lost.exc_type is KeyboardInterrupt:
        # In this very function it would be lost again.
        again = threading.Timer(0.01, _interrupt_main_thread)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)


def _interrupt_main_thread() -> None:
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # ends system calls, too
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGINT)


class _InputMistake(click.ClickException):
    exit_code = 2


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="naturelm")
def main() -> None:
    """Run NatureLM-audio over archives of field recordings and read the results."""
    # C libraries that call Python drop what is raised there, Ctrl-C too.
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _raise_interrupts
    # OpenMP's threads spin while they wait, for so long that on a busy machine two are many times slower than one.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Paths may hold bytes that are no UTF-8: print them escaped rather than fail.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
