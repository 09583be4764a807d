"""The one error type for input mistakes."""

from __future__ import annotations


class NaturelmError(ValueError):
    """An input mistake, told in one sentence: what, where, the value and the remedy.

    The command line prints it and exits with code 2.
    """
