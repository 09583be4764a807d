"""Running out of memory is recognised, whatever type of error a library raises for it."""

from __future__ import annotations

import pytest
import torch

from naturelm.errors import first_line, is_out_of_memory


def chained(inner: Exception) -> Exception:
    try:
        try:
            raise inner
        finally:
            raise RuntimeError("CUDA graph: operation failed due to a previous error during capture")
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        torch.AcceleratorError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
        RuntimeError("cudaErrorMemoryAllocation: memory allocation failed"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
        chained(torch.OutOfMemoryError("CUDA out of memory")),
    ],
    ids=lambda error: first_line(error)[:30],
)
def test_memory_that_ran_out_is_seen_by_any_of_its_names(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("the label 'out of memory' is not in the list"),
        chained(KeyError("x")),
        None,
    ],
)
def test_other_errors_are_not_memory(error: Exception | None) -> None:
    assert not is_out_of_memory(error)


def test_the_first_line_of_a_long_message_is_short() -> None:
    assert first_line(RuntimeError("\n  one\ntwo")) == "one"
    assert len(first_line(RuntimeError("x" * 1000))) == 160
