"""The fault matrix with the bundled model: python -m tests.measure.faults WORKDIR [CASE...]

Each case starts `naturelm process`, on Ray where it matters, breaks something, runs the same command again and compares
the published files with those of an undisturbed run. Linux; the cases with mounts and other users need root.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from naturelm.synthetic.nights import make_night
from tests.archive import faults
from tests.archive.faults import committed, kill_one, start, wait_for_exit, wait_until
from tests.archive.runs import published, staged

NIGHTS = 4
# As LD_PRELOAD: the wall clock goes back by a day, or on by one, some seconds after the start.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static int (*real)(clockid_t, struct timespec *);
static long shift(long now) {
  static long began;
  if (!began) began = now;
  return now - began < 8 ? 0 : atol(getenv("CLOCK_JUMP_S"));
}
int clock_gettime(clockid_t id, struct timespec *t) {
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(id, t);
  if (code == 0 && id == CLOCK_REALTIME) t->tv_sec += shift(t->tv_sec);
  return code;
}
int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *where) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (where) *where = now.tv_sec;
  return now.tv_sec;
}
"""

Case = Callable[["Bench", Path], str]


class Bench:
    """An archive, the settings, and what an undisturbed run publishes."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.archive = work / "archive"
        if not self.archive.exists():
            for night in range(NIGHTS):
                make_night(self.archive / f"night{night}", seed=night)
        settings = work / "archive.yaml"
        settings.write_text(
            "job: {segment_minutes: 0.5, batch_size: 8}\naudio: {decode_timeout_s: 5}\n"
            "generation: {max_new_tokens: 16}\n"
        )
        self.options = ["--config", str(settings)]
        # Nothing to do where a case was run in this directory before.
        code, output = wait_for_exit(self.run(work / "undisturbed"))
        assert code == 0, output
        self.wanted = published(work / "undisturbed")

    def run(self, out: Path, *options: str, **how: object) -> subprocess.Popen[str]:
        if "--workers" not in options:
            options = (*options, "--workers", "0")
        return start("pocket", self.archive, out, *self.options, *options, **how)  # type: ignore[arg-type]

    def broken(self, out: Path, wanted: int, *options: str, **how: object) -> subprocess.Popen[str]:
        """Start a run and wait until it has committed something."""
        process = self.run(out, *options, **how)
        before = committed(out)
        wait_until(lambda: committed(out) >= max(wanted, before + 1), process)
        return process


def killed_processes(needle: str, workers: str) -> Case:
    def case(bench: Bench, out: Path) -> str:
        process = bench.broken(out, 1, "--workers", workers)
        times = 0
        for wanted in (2, 8, 16):
            wait_until(lambda: committed(out) >= wanted or process.poll() is not None)  # noqa: B023
            time.sleep(0.2 * random.random())
            times += kill_when_there(process, needle)
        code, output = wait_for_exit(process)
        return f"{times} killed, exit code {code}, no help needed" if code == 0 else output

    return case


def kill_when_there(process: subprocess.Popen[str], needle: str) -> bool:
    """Kill one of a run's processes, which may live for a tenth of a second, again and again; False at its end."""
    while process.poll() is None:
        if kill_one(process.pid, needle):
            return True
    return False


def decoding_killed(bench: Bench, out: Path) -> str:
    # Decoding is far ahead of the model, and done soon.
    process = bench.run(out, "--workers", "2")
    times = 0
    for _ in range(3):
        times += kill_when_there(process, "_decode")
        time.sleep(0.3 * random.random())
    code, output = wait_for_exit(process)
    return f"{times} killed, exit code {code}, no help needed" if code == 0 else output


def driver_killed(bench: Bench, out: Path) -> str:
    for _ in range(3):
        process = bench.broken(out, 1)
        time.sleep(0.3 * random.random())
        process.kill()
        wait_for_exit(process)
    return "3 killed"


def signalled(times: int) -> Case:
    def case(bench: Bench, out: Path) -> str:
        process = bench.broken(out, 3, "--workers", "2")
        began = time.monotonic()
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.5)
        code, _ = wait_for_exit(process)
        return f"exit code {code} after {time.monotonic() - began:.1f} s"

    return case


