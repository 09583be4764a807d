"""Memory and use of this machine's GPUs, as NVIDIA's own tool tells them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

_QUERY = ["--query-gpu=name,memory.used,memory.total,utilization.gpu", "--format=csv,noheader,nounits"]
_PATIENCE_S = 5.0


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
        said = subprocess.run(
            [tool, *_QUERY], capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(said.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Read `nvidia-smi`'s lines; a value that a GPU does not tell is `[N/A]`."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.rsplit(",", 3)]
        if len(cells) == 4 and cells[1].isdigit() and cells[2].isdigit():
            busy = int(cells[3]) if cells[3].isdigit() else None
            found.append(Gpu(cells[0], int(cells[1]), int(cells[2]), busy))
    return tuple(found)
