"""The one error type for input mistakes."""

from __future__ import annotations


class NaturelmError(ValueError):
    """An input mistake, described in one sentence: what, where, the value and the remedy.

    The command line prints it and exits with code 2.
    """


class RunStopped(Exception):
    """The run cannot continue; what it has committed is kept. Not an input mistake: one sentence, exit code 1."""


def first_line(error: BaseException) -> str:
    """The beginning of an error's message, as it fits into a sentence."""
    return str(error).strip().split("\n", 1)[0][:160]


_OUT_OF_MEMORY_WORDS = (
    "out of memory",  # CUDA's allocator, the driver, MPS
    "memoryallocation",  # cudaErrorMemoryAllocation
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "not enough memory",
    "can't allocate memory",  # PyTorch's CPU allocator
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, reports that a device's memory ran out.

    Libraries report it by many types: the allocator, cuBLAS, the driver, and, while a CUDA graph is recorded, an error
    about the recording whose context is the first one.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        words = f"{type(error).__name__} {error}".lower()
        if isinstance(error, MemoryError) or "outofmemory" in words:
            return True
        if isinstance(error, RuntimeError) and any(part in words for part in _OUT_OF_MEMORY_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
