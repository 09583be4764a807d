"""Decoding in a child process, so that a file can neither hang nor crash the one that asks.

libsndfile is C: a truncated file has made it search for ever, and a hostile one may make it crash. The child
is started once and serves request after request; when it makes no progress it is killed, and the next request
gets a fresh one.

Both ends speak over pipes. A request is a length (4 bytes) and JSON. The child answers with messages: a kind,
a length (1 and 4 bytes) and a body: `P` still decoding, `C` samples, `L` a span's band levels, `M` its marks, `S` a
span is done (JSON).
"""

from __future__ import annotations

import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from naturelm.audio.levels import BANDS, BandLevels
from naturelm.audio.marks import SecondMarks, pack, unpack
from naturelm.audio.streaming import DecodeError, SoundStream
from naturelm.storage import StoreError
from naturelm.windows import SAMPLE_RATE_HZ

_MESSAGE = struct.Struct("<cI")
_LENGTH = struct.Struct("<I")
_LEVELS_HEAD = struct.Struct("<dd")
# Messages that wait for their reader: the child decodes on meanwhile, and memory stays bounded.
_MOST_WAITING = 16
_START_S = 120.0

# Codec frames that an encoder's tag counts and a decoder trims.
_APPROXIMATE_S = 0.25
# Resampling rounds a length to whole samples, once at each end.
_ROUNDING_SAMPLES = 2


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """Spans of one recording, to be decoded in one pass.

    Attributes
    ----------
    path : str
        The file.
    spans : tuple of (float, float or None)
        Starts and ends in seconds within the recording, in order of their starts; they may overlap. An end
        of None is the recording's.
    channel : int, optional
        Channel to take, from 0; the mean of all where not given.
    with_levels : bool
        Measure band levels too.
    """

    path: str
    spans: tuple[tuple[float, float | None], ...]
    channel: int | None = None
    with_levels: bool = False


@dataclass(frozen=True, slots=True)
class DecodedSpan:
    """A span's sound.

    Attributes
    ----------
    pcm : bytes
        float16 samples, mono, 16 kHz, within [-1, 1]; `pcm_samples` reads them.
    start_s : float
        As requested.
    decoded_s : float
        Seconds decoded: the whole span's, or less where the sound ends before.
    end_of_file : bool
        The recording ends in or before this span.
    status : {"ok", "partial", "corrupt", "unsupported", "timeout", "unreachable"}
        `partial`: the sound ends before the span does. `corrupt`: there is none in the whole file, or it
        crashed the decoder. `unsupported`: no such channel. `timeout`: no progress; what came before is kept.
        `unreachable`: the object store failed, or the child cannot be started, which says nothing about the
        recording.
    error : str, optional
        One sentence where the status is not `ok`.
    levels : BandLevels, optional
        Where the request asks for them and something was decoded.
    marks : SecondMarks, optional
        What was found wrong with the sound, of all seconds of the span and perhaps others; None where nothing was
        decoded.
    """

    pcm: bytes
    start_s: float
    decoded_s: float
    end_of_file: bool
    status: str
    error: str | None
    levels: BandLevels | None = None
    marks: SecondMarks | None = None


def pcm_samples(pcm: bytes) -> npt.NDArray[np.float32]:
    """The samples of a `DecodedSpan`: float32 [samples] at 16 kHz."""
    return np.frombuffer(pcm, np.float16).astype(np.float32)


