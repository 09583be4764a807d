"""Small functions that a GPU runs compiled, so that each reads and writes its tensors once.

PyTorch's compiler needs Triton and a C compiler, which not every machine has: where it fails the plain function runs
instead, and the log reports it once. CPUs always run the plain function: there compiling takes longer than it saves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from naturelm.errors import first_line, is_out_of_memory

_LOG = logging.getLogger(__name__)


class _State:
    enabled = True
    seconds = 0.0


def compile_seconds() -> float:
    """Seconds that this process has spent on first calls of compiled functions."""
    return _State.seconds


@contextmanager
def plain_functions() -> Iterator[None]:
    """Run plain functions on GPUs too: what compiled ones are checked against."""
    before, _State.enabled = _State.enabled, False
    try:
        yield
    finally:
        _State.enabled = before


class Compiled:
    """A function of tensors that is compiled where its first argument is on a GPU.

    Parameters
    ----------
    function : callable
        What is compiled.
    plain : callable, optional
        What runs where it is not: same arguments and result; the function itself where not given.
    """

    def __init__(self, function: Callable[..., Any], plain: Callable[..., Any] | None = None) -> None:
        self._function, self._plain = function, plain or function
        # Made when first needed: the compiler itself takes seconds to import.
        self._compiled: Callable[..., Any] | None = None
        self._works = True
        self._shapes: set[torch.Size] = set()

    def __call__(self, x: Tensor, *rest: Any) -> Any:
        if x.device.type != "cuda" or not _State.enabled or not self._works:
            return self._plain(x, *rest)
        if self._compiled is None:
            self._compiled = torch.compile(self._function)
        if x.shape in self._shapes:
            return self._compiled(x, *rest)
        start = time.perf_counter()
        try:
            result = self._compiled(x, *rest)
        except Exception as error:  # the compiler raises many kinds of errors
            if is_out_of_memory(error):
                raise
            self._works = False
            _LOG.warning(
                "compiling %s failed (%s: %s); it runs uncompiled, which is slower",
                self._function.__name__.strip("_"),
                type(error).__name__,
                first_line(error),
            )
            return self._plain(x, *rest)
        self._shapes.add(x.shape)
        _State.seconds += time.perf_counter() - start
        return result
