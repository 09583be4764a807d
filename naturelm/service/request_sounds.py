"""The sounds of requests: decoded in other processes, within limits of size and place."""

from __future__ import annotations

import base64
import binascii
import queue
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder, pcm_samples
from naturelm.errors import NaturelmError
from naturelm.recordings.discovery import FoundFile
from naturelm.recordings.probe import probe
from naturelm.service.schema import AudioInput

MAX_SOUND_BYTES = 64 << 20
"""Size of one sound's file."""

PAYLOAD_TYPES = ("base64_wav",)
"""Kinds of sound that every server takes; one with a root takes `file_path` too."""

_DECODERS = 2
_DECODE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class RequestSound:
    """What the model takes of a sound.

    Attributes
    ----------
    samples : array, float32 [samples]
        Mono, at the model's sample rate, from the beginning.
    sound_s : float
        Length of the whole sound in seconds, as its file states it.
    """

    samples: npt.NDArray[np.float32]
    sound_s: float


class Sounds:
    """Reads the sounds of requests.

    Parameters
    ----------
    root : Path, optional
        Directory below which requests may name files; without one they may name none.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = None if root is None else root.resolve(strict=True)
        self._decoders: queue.Queue[IsolatedDecoder] = queue.Queue()
        for _ in range(_DECODERS):
            self._decoders.put(IsolatedDecoder(_DECODE_TIMEOUT_S))

    @property
    def payload_types(self) -> list[str]:
        """The kinds of sound that this server takes."""
        return [*PAYLOAD_TYPES, *([] if self._root is None else ["file_path"])]

    def read(self, audio: AudioInput, longest_s: float) -> RequestSound:
        """Decode a sound's first `longest_s` seconds.

        Raises
        ------
        NaturelmError
            This server does not take such a sound; it is too large or no sound, or its file is not below the root.
        """
        if audio.payload_type == "base64_wav":
            with _as_file(_decoded(audio.data)) as path:
                return self._read_file(path, "the sound", longest_s)
        if audio.payload_type == "file_path" and self._root is not None:
            return self._read_file(self._below_root(audio.data), "the file", longest_s)
        raise NaturelmError(
            f"this server takes no {audio.payload_type}; send {' or '.join(self.payload_types)}"
        )

    def close(self) -> None:
        """End the processes that decode."""
        while not self._decoders.empty():
            self._decoders.get().close()

    def _below_root(self, text: str) -> Path:
        assert self._root is not None
        try:
            # Links are followed first: one that leads out of the root is outside of it.
            path = (self._root / text).resolve(strict=True)
            inside = path.is_relative_to(self._root) and path.is_file()
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            # Whether a file exists elsewhere is nobody's business.
            raise NaturelmError("there is no such file below the server's --root")
        if path.stat().st_size > MAX_SOUND_BYTES:
            raise NaturelmError(
                f"the file is larger than {MAX_SOUND_BYTES >> 20} MiB; send a shorter excerpt"
            )
        return path

    def _read_file(self, path: Path, what: str, longest_s: float) -> RequestSound:
        recording = probe(FoundFile(path.parent, path.name, path))
        if recording.status not in ("ok", "partial"):
            raise NaturelmError(f"{what} cannot be decoded ({recording.error or recording.status})")
        decoder = self._decoders.get()
        try:
            (span,) = decoder.decode(DecodeRequest(str(path), ((0.0, longest_s),)))
        finally:
            self._decoders.put(decoder)
        samples = pcm_samples(span.pcm)
        if not len(samples):
            raise NaturelmError(f"{what} cannot be decoded ({span.error or span.status})")
        return RequestSound(samples, recording.duration_s or span.decoded_s)


def _decoded(text: str) -> bytes:
    if len(text) > MAX_SOUND_BYTES * 4 // 3 + 4:
        raise NaturelmError(f"the sound is larger than {MAX_SOUND_BYTES >> 20} MiB; send a shorter excerpt")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NaturelmError("the sound is not valid base64; encode the bytes of a WAV file") from None


@contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="naturelm-serve-") as folder:
        path = Path(folder) / "sound.wav"
        path.write_bytes(data)
        yield path
