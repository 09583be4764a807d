"""Functions are compiled on GPUs only, and run plainly where compiling fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from naturelm.models.parts.compiled import Compiled, compile_seconds, plain_functions

ON_GPU: Any = SimpleNamespace(device=SimpleNamespace(type="cuda"), shape=torch.Size([3]))


def double(x: Any) -> str:
    return "plain"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the compiler is called for, in order; an error at the head is what compiled functions raise."""
    called: list[Any] = []

    def compile(function: Any) -> Any:
        called.append("compile")

        def run(x: Any) -> str:
            called.append("run")
            if isinstance(called[0], Exception):
                raise called[0]
            return "compiled"

        return run

    monkeypatch.setattr(torch, "compile", compile)
    return called


def test_a_cpu_runs_the_plain_function(compiler: list[Any]) -> None:
    assert Compiled(double)(torch.ones(3)) == "plain"
    assert compiler == []


def test_a_gpu_compiles_once_and_first_calls_are_timed(compiler: list[Any]) -> None:
    before = compile_seconds()
    function = Compiled(double)
    assert function(ON_GPU) == "compiled"
    after_first = compile_seconds()
    assert function(ON_GPU) == "compiled"
    assert compiler == ["compile", "run", "run"]
    assert before < after_first == compile_seconds()
    with plain_functions():
        assert function(ON_GPU) == "plain"


def test_what_cannot_be_compiled_runs_plainly_and_is_reported_once(
    compiler: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    compiler.append(RuntimeError("no C compiler\nwith a long story"))
    function = Compiled(double)
    assert [function(ON_GPU), function(ON_GPU)] == ["plain", "plain"]
    (line,) = caplog.messages
    assert (
        line == "compiling double failed (RuntimeError: no C compiler); it runs uncompiled, which is slower"
    )


def test_memory_that_runs_out_while_compiling_is_no_reason_to_give_up_compiling(compiler: list[Any]) -> None:
    compiler.append(torch.OutOfMemoryError("CUDA out of memory"))
    function = Compiled(double)
    with pytest.raises(torch.OutOfMemoryError):
        function(ON_GPU)
    compiler[0] = "free again"
    assert function(ON_GPU) == "compiled"
