"""What is on the disk: which files are recordings, and what their headers and names say."""

from __future__ import annotations

from naturelm.recordings.discovery import Found, FoundFile, LeftOut, find_audio
from naturelm.recordings.probe import probe, probe_all, scan
from naturelm.recordings.recording import Recording

__all__ = [
    "Found",
    "FoundFile",
    "LeftOut",
    "Recording",
    "find_audio",
    "probe",
    "probe_all",
    "scan",
]
