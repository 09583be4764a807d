"""The `naturelm` command: a group whose verbs load when they are called, one file per verb."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module

import click

from naturelm import __version__
from naturelm.errors import NaturelmError
from naturelm.machine import signal_main_thread
from naturelm.text import printable, suggestion

# The exit code that shells report for a process ended by Ctrl-C.
INTERRUPTED = 130

# verb -> one line of help, shown without importing the verb
VERBS = {
    "plan": "Report what an archive contains and how long processing will take.",
    "process": "Run a model over an archive of recordings and write tables.",
    "embed": "Run a model's encoder alone over an archive and write vectors for search and probes.",
    "status": "Report what a run is doing, from another terminal or after a crash.",
    "migrate": "Convert a results directory that an older version wrote.",
    "query": "Query the tables with SQL.",
    "summary": "Print labels by hour, hours analysed and recording statuses.",
    "search": "Find the windows that sound most like a given sound.",
    "probe": "Train a classifier on reviewed windows; apply it to every window.",
    "events": "Merge neighbouring detections of one label.",
    "queue": "Choose what to listen to next, and report how far reviewers are and agree.",
    "export": "Write detections for Raven, Audacity, Kaleidoscope, BirdNET, Camtrap DP and others.",
    "clips": "Cut the best detections out of the original recordings.",
    "report": "Write one self-contained HTML page about a results directory.",
    "inference-app": "Open the web app: query a model, explore and review results.",
    "serve": "Answer questions about sounds by HTTP, for evaluation harnesses and other tools.",
    "infer": "Run a query on a few recordings, without a job.",
    "finetune": "Train a model on your own labels, and report whether it became better.",
    "manifest": "Write training questions from labelled recordings; check a manifest.",
    "train": "Train a model, in this process or on Ray; plot its learning curves.",
    "evaluate": "Score predictions as BEANS-Zero does; compare two sets.",
    "export-checkpoint": "Write a training run's weights as a model.",
    "quantize": "Write a model with its weights in 8 bits.",
    "models": "List the models, what each needs and whether it is on this machine.",
    "bench": "Measure the engine, the archive job and decoding.",
}


class _Verbs(click.Group):
    """Verbs by name; a NaturelmError becomes one sentence and exit code 2, Ctrl-C "interrupted" and 130."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        attribute = name.replace("-", "_")
        command: click.Command = getattr(import_module(f"naturelm.cli.{attribute}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            raise click.UsageError(f"there is no command {name[:200]!r}; {suggestion(name, VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for argument in args:
            if "\0" in argument:
                raise click.UsageError(f"{argument[:200]!r} contains a NUL character; remove it")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except NaturelmError as error:
            raise _InputError(_escaped(str(error))) from None
        except click.ClickException as error:
            # `message` is final to type checkers, and read when the error is shown.
            object.__setattr__(error, "message", _escaped(error.message))
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def _escaped(message: str) -> str:
    """An error for the terminal: it may quote labels, paths and answers, which may hold control characters."""
    return "\n".join(printable(line) for line in message.split("\n"))


def _raise_interrupts(lost: sys.UnraisableHookArgs) -> None:
    """Raise a KeyboardInterrupt again that was lost in a callback of a C library."""
    if lost.exc_type is KeyboardInterrupt:
        # Raised in this function it would be lost again.
        again = threading.Timer(0.01, signal_main_thread, [signal.SIGINT])
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)


class _InputError(click.ClickException):
    exit_code = 2


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="naturelm")
def main() -> None:
    """Run NatureLM-audio over archives of field recordings and read the results."""
    # C libraries that call Python drop exceptions raised there, Ctrl-C among them.
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _raise_interrupts
    # OpenMP threads spin while they wait; on a busy machine two of them are then many times slower than one.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Paths may contain bytes that are not UTF-8: print them escaped instead of failing.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
