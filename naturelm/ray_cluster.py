"""Joining a Ray cluster, or starting one on this machine.

Whoever reaches a Ray cluster can run code on it. A Ray that is started here therefore listens on the loopback only and
requires a token, and a cluster that is joined gets the token that the user has for it.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import ray

from naturelm.errors import NaturelmError, RunStopped
from naturelm.machine import memory_bytes, usable_cores

# Private in ray 2.60, and without a public counterpart: where a local Ray listens, and that Ray reads its environment
# again. The second two are in compiled code, whose stubs do not list them.
try:
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
except ImportError:
    ray_constants = Config = AuthenticationTokenLoader = None

_LOG = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10
_START_TRIES = 3
_MODE = "RAY_AUTH_MODE"
_TOKEN = "RAY_AUTH_TOKEN"


@contextmanager
def connected_ray(
    address: str | None, *, cores: int | None = None, store_bytes: int | None = None
) -> Iterator[None]:
    """Use the Ray of this process; where there is none, join a cluster or start a local Ray, and leave it after.

    Parameters
    ----------
    address : str or None
        A cluster to join; None starts a local Ray.
    cores, store_bytes : int, optional
        CPU cores and bytes of object store of a local Ray; by default all cores that this process may use and an
        eighth of the memory.

    Raises
    ------
    NaturelmError
        The cluster at `address` cannot be joined.
    RunStopped
        A local Ray cannot be started.
    """
    if ray.is_initialized():
        yield
        return
    with _environment(_token_variables() if address else _new_token()):
        with _unchanged_sigterm(), _silent_stderr():
            if address is None:
                _start(cores or usable_cores(), store_bytes or _default_store_bytes())
            else:
                _join(address)
        try:
            yield
        finally:
            ray.shutdown()


def _start(cores: int, store_bytes: int) -> None:
    for tries_left in reversed(range(_START_TRIES)):
        try:
            with _on_loopback():
                ray.init(
                    # Not "auto": a stale record of an earlier cluster must not be joined.
                    address="local",
                    num_cpus=cores,
                    include_dashboard=False,
                    object_store_memory=store_bytes,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            return
        except Exception as error:
            # Ray raises bare exceptions, for example when a busy machine does not start it within half a minute.
            ray.shutdown()
            if not tries_left:
                raise RunStopped(
                    f"Ray cannot be started on this machine ({error}); run the same command again"
                ) from error


def _join(address: str) -> None:
    try:
        _check_listening(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ray.exceptions.AuthenticationError as error:
        raise NaturelmError(f"--address {address}: {error.message}") from None
    except (OSError, ValueError, RuntimeError) as error:
        # Ray reports a wrong token as a failed connection, too.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NaturelmError(
            f"--address {address}: Ray cannot be joined there ({reason}); check the address, and the cluster's "
            f"token in {_TOKEN}, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        ) from None


def _check_listening(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would retry for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _default_store_bytes() -> int:
    return min(8 << 30, max(128 << 20, (memory_bytes() or 0) // 8))


def _new_token() -> dict[str, str]:
    """Require a token, whatever Ray's default is: a new one, or the one in the environment."""
    return {_MODE: "token", _TOKEN: os.environ.get(_TOKEN) or secrets.token_hex(32)}


def _token_variables() -> dict[str, str]:
    """Send the user's token to the cluster; Ray itself sends it to an explicit address only if the mode is set."""
    if not _can_reload_authentication():
        return {}
    loader = AuthenticationTokenLoader.instance()
    try:
        has_token = loader.has_token(ignore_auth_mode=True)
    except ray.exceptions.AuthenticationError as error:
        raise NaturelmError(error.message) from None
    return {} if _MODE in os.environ or not has_token else {_MODE: "token"}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of Ray, for this process and those it starts, and reset them after."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    _reload_authentication()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _reload_authentication()


@cache
def _can_reload_authentication() -> bool:
    """Whether Ray can read its environment again; the log reports once where it cannot."""
    if hasattr(Config, "initialize") and hasattr(AuthenticationTokenLoader, "instance"):
        return True
    _LOG.warning(
        "Ray %s reads %s only when it is imported: set it, and %s, before starting this program",
        ray.__version__,
        _MODE,
        _TOKEN,
    )
    return False


@cache
def _can_stay_on_loopback() -> bool:
    """Whether Ray can be made to listen on the loopback only; the log reports once where it cannot."""
    if hasattr(ray_constants, "ENABLE_RAY_CLUSTER"):
        return True
    _LOG.warning("Ray %s listens on all addresses of this machine; it requires a token", ray.__version__)
    return False


def _reload_authentication() -> None:
    if not _can_reload_authentication():
        return
    # Ray reads the environment when it is imported.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have a Ray that is started meanwhile listen on the loopback only.

    Ray does so by default on macOS and Windows, and has no public setting for it on Linux: an explicit
    `_node_ip_address` of 127.0.0.1 is replaced by the machine's outward address.
    """
    if not _can_stay_on_loopback():
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep Ray's core, which writes past Python, from writing to the terminal; errors still arrive as exceptions."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    terminal, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(null)


@contextmanager
def _unchanged_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM: Ray replaces it by one that exits at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
