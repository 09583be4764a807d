"""What is on the disk: which files are recordings, and what their headers and names say."""

from __future__ import annotations

from naturelm.recordings.discovery import FoundFile, find_audio
from naturelm.recordings.probe import MINIMUM_S, Recording, probe, scan

__all__ = ["MINIMUM_S", "FoundFile", "Recording", "find_audio", "probe", "scan"]
