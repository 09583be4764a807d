"""Stable identifiers: the same file or analysis has the same id on every machine and in every run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

EDGE_BYTES = 64 * 1024


def recording_id(relative_path: str, size_bytes: int, head: bytes, tail: bytes) -> str:
    """Identify a recording by where it lies in its archive, its size and its first and last 64 KiB.

    Parameters
    ----------
    relative_path : str
        Path relative to the archive root, with forward slashes.
    size_bytes : int
        File size in bytes.
    head, tail : bytes
        First and last 64 KiB of the file; both the whole file where it is smaller.

    Returns
    -------
    str
        32 hexadecimal digits (BLAKE2b, 128 bits).
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (relative_path.encode("utf-8", "surrogateescape"), str(size_bytes).encode(), head, tail):
        # A length before each part keeps ("ab", "c") and ("a", "bc") apart.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def file_recording_id(path: Path, relative_path: str) -> str:
    """Identify the recording stored at `path` (reads at most 128 KiB).

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(0)
        head = file.read(EDGE_BYTES)
        file.seek(max(0, size_bytes - EDGE_BYTES))
        tail = file.read(EDGE_BYTES)
    return recording_id(relative_path, size_bytes, head, tail)


def segment_id(recording: str, first_window: int) -> str:
    """Identify a segment by its recording and the index of its first window."""
    return f"{recording}-{first_window:06d}"


def split_segment_id(segment: str) -> tuple[str, int]:
    """Undo `segment_id`: the recording's id and the index of the first window."""
    recording, _, first_window = segment.rpartition("-")
    return recording, int(first_window)


def settings_hash(settings: dict[str, object]) -> str:
    """Hash JSON-serialisable settings, whatever the order of their keys; 16 hexadecimal digits."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
