"""Serving the page to this machine only."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from naturelm.app.ask import MAX_FILE_BYTES
from naturelm.errors import NaturelmError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from naturelm.app.ask import Asker
    from naturelm.app.explore import Results

HOST = "127.0.0.1"
_OWN_NAMES = frozenset({"127.0.0.1", "localhost"})
_HTTP_PORT = 80
_SHUTDOWN_S = 5

# Gradio's page needs scripts and styles within the page, and workers made from blobs to record sound.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class OwnPagesOnly:
    """Refuse requests that another web page makes, and keep the browser from contacting other hosts.

    A page on the internet may have a visitor's browser call 127.0.0.1, under its own name (DNS rebinding) or
    openly; the `Host` and `Origin` headers reveal it.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        # Names are the same in upper and lower case; a port that is left out is HTTP's.
        host = _with_port(headers.get(b"host", b"").decode("latin-1"))
        origin = headers.get(b"origin")
        foreign = origin is not None and _with_port(_netloc(origin.decode("latin-1"))) != host
        own_port = (scope.get("server") or ("", _HTTP_PORT))[1]
        if host not in {f"{name}:{own_port}" for name in _OWN_NAMES} or foreign:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"this page is for its own machine only"})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _with_port(netloc: str) -> str:
    name, colon, port = netloc.lower().partition(":")
    return f"{name}:{port}" if colon else f"{name}:{_HTTP_PORT}"


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # half of an IPv6 address
        return ""


def _refuse_download(url: str, cache_dir: str) -> str:
    raise ValueError("this page takes uploads and no addresses")


async def _refuse_download_later(url: str, cache_dir: str) -> str:
    return _refuse_download(url, cache_dir)


def build_app(asker: Asker, results: Results | None) -> FastAPI:
    """The page as an ASGI application.

    Raises
    ------
    NaturelmError
        Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio as gr
        from fastapi import FastAPI
        from gradio import processing_utils
    except ImportError:
        raise NaturelmError(
            "the web app needs gradio; install it with: pip install 'naturelm[app]'"
        ) from None

    from naturelm.app.page import build_page, css, theme

    # Gradio fetches the address that a visitor gives in place of an upload; no setting keeps it from that.
    processing_utils.async_ssrf_protected_download = _refuse_download_later
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = _refuse_download
    processing_utils.unsafe_download = _refuse_download

    page = build_page(asker, results)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(OwnPagesOnly)
    # allowed_paths stays empty: Gradio then serves nothing but its own files and those it made for visitors.
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=HOST,
        allowed_paths=[],
        max_file_size=MAX_FILE_BYTES,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        footer_links=[],
        run_history=False,
        theme=theme(),
        css=css(),
    )
    # Unless a page counts as launched, Gradio takes any path on the disk that a visitor names for an upload.
    page.has_launched = True
    return app


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def serve(asker: Asker, results: Results | None, port: int) -> None:
    """Serve the page on 127.0.0.1 until interrupted.

    Raises
    ------
    NaturelmError
        Gradio is not installed, or the port is taken.
    """
    # As an exception, a signal that ends the process lets the folder of the uploads be removed. uvicorn sends itself
    # again the one that ended it.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, _exit)
    # Uploads lie in a folder of this process that only its user may enter, and go when it ends.
    with tempfile.TemporaryDirectory(prefix="naturelm-app-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        app = build_app(asker, results)
        import uvicorn

        config = uvicorn.Config(
            app, host=HOST, port=port, log_level="warning", timeout_graceful_shutdown=_SHUTDOWN_S
        )
        try:
            socket = config.bind_socket()
        except SystemExit:
            raise NaturelmError(f"port {port} is taken; give another --port") from None
        # From here on connections wait; uvicorn takes longer to accept them.
        socket.listen(config.backlog)
        print(f"naturelm is at http://{HOST}:{socket.getsockname()[1]} (Ctrl+C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[socket])