class IsolatedDecoder:
    """Decodes in a child process, which starts at the first request.

    Not for several threads at once: give each its own.

    Parameters
    ----------
    timeout_s : float
        Seconds without progress after which a file is given up.
    """

    def __init__(self, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._child: _Child | None = None

    def decode(self, request: DecodeRequest) -> Iterator[DecodedSpan]:
        """Decode a request's spans, one after the other; memory holds one span.

        A file that crashes the child, or a child that does not start, is tried once more, in case something else killed
        it.

        Yields
        ------
        DecodedSpan
            One for each span of the request, whatever happens.
        """
        done, crashes = 0, 0
        # A request that is left half read leaves its messages in the pipe.
        clean = False
        try:
            while done < len(request.spans):
                try:
                    for span in self._run(request, done):
                        yield span
                        done += 1
                except _Crash as crash:
                    self.close()
                    crashes += 1
                    if crashes > 1:
                        yield from _failed(request, done, "corrupt", f"the decoder crashed on it ({crash})")
                        done = len(request.spans)
                except _Hang as hang:
                    self.close()
                    sentence = f"decoding made no progress for {self._timeout_s:g} s"
                    yield from _failed(request, done, "timeout", sentence, hang.pcm)
                    done = len(request.spans)
                except _NoStart as failure:
                    crashes += 1
                    if crashes > 1:
                        yield from _failed(request, done, "unreachable", str(failure))
                        done = len(request.spans)
            clean = True
        finally:
            if not clean:
                self.close()

    def close(self) -> None:
        """End the child. A later request starts another."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, request: DecodeRequest, done: int) -> Iterator[DecodedSpan]:
        if self._child is None:
            self._child = _Child()
        child = self._child
        child.send(
            {
                "path": request.path,
                "channel": request.channel,
                "spans": request.spans[done:],
                "with_levels": request.with_levels,
            }
        )
        for start_s, _ in request.spans[done:]:
            chunks: list[bytes] = []
            levels: BandLevels | None = None
            marks: SecondMarks | None = None
            while True:
                message = child.receive(self._timeout_s)
                if message is None:
                    raise _Hang(b"".join(chunks))
                kind, body = message
                if kind == b"S":
                    break
                if kind == b"C":
                    chunks.append(body)
                elif kind == b"L":
                    levels = _unpacked_levels(body)
                elif kind == b"M":
                    marks = unpack(body)
            yield DecodedSpan(
                pcm=b"".join(chunks), start_s=start_s, levels=levels, marks=marks, **json.loads(body)
            )


class _Crash(Exception):
    """The child died."""


class _NoStart(Exception):
    """The child cannot be started."""


class _Hang(Exception):
    def __init__(self, pcm: bytes) -> None:
        super().__init__()
        self.pcm = pcm


def _failed(
    request: DecodeRequest, done: int, status: str, sentence: str, pcm: bytes = b""
) -> Iterator[DecodedSpan]:
    for start_s, _ in request.spans[done:]:
        yield DecodedSpan(pcm, start_s, len(pcm) / 2 / SAMPLE_RATE_HZ, False, status, sentence)
        pcm = b""


# A message, or None at the end of the pipe.
_Inbox = queue.Queue[tuple[bytes, bytes] | None]


class _Child:
    """The child process and its two pipes, seen from outside.

    A thread reads the answers: waiting for a pipe with a time limit is not possible on every system, waiting for a
    queue is.
    """

    def __init__(self) -> None:
        package_parent = str(Path(__file__).resolve().parents[2])
        search_path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "naturelm.audio.isolated"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": search_path},
                # Ctrl-C reaches every process of the terminal's group; this one ends when its parent does.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise _NoStart(f"the decoder process does not start ({error.strerror})") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin.fileno()
        self._inbox: _Inbox = queue.Queue(_MOST_WAITING)
        reader = threading.Thread(target=_receive, args=(self._process.stdout, self._inbox), daemon=True)
        reader.start()
        self.kill = weakref.finalize(self, _kill, self._process, reader, self._inbox)
        try:
            ready = self.receive(_START_S)
        except _Crash as crash:
            raise _NoStart(f"the decoder process does not start ({crash})") from None
        if ready is None:
            self.kill()
            raise _NoStart(f"the decoder process did not start within {_START_S:g} s")

    def send(self, request: dict[str, Any]) -> None:
        body = json.dumps(request).encode()
        try:
            _write(self._requests, _LENGTH.pack(len(body)) + body)
        except OSError:
            # The pipe is broken; Windows has several names for that.
            raise _Crash(self._cause()) from None

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """The next message, or None where none came in time."""
        try:
            message = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if message is None:
            raise _Crash(self._cause())
        return message

    def _cause(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


def _receive(answers: BinaryIO, inbox: _Inbox) -> None:
    """Read messages until the pipe ends, in a thread."""
    while len(header := answers.read(_MESSAGE.size)) == _MESSAGE.size:
        kind, length = _MESSAGE.unpack(header)
        body = answers.read(length)
        if len(body) < length:
            break
        inbox.put((kind, body))
    inbox.put(None)


def _kill(process: subprocess.Popen[bytes], reader: threading.Thread, inbox: _Inbox) -> None:
    process.kill()
    process.wait()
    # The reader may wait for room, and ends with the pipe.
    while reader.is_alive():
        with suppress(queue.Empty):
            inbox.get(timeout=0.01)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _write(descriptor: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def decode_spans(request: dict[str, Any]) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Serve one request, in the child: the messages that answer it."""
    done = 0
    try:
        for kind, body in _decoded_spans(request):
            yield kind, body
            done += kind == b"S"
    except StoreError as error:
        sentence = f"{error.filename}: cannot be read ({error.strerror})"
        for _ in request["spans"][done:]:
            yield b"S", _span_end(0.0, False, "unreachable", sentence)


def _decoded_spans(request: dict[str, Any]) -> Iterator[tuple[bytes, bytes | memoryview]]:
    spans = request["spans"]
    try:
        stream = SoundStream(request["path"], request["channel"], measure_levels=request["with_levels"])
    except DecodeError as error:
        for _ in spans:
            yield b"S", _span_end(0.0, True, error.status, str(error))
        return
    with stream:
        for index, (start_s, end_s) in enumerate(spans):
            first = round(start_s * SAMPLE_RATE_HZ)
            last = None if end_s is None else round(end_s * SAMPLE_RATE_HZ)
            following = spans[index + 1][0] if index + 1 < len(spans) else None
            keep_from = None if following is None else round(following * SAMPLE_RATE_HZ)
            samples = 0
            for block in stream.read(first, last, keep_from):
                samples += len(block)
                if len(block):
                    yield b"C", block.astype(np.float16).data.cast("B")
                else:
                    yield b"P", b""
            if request["with_levels"]:
                yield b"L", _packed_levels(stream.levels(start_s, start_s + samples / SAMPLE_RATE_HZ))
            yield b"M", pack(stream.marks(start_s))
            yield b"S", _judge(stream, start_s, end_s, samples)


def _packed_levels(levels: BandLevels) -> bytes:
    return _LEVELS_HEAD.pack(levels.start_s, levels.hop_s) + levels.db.tobytes()


def _unpacked_levels(body: bytes) -> BandLevels:
    start_s, hop_s = _LEVELS_HEAD.unpack_from(body)
    return BandLevels(
        np.frombuffer(body, np.float32, offset=_LEVELS_HEAD.size).reshape(-1, BANDS), start_s, hop_s
    )


def _judge(stream: SoundStream, start_s: float, end_s: float | None, samples: int) -> bytes:
    """Compare what a span brought with what was requested."""
    decoded_s = samples / SAMPLE_RATE_HZ
    if end_s is None:
        if stream.error is None:
            return _span_end(decoded_s, True, "ok", None)
        missing_s = float("inf")
    else:
        missing_s = end_s - start_s - decoded_s
    if missing_s <= _ROUNDING_SAMPLES / SAMPLE_RATE_HZ:
        assert end_s is not None
        return _span_end(end_s - start_s, stream.ended, "ok", None)
    if stream.approximate and missing_s <= _APPROXIMATE_S:
        return _span_end(decoded_s, True, "ok", None)
    reason = f" ({stream.error})" if stream.error else ""
    if not stream.heard and start_s == 0:
        return _span_end(0.0, True, "corrupt", f"no sound can be decoded{reason}")
    sentence = f"the sound ends at {start_s + decoded_s:.2f} s, before the end that the header claims{reason}"
    return _span_end(decoded_s, True, "partial", sentence)


def _span_end(decoded_s: float, end_of_file: bool, status: str, error: str | None) -> bytes:
    return json.dumps(
        {"decoded_s": decoded_s, "end_of_file": end_of_file, "status": status, "error": error}
    ).encode()


def run_decoder_process() -> None:
    """Serve requests from standard input until it closes: the child's main loop."""
    requests, answers = os.dup(0), os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # C libraries print warnings; none may end up among the answers
        os.dup2(silence, descriptor)
    inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    # In its own thread, so that the child ends with its parent even where decoding hangs.
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    _write(answers, _MESSAGE.pack(b"R", 0))
    while True:
        for kind, body in decode_spans(inbox.get()):
            _write(answers, _MESSAGE.pack(kind, len(body)))
            _write(answers, body)


def _listen(requests: int, inbox: queue.SimpleQueue[dict[str, Any]]) -> None:
    with open(requests, "rb") as stream:
        while len(length := stream.read(_LENGTH.size)) == _LENGTH.size:
            inbox.put(json.loads(stream.read(*_LENGTH.unpack(length))))
    os._exit(0)


if __name__ == "__main__":
    run_decoder_process()
