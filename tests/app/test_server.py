"""What the server lets others do: nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from naturelm.app import server
from naturelm.app.ask import MAX_FILE_BYTES, Asker
from naturelm.cli.inference_app import inference_app
from naturelm.errors import NaturelmError
from tests.app.conftest import RunningApp
from tests.paths import SMALL_MODEL
from tests.tables.make_tables import write_results


@pytest.fixture(scope="module")
def client(app: RunningApp) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=app.address, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def config(client: httpx.Client) -> dict[str, Any]:
    return client.get("/config").json()


def secret_files(app: RunningApp) -> list[Path]:
    return [
        Path("/etc/passwd"),
        app.night.results / "analysis.yaml",
        app.night.archive / "planted.csv",
        app.night.archive / app.night.recordings[0]["path"],
        Path(__file__),
    ]


@pytest.mark.parametrize(
    "address",
    [
        "/gradio_api/file={path}",
        "/file={path}",
        "/gradio_api/file=.{path}",
        "/gradio_api/file=../../../../../../../../..{path}",
        "/gradio_api/file=file://{path}",
        "/gradio_api/file/{path}",
        "/static/../../../../../../../../..{path}",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..{path}",
        "/gradio_api/proxy=file://{path}",
        "/gradio_api/stream/x/0/0/{path}",
    ],
)
def test_no_address_reads_a_file_of_the_disk(address: str, app: RunningApp, client: httpx.Client) -> None:
    for path in secret_files(app):
        answer = client.get(address.format(path=path))
        assert answer.status_code in {400, 403, 404, 422}
        assert path.read_bytes()[:40] not in answer.content


def submitted(
    client: httpx.Client, config: dict[str, Any], files: Any, recorded: Any
) -> list[dict[str, Any]]:
    """What the server sends to a browser that asks about these files; it may be no browser that asks."""
    [ask] = [
        d
        for d in config["dependencies"]
        if "submit" in {target[1] for target in d["targets"]} and len(d["inputs"]) == 6
    ]
    session = uuid.uuid4().hex
    joined = client.post(
        "/gradio_api/queue/join",
        json={
            "fn_index": ask["id"],
            "data": [files, recorded, "Caption the audio.", 1, 10, []],
            "session_hash": session,
            "trigger_id": 1,
        },
    )
    assert joined.status_code == 200
    messages = []
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                messages.append(json.loads(line[5:]))
                if messages[-1]["msg"] in {"process_completed", "close_stream", "unexpected_error"}:
                    break
    return messages


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {}])
def test_a_path_on_the_disk_is_no_upload(
    meta: dict[str, Any], app: RunningApp, client: httpx.Client, config: dict[str, Any]
) -> None:
    for path in secret_files(app):
        file = {"path": str(path)} | meta
        aliased = {"path": "a.wav", "url": f"{app.address}/gradio_api/file={path}"} | meta
        for files, recorded in (([file], None), (None, file), ([aliased], None)):
            messages = submitted(client, config, files, recorded)
            assert messages[-1]["msg"] == "process_completed"
            assert "windows answered" not in json.dumps(messages)
            assert "naturelm-app-" not in json.dumps(messages)  # where a copy would be served from


def test_another_page_cannot_have_a_visitors_browser_ask(client: httpx.Client, app: RunningApp) -> None:
    assert client.get("/config", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.get("/config", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/config", headers={"Origin": "null"}).status_code == 403
    assert client.get("/config", headers={"Origin": app.address}).status_code == 200


def test_host_names_are_compared_without_case_and_with_their_port(
    client: httpx.Client, app: RunningApp
) -> None:
    port = app.address.rsplit(":", 1)[1]

    def status(**headers: str) -> int:
        return client.get("/config", headers=headers).status_code

    assert status(Host=f"LOCALHOST:{port}") == 200
    assert status(Host=f"LocalHost:{port}", Origin=f"http://localhost:{port}") == 200
    assert status(Host="localhost") == status(Host="localhost:1") == 403
    assert status(Host=f"localhost:{port}", Origin="http://localhost:1") == 403
    assert status(Host=f"localhost:{port}", Origin="http://[") == 403


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {}])
def test_an_address_in_place_of_an_upload_is_not_fetched(
    meta: dict[str, Any], client: httpx.Client, config: dict[str, Any]
) -> None:
    asked: list[str] = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Listening) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        file = {"path": f"http://127.0.0.1:{web.server_port}/a.wav", "url": "http://example.com/a.wav"} | meta
        for files, recorded in (([file], None), (None, file)):
            messages = submitted(client, config, files, recorded)
            assert messages[-1]["msg"] == "process_completed"
            assert "windows answered" not in json.dumps(messages)
        web.shutdown()
    assert asked == []


def test_no_address_is_even_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    processing_utils = pytest.importorskip("gradio.processing_utils")
    for name in (
        "async_ssrf_protected_download",
        "ssrf_protected_download",
        "save_url_to_cache",
        "unsafe_download",
    ):
        monkeypatch.setattr(processing_utils, name, getattr(processing_utils, name))
    server.build_app(Asker(str(SMALL_MODEL)), None)

    def look_up(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    for download in (processing_utils.save_url_to_cache, processing_utils.unsafe_download):
        with pytest.raises(ValueError, match="no addresses"):
            download("http://example.com/a.wav", "/tmp")
    with pytest.raises(ValueError, match="no addresses"):
        asyncio.run(processing_utils.async_ssrf_protected_download("http://example.com/a.wav", "/tmp"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_uploads_go_when_the_server_is_ended(name: str, tmp_path: Path) -> None:
    command = "from naturelm.cli.inference_app import inference_app; inference_app()"
    with subprocess.Popen(
        [sys.executable, "-c", command, "--model", str(SMALL_MODEL), "--port", "0"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[3]
            upload = httpx.post(
                f"{address}/gradio_api/upload", files={"files": ("a.wav", b"RIFF")}, timeout=60
            )
            assert upload.status_code == 200
            assert [path.name for path in tmp_path.rglob("*.wav")] == ["a.wav"]
            process.send_signal(getattr(signal, name))
            assert process.wait(30) in (128 + getattr(signal, name), -getattr(signal, name))
            assert list(tmp_path.glob("naturelm-app-*")) == []
        finally:
            process.kill()


def test_page_forbids_requests_to_other_hosts(client: httpx.Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "http" not in policy


def test_uploads_beyond_the_limit_are_refused(client: httpx.Client) -> None:
    def upload(size: int) -> int:
        return client.post("/gradio_api/upload", files={"files": ("a.wav", b"\0" * size)}).status_code

    assert upload(1000) == 200
    assert upload(MAX_FILE_BYTES + 1000) == 413


def test_analytics_are_off(config: dict[str, Any]) -> None:
    assert config["analytics_enabled"] is False


def test_functions_are_no_public_interface(client: httpx.Client) -> None:
    assert client.get("/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's list of sockets")
def test_server_listens_on_this_machine_only(app: RunningApp) -> None:
    port = int(app.address.rsplit(":", 1)[1])
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [
        line.split()[1] for line in lines if line.split()[1].endswith(wanted) and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F{wanted}"]


# --- starting


def test_without_gradio_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(NaturelmError, match=r"pip install 'naturelm\[app\]'"):
        server.build_app(Asker(str(SMALL_MODEL)), None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "no-such-model"], "there is no model 'no-such-model'"),
        (["--model", str(SMALL_MODEL), "--results", "{empty}"], "holds no results"),
        (["--model", str(SMALL_MODEL), "--port", "{taken}"], "is taken; give another --port"),
    ],
)
def test_start_mistakes_are_one_sentence(
    arguments: list[str], sentence: str, app: RunningApp, tmp_path: Path
) -> None:
    known = {"empty": tmp_path, "taken": app.address.rsplit(":", 1)[1]}
    result = CliRunner().invoke(inference_app, [argument.format(**known) for argument in arguments])
    assert isinstance(result.exception, NaturelmError)
    assert sentence in str(result.exception)


def test_without_results_there_is_only_the_ask_tab(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from naturelm.app.explore import Results
    from naturelm.app.page import build_page

    asker = Asker(str(SMALL_MODEL))

    def tabs(results: Results | None) -> list[str]:
        components = build_page(asker, results).get_config_file()["components"]
        return [part["props"]["label"] for part in components if part["type"] == "tabitem"]

    assert tabs(None) == ["Ask"]
    assert tabs(Results(write_results(tmp_path))) == ["Ask", "Explore"]
