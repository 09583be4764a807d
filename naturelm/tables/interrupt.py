"""Ctrl-C while DuckDB works."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

_INTERRUPTED_IN_DUCKDB = "Query interrupted"


@contextmanager
def interruptible(connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """Let Ctrl-C end what a connection is asked at once, and close it in the end.

    Python's own handler waits until DuckDB returns, which takes as long as the query; Python's C handler writes the
    signal's number to a socket at once, and a thread that reads it tells DuckDB. Outside the main thread, where no
    signal comes, the connection is only closed.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, whatever DuckDB calls it.
    """
    if threading.current_thread() is not threading.main_thread():
        with connection:
            yield connection
        return
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    interrupted = threading.Event()

    def watch() -> None:
        while number := reads.recv(1):
            if number[0] == signal.SIGINT:
                interrupted.set()
                connection.interrupt()

    watcher = threading.Thread(target=watch, daemon=True)
    before = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield connection
    except Exception as error:
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
