"""The one error type for input mistakes."""

from __future__ import annotations


class NaturelmError(ValueError):
    """An input mistake, described in one sentence: what, where, the value and the remedy.

    The command line prints it and exits with code 2.
    """


class RunStopped(Exception):
    """The run cannot continue; what it has committed is kept. Not an input mistake: one sentence, exit code 1."""
