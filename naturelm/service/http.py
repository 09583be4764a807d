"""The server: `GET /health`, `GET /info` and `POST /predict` on 127.0.0.1."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naturelm.app.server import HOST, Message, OwnPagesOnly, Receive, Scope, Send
from naturelm.errors import NaturelmError
from naturelm.service.answering import Answering
from naturelm.service.batching import Batcher
from naturelm.service.request_sounds import Sounds
from naturelm.service.schema import SCHEMA_VERSION, BadRequestError, Response, read_items

if TYPE_CHECKING:
    from fastapi import FastAPI

MAX_BODY_BYTES = 512 << 20
"""Size of one request's body."""

_NEEDS_EXTRA = "the server needs FastAPI; install it with: pip install 'naturelm[app]'"


class LimitedBodies:
    """Refuse bodies of more than `MAX_BODY_BYTES` with status 413, before they are in memory."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY_BYTES:
                await _send_json(send, 413, {"error": f"the body is larger than {MAX_BODY_BYTES >> 20} MiB"})
                return
        whole: Message = {"type": "http.request", "body": bytes(body), "more_body": False}
        sent = False

        async def receive_whole() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return whole

        await self._app(scope, receive_whole, send)


async def _send_json(send: Send, status: int, content: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


def build_service(answering: Answering, info: dict[str, Any]) -> FastAPI:
    """The server as an ASGI application.

    Parameters
    ----------
    answering : Answering
    info : dict
        What `GET /info` answers, `max_batch_size` among it.

    Raises
    ------
    NaturelmError
        FastAPI is not installed.
    """
    try:
        from fastapi import FastAPI, Request
        from fastapi.concurrency import run_in_threadpool
        from fastapi.responses import JSONResponse
    except ImportError:
        raise NaturelmError(_NEEDS_EXTRA) from None

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LimitedBodies)
    app.add_middleware(OwnPagesOnly)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/info")
    def get_info() -> dict[str, Any]:
        return info

    async def predict(request: Request) -> JSONResponse:
        try:
            items = read_items(json.loads(await request.body()))
        except BadRequestError as error:
            return JSONResponse({"error": str(error)}, 400)
        except (ValueError, RecursionError):
            return JSONResponse({"error": "the body is not valid JSON"}, 400)
        if len(items) > info["max_batch_size"]:
            reason = f"the request has {len(items)} items; send at most {info['max_batch_size']}"
            return JSONResponse({"error": reason}, 413)
        responses = await run_in_threadpool(answering.answer, items)
        return JSONResponse(Response(responses=responses).model_dump())

    # FastAPI reads annotations in this module, which does not import it.
    app.add_route("/predict", predict, methods=["POST"])
    return app


def serve_model(
    name: str,
    *,
    llm: str | None = None,
    weights: str = "auto",
    port: int = 0,
    max_batch_size: int = 32,
    num_beams: int = 2,
    root: Path | None = None,
) -> None:
    """Answer questions about sounds by HTTP on 127.0.0.1 until interrupted.

    Parameters
    ----------
    name : str
        Preset, checkpoint directory or hub id of a language model.
    llm : str, optional
        Base LLM, directory or hub id.
    weights : str
        As of `naturelm.load_model`.
    port : int
        0 takes a free one.
    max_batch_size : int
        Most items of one request.
    num_beams : int
        Beams of the search where a request gives no temperature.
    root : Path, optional
        Directory below which requests may name files.

    Raises
    ------
    NaturelmError
        FastAPI is not installed, the model cannot be loaded or is a classifier, the root is not a directory, or the
        port is taken.
    """
    try:
        import uvicorn
    except ImportError:
        raise NaturelmError(_NEEDS_EXTRA) from None
    if root is not None and not root.is_dir():
        raise NaturelmError(f"--root {root}: is not a directory; give the one that holds the recordings")

    from naturelm.engine.engine import Engine
    from naturelm.engine.queries import EngineQuery
    from naturelm.models import load_model
    from naturelm.models.base import require_language_model
    from naturelm.models.presets import known_weights

    revision = known_weights(name).revision
    model = require_language_model(load_model(name, llm=llm, weights=weights))
    sounds = Sounds(root)
    # The engine needs a query to start with.
    batcher = Batcher(Engine(model, [EngineQuery("What is in the audio?")], num_beams=num_beams))
    info = {
        "name": "naturelm",
        "model": name,
        "model_revision": revision or "",
        "audio_payload_types": sounds.payload_types,
        "max_batch_size": max_batch_size,
        "supports_batching": max_batch_size > 1,
        "schema_versions": [SCHEMA_VERSION],
        "sample_rate_hz": model.sample_rate_hz,
        "window_s": model.window_s,
    }
    try:
        app = build_service(Answering(model, batcher, sounds), info)
        config = uvicorn.Config(app, host=HOST, port=port, log_level="warning", lifespan="off")
        try:
            socket = config.bind_socket()
        except SystemExit:
            raise NaturelmError(f"port {port} is taken; give another --port") from None
        # From here on connections wait; uvicorn takes longer to accept them.
        socket.listen(config.backlog)
        print(f"{name} is at http://{HOST}:{socket.getsockname()[1]} (Ctrl+C ends it)", flush=True)
        # uvicorn raises the signal again that ended it.
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[socket])
    finally:
        batcher.close()
        sounds.close()
