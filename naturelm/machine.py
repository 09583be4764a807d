"""This machine: cores, memory, processor, processes and GPUs, as far as the system reports them."""

from __future__ import annotations

import _thread
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_QUERY = ["--query-gpu=name,memory.used,memory.total,utilization.gpu", "--format=csv,noheader,nounits"]
_PATIENCE_S = 5.0


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Memory of the whole machine; None where the system does not report it (Windows)."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int | None:
    """Memory that programs may still take, a container's limit included; None where the system does not report it."""
    free = _meminfo().get("MemAvailable") or memory_bytes()
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container, or none with a limit
        return free
    return limit - used if free is None else min(free, max(limit - used, 0))


def _meminfo() -> dict[str, int]:
    """Linux's `/proc/meminfo` in bytes; nothing elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    cells = (line.replace(":", "").split() for line in lines)
    return {cell[0]: int(cell[1]) * 1024 for cell in cells if len(cell) == 3}


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; False where the system does not report it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return bool({"avx512_bf16", "amx_bf16"} & set(flags))


@contextmanager
def limited_memory(more_bytes: int) -> Iterator[None]:
    """Let this process have no more than `more_bytes` of memory in addition to what it has.

    What asks for more gets a MemoryError, or what a C library makes of it. There is no limit where the system does not
    report what a process has (Windows, macOS).
    """
    if sys.platform == "win32":
        yield
        return
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        yield
        return
    before = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
    limits = [limit, *(given for given in before if given != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def signal_main_thread(number: int) -> None:
    """Send a signal to this process's main thread; it ends system calls, except on Windows."""
    if sys.platform == "win32":
        _thread.interrupt_main(signal.Signals(number))
    else:
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, number)


def process_exists(pid: int) -> bool:
    """Whether a process runs; True where that cannot be seen."""
    if sys.platform == "win32":
        # Signal 0 is Ctrl-C there.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: mebibytes of memory in use and in all, and the share of time in which it computed, in percent."""

    name: str
    used_mib: int
    total_mib: int
    busy_percent: int | None

    def __str__(self) -> str:
        busy = "" if self.busy_percent is None else f" {self.busy_percent} %"
        return f"GPU{busy} {self.used_mib / 1024:.0f} of {self.total_mib / 1024:.0f} GiB"


def read_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine; none where `nvidia-smi` is not there or does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        done = subprocess.run(
            [tool, *_QUERY], capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Read `nvidia-smi`'s lines; a value that a GPU does not report is `[N/A]`."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.rsplit(",", 3)]
        if len(cells) == 4 and cells[1].isdigit() and cells[2].isdigit():
            busy = int(cells[3]) if cells[3].isdigit() else None
            found.append(Gpu(cells[0], int(cells[1]), int(cells[2]), busy))
    return tuple(found)
