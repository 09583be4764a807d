"""What is on the disk: which files are recordings, and what their headers and names say."""

from __future__ import annotations

from naturelm.recordings.discovery import Found, FoundFile, LeftOut, find_audio
from naturelm.recordings.probe import MINIMUM_S, Recording, probe, probe_all, scan

__all__ = [
    "MINIMUM_S",
    "Found",
    "FoundFile",
    "LeftOut",
    "Recording",
    "find_audio",
    "probe",
    "probe_all",
    "scan",
]
