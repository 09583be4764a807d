"""Real servers of S3 and of Google Cloud Storage on this machine, and one in front of S3 that can fail."""

from __future__ import annotations

import http.server
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LINE = re.compile(r'"(?:\x1b\[[0-9;]*m)*([A-Z]+) (\S+) HTTP')


class _Server:
    """A server in a process of its own, on a free port of this machine."""

    def __init__(self, *command: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 - as long as the server
        self._server = subprocess.Popen(
            [part.format(port=self.port) for part in command], stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.endpoint, timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                if time.monotonic() > deadline or self._server.poll() is not None:
                    raise
                time.sleep(0.1)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.kill()
        self._server.wait()
        self._log.close()


class ObjectStore(_Server):
    """moto's server of S3."""

    def __init__(self) -> None:
        super().__init__(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create(self, bucket: str) -> None:
        import boto3

        where = {"LocationConstraint": self.environment["AWS_REGION"]}
        boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration=where)

    def requests(self) -> list[str]:
        """Method and path of every request so far."""
        return [" ".join(found) for found in _LINE.findall(Path(self._log.name).read_text(errors="replace"))]


class GoogleStore(_Server):
    """An emulator of Google Cloud Storage."""

    def __init__(self) -> None:
        program = str(Path(sys.executable).parent / "gcp-storage-emulator")
        super().__init__(program, "start", "--in-memory", "--host=127.0.0.1", "--port={port}")

    @property
    def environment(self) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": self.endpoint}

    def create(self, bucket: str) -> None:
        body = json.dumps({"name": bucket}).encode()
        url = f"{self.endpoint}/storage/v1/b?project=night"
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()


@contextmanager
def failing(store: ObjectStore, status: int, after: int = 0) -> Iterator[str]:
    """The endpoint of a server that hands `after` GETs with a range on to `store`, and then says `status`."""
    left = [after]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.command == "GET" and self.headers["Range"]:
                left[0] -= 1
            if left[0] < 0 or after == 0:
                self._say(status, {}, b"")
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            asked = urllib.request.Request(store.endpoint + self.path, None, headers, method=self.command)
            with urllib.request.urlopen(asked) as answer:
                self._say(answer.status, dict(answer.headers), answer.read())

        do_HEAD = do_GET

        def _say(self, code: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(code)
            for name, value in headers.items():
                if name.lower() not in (
                    "content-length",
                    "connection",
                    "server",
                    "date",
                    "transfer-encoding",
                ):
                    self.send_header(name, value)
            length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