def disk_full(bench: Bench, out: Path) -> str:
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", out], check=True)
    try:
        code, output = wait_for_exit(bench.run(out))
        stopped = "No space left on device" in output and "Traceback" not in output
        subprocess.run(["mount", "-o", "remount,size=64m", out], check=True)
        code_after, _ = wait_for_exit(bench.run(out))
        same = published(out) == bench.wanted
    finally:
        subprocess.run(["umount", out], check=True)
    # The comparison after all cases reads what was mounted.
    out.rmdir()
    shutil.copytree(bench.work / "undisturbed", out) if same else out.mkdir()
    return f"exit code {code}, reported {'in one sentence' if stopped else output}; then {code_after}"


def archive_unmounted(bench: Bench, out: Path) -> str:
    real = bench.work / "disk"
    bench.archive.rename(real)
    bench.archive.mkdir()
    subprocess.run(["mount", "--bind", real, bench.archive], check=True)
    try:
        process = bench.broken(out, 2)
    finally:
        subprocess.run(["umount", "--lazy", bench.archive], check=True)
    code, output = wait_for_exit(process)
    bench.archive.rmdir()
    real.rename(bench.archive)
    return f"exit code {code}, {'reported' if 'run the same command again' in output else output}"


def decoder_hangs(bench: Bench, out: Path) -> str:
    process = bench.broken(out, 1, "--batch-size", "1")
    found = kill_one(process.pid, "naturelm.audio.isolated", signal.SIGSTOP)
    code, _ = wait_for_exit(process)
    code_after, _ = wait_for_exit(bench.run(out, "--retry-failed"))
    return f"stopped: {found}, exit code {code}, with --retry-failed {code_after}"


def unreadable_directory(bench: Bench, out: Path) -> str:
    closed = bench.archive / "night1"
    closed.chmod(0)
    # Root reads everything but for these two capabilities.
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    try:
        code, output = wait_for_exit(bench.run(out, prefix=bound))
    finally:
        closed.chmod(0o755)
    is_named = "night1: corrupt (cannot be read: Permission denied)" in output
    code_after, _ = wait_for_exit(bench.run(out, "--prune"))
    named = "named" if is_named else f"NOT named: {output}"
    return f"exit code {code}, the directory is {named}; with --prune {code_after}"


def clock_jumps(seconds: int) -> Case:
    def case(bench: Bench, out: Path) -> str:
        shim = bench.work / "clock.so"
        if not shim.exists():
            command = ["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", shim, "-ldl"]
            subprocess.run(command, input=CLOCK, text=True, check=True)
        env = {"LD_PRELOAD": str(shim), "CLOCK_JUMP_S": str(seconds)}
        process = bench.broken(out, 2, "--batch-size", "1", env=env)
        process.kill()
        wait_for_exit(process)
        return "the first run killed after the jump"

    return case


CASES: dict[str, Case] = {
    "SIGKILL of processes that decode": decoding_killed,
    "SIGKILL of model actors": killed_processes("_AskActor", "2"),
    "SIGKILL of decoders (child processes)": killed_processes("naturelm.audio.isolated", "0"),
    "SIGKILL of the driver, three times": driver_killed,
    "Ctrl-C once": signalled(1),
    "Ctrl-C twice": signalled(2),
    "disk of the tables full": disk_full,
    "disk of the archive unmounted": archive_unmounted,
    "decoder hangs": decoder_hangs,
    "directory unreadable": unreadable_directory,
    "clock goes back a day": clock_jumps(-86400),
    "clock goes on a day": clock_jumps(86400),
}


def main() -> None:
    faults.PATIENCE_S = 1800.0
    work = Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(work)
    for number, (name, case) in enumerate(CASES.items()):
        if len(sys.argv) > 2 and not any(word in name for word in sys.argv[2:]):
            continue
        out = work / f"out{number}"
        shutil.rmtree(out, ignore_errors=True)
        began = time.monotonic()
        try:
            what = case(bench, out)
            code, output = wait_for_exit(bench.run(out))
            same = published(out) == bench.wanted and not staged(out) and code == 0
            result = "identical" if same else f"DIFFERENT {output}"
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            what, result = f"{type(error).__name__}: {error}", "NOT DONE"
        print(f"| {name} | {what} | {result} | {time.monotonic() - began:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
