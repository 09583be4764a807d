"""`_lock.json`: one driver at a time writes into an output directory.

The lock says who holds it (host, process) and counts heartbeats. On the same machine a holder is gone when its process
is; on another, when its heartbeats stop while they are watched. No clock is compared with another: clocks are wrong,
and jump. Disks give the lock to one of two that come at the same moment. Where two take over a dead one's lock at once,
or in an object store, the last to write has it, and the other finds out at its next heartbeat.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from naturelm.errors import NaturelmError
from naturelm.results.layout import LOCK, writes_to
from naturelm.storage import Location, write_whole

_BEAT_S = 10.0
# Three heartbeats missed, and a slow disk.
_SILENCE_S = 35.0
_LOOK_S = 1.0
_SETTLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Attributes
    ----------
    host, pid
        The process that drives the run.
    machine : str
        Boot and process namespace in which `pid` means something.
    born : int
        When the process started, in clock ticks since boot: process ids are used again.
    started, heartbeat : str
        Times in UTC, for people.
    beats : int
        Counts heartbeats.
    token : str
        Another one for each run.
    """

    host: str
    pid: int
    machine: str
    born: int
    started: str
    heartbeat: str
    beats: int
    token: str

    @classmethod
    def me(cls) -> Holder:
        now = _now()
        return cls(
            socket.gethostname(), os.getpid(), _machine(), _born(os.getpid()), now, now, 0, uuid.uuid4().hex
        )

    @property
    def is_local(self) -> bool:
        """Whether its process could be seen from here."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def is_alive_here(self) -> bool:
        """Whether its process runs on this machine; of use only where `is_local`."""
        return self.born != 0 and _born(self.pid) == self.born


class Lock:
    """The lock of an output directory; used as a context.

    Parameters
    ----------
    directory : Path or StorePath
        The output directory; it exists.
    report : callable
        Told in one sentence why it takes long.
    lost : callable
        Called, from another thread, where another run has taken the lock.
    """

    def __init__(
        self, directory: Location, report: Callable[[str], None], lost: Callable[[], None] | None = None
    ) -> None:
        self._directory = directory
        self._path = directory / LOCK
        self._report = report
        self._lost = lost
        self._own = Holder.me()
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def check(self) -> None:
        """Refuse where a living run on this machine holds the lock; for all others see `acquire`.

        Raises
        ------
        NaturelmError
            It does.
        """
        try:
            holder = read_lock(self._directory)
        except OSError:
            # What is wrong with the directory is reported by the code that makes it.
            return
        if holder is not None and holder.is_local and holder.is_alive_here:
            raise self._refusal(holder)

    def acquire(self) -> None:
        """Take the lock, from a dead run too.

        Raises
        ------
        NaturelmError
            A living run holds it.
        RunStopped
            The directory cannot be written.
        """
        with writes_to(self._directory):
            if not self._create():
                self.check()
                self._watch()
                self._write()
                time.sleep(_SETTLE_S)
                holder = read_lock(self._directory)
                if holder is None or holder.token != self._own.token:
                    raise self._refusal(holder)
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Give the lock back, where it is still this run's."""
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        with suppress(OSError):
            if self._is_own():
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _create(self) -> bool:
        """Make the lock where there is none, if the place supports it."""
        if not isinstance(self._path, Path):
            return False
        draft = self._path.with_name(f".{LOCK}.{self._own.token}.tmp")
        draft.write_bytes(self._content())
        try:
            os.link(draft, self._path)
        except OSError:
            # It exists, or the disk knows no links: then it is written like in a store.
            return False
        finally:
            draft.unlink()
        return True

    def _watch(self) -> None:
        """Return when nobody holds the lock; raise where its holder gives a sign of life."""
        reported, seen = False, self._read_raw()
        began = time.monotonic()
        while seen is not None:
            holder = read_lock(self._directory)
            if holder is not None and holder.is_local:
                if holder.is_alive_here:
                    raise self._refusal(holder)
                return
            if time.monotonic() - began >= _SILENCE_S:
                return
            if not reported:
                who = "another run" if holder is None else f"a run on {holder.host} (process {holder.pid})"
                self._report(
                    f"{self._path} is held by {who}: watching for {_SILENCE_S:g} s whether it is alive"
                )
                reported = True
            time.sleep(_LOOK_S)
            now = self._read_raw()
            if now is not None and now != seen:
                raise self._refusal(read_lock(self._directory))
            seen = now

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            # A full disk, or one that is away for a while, is met by whoever writes rows.
            with suppress(OSError):
                if not self._is_own():
                    if self._lost is not None:
                        self._lost()
                    return
                self._own = replace(self._own, heartbeat=_now(), beats=self._own.beats + 1)
                self._write()

    def _is_own(self) -> bool:
        holder = read_lock(self._directory)
        return holder is not None and holder.token == self._own.token

    def _write(self) -> None:
        write_whole(self._path, self._content())

    def _content(self) -> bytes:
        return json.dumps(asdict(self._own), indent=1).encode()

    def _read_raw(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def _refusal(self, holder: Holder | None) -> NaturelmError:
        who = (
            ""
            if holder is None
            else f", process {holder.pid} on {holder.host}, started {holder.started[:19]}Z"
        )
        return NaturelmError(
            f"{self._directory}: another run is writing there{who}; wait for it, stop it, or give another --out"
        )


def read_lock(directory: Location) -> Holder | None:
    """Who holds an output directory's lock; None where nobody does, or the lock is damaged."""
    try:
        found = json.loads((directory / LOCK).read_bytes())
        return Holder(**found)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _machine() -> str:
    """Where process ids mean the same; "" where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 where there is none, or it is dead and not yet reaped."""
    try:
        # The name before the last parenthesis may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
