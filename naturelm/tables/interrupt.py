"""Ctrl-C and time limits while DuckDB works."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from naturelm.errors import NaturelmError
from naturelm.tables.row_formats import remove_unfinished

# DuckDB looks for interruptions between chunks of rows, and a single value may take long.
_PATIENCE_S = 5.0
_INTERRUPTED_IN_DUCKDB = "Query interrupted"
_INTERRUPTED = 130
_ENDED = 0


@contextmanager
def interruptible(
    connection: duckdb.DuckDBPyConnection, timeout_s: float | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Let Ctrl-C end a connection's query at once, or a time limit, and close the connection in the end.

    Python's own handler waits until DuckDB returns, which takes as long as the query; Python's C handler writes the
    signal's number to a socket at once, and a thread that reads it interrupts DuckDB. Where DuckDB does not heed that
    within seconds, the process ends. Outside the main thread, where no signal comes, the connection is only closed.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    timeout_s : float, optional
        Seconds after which the query is ended.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, whatever DuckDB calls it.
    NaturelmError
        The time limit has passed.
    """
    if threading.current_thread() is not threading.main_thread():
        with connection:
            yield connection
        return
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    interrupted, timed_out = threading.Event(), threading.Event()
    late = (
        f"the query took longer than --timeout {timeout_s or 0:g} seconds; select less, or give it more time"
    )

    def watch() -> None:
        number = _next_signal(reads, timeout_s)
        if number == _ENDED:
            return
        (timed_out if number is None else interrupted).set()
        connection.interrupt()
        if _next_signal(reads, _PATIENCE_S) != _ENDED:
            remove_unfinished()
            sys.stderr.write(f"Error: {late}\n" if timed_out.is_set() else "interrupted\n")
            sys.stderr.flush()
            os._exit(2 if timed_out.is_set() else _INTERRUPTED)

    watcher = threading.Thread(target=watch, daemon=True)
    before = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield connection
    except Exception as error:
        if timed_out.is_set():
            raise NaturelmError(late) from None
        # DuckDB looks for signals too, and may raise before the thread has read the socket.
        if interrupted.is_set() or str(error) == _INTERRUPTED_IN_DUCKDB:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.set_wakeup_fd(before)
        writes.close()
        watcher.join()
        reads.close()
        connection.close()


def _next_signal(reads: socket.socket, within_s: float | None) -> int | None:
    """Wait for Ctrl-C: its number, or `_ENDED` where nobody waits any more, or None where the time is over."""
    deadline_s = None if within_s is None else time.monotonic() + within_s
    while True:
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        if not select.select([reads], [], [], left_s)[0]:
            return None
        number = reads.recv(1)
        if not number:
            return _ENDED
        if number[0] == signal.SIGINT:
            return int(signal.SIGINT)
