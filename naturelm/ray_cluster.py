"""Joining a Ray cluster, or starting one here."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from naturelm.errors import NaturelmError, RunStopped
from naturelm.machine import memory_bytes, usable_cores

KNOCK_S = 10
_START_TRIES = 3


def start_ray(address: str | None) -> None:
    """Join a Ray cluster, or start a local one, without a word.

    Raises
    ------
    NaturelmError
        No cluster answers at `address`.
    RunStopped
        Ray cannot be started.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        _start_here(quiet)
        return
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NaturelmError(
            f"{address}: no Ray cluster answers there ({reason}); check --address or leave it out"
        ) from None


def _start_here(quiet: dict[str, Any]) -> None:
    store_bytes = min(8 << 30, max(128 << 20, (memory_bytes() or 0) // 8))
    for tries_left in reversed(range(_START_TRIES)):
        try:
            with _silenced():
                ray.init(
                    # Not "auto": a stale record of an earlier cluster must not be joined.
                    address="local",
                    num_cpus=usable_cores(),
                    include_dashboard=False,
                    object_store_memory=store_bytes,
                    **quiet,
                )
            return
        except Exception as error:
            # Ray raises bare exceptions, of a machine that is too busy to start it within half a minute for one.
            ray.shutdown()
            if not tries_left:
                raise RunStopped(
                    f"Ray cannot be started here ({error}); run the same command again"
                ) from error


def _knock(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would go on trying for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep Ray's core from writing to the terminal about every actor pool, and about being kept from it.

    It writes past Python; what goes wrong still comes as an exception.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: a driver that starts Ray is made to exit at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
