"""A recording, as its header and its name describe it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from naturelm.recordings.discovery import path_from_text
from naturelm.storage import is_url


@dataclass(frozen=True, slots=True)
class Recording:
    """One file, as its header and its name describe it. Plain values only.

    Attributes
    ----------
    recording_id : str
        See `naturelm.ids.recording_id`.
    path, root : str
        Path below the archive root (forward slashes) and the root, as text (`discovery.path_to_text`).
    station : str
        See `station_names`.
    start_local : datetime, optional
        The recorder's clock at the first sample, without zone.
    start_time : datetime, optional
        The same in UTC, where the offset is known.
    start_time_source : str, optional
        Where the start comes from: "guano", "audiomoth", "name", "bext" or "ixml", see `metadata`; "pattern" where the
        user's pattern for names says it. What a stations file adds to it follows: "name+timezone+drift".
    utc_offset_minutes : int, optional
    latitude, longitude : float, optional
        Degrees north and east: from GUANO, else from the name; a stations file wins over both.
    deployment : str, optional
        From a stations file.
    duration_s : float, optional
        Seconds of sound that the header claims, as far as the file holds them; None where that cannot be read.
    sample_rate_hz, channels, frames : int, optional
        The rate is that of life, also where the file plays slower. `frames` are samples per channel.
    format : str, optional
        Container and encoding as `WAV/PCM_16`.
    seekable : bool
        False where a span in the middle is reached by decoding everything before it: MP3, Ogg, and FLAC
        whose end is missing.
    status : {"ok", "partial", "corrupt", "too_short", "unsupported"}
        `partial`: the file ends before the sound that its header claims. `corrupt`: empty, unreadable (a broken link,
        no permission, a directory that cannot be listed), without a header as sound files have (a card that failed),
        or a sound file whose header or whole sound is damaged. `too_short`: less than 0.5 s, which includes a header
        without sound. `unsupported`: a recording or another file that is not read here, or a sample rate that no
        recording has; `error` names the program that converts it.
    error : str, optional
        One sentence where the status is not `ok`.
    remarks : tuple of str
        One sentence for each thing that metadata say and that was corrected or cannot be used.
    content : str, optional
        Like the id but whatever the path, so that a renamed file is known again; None where the file could not
        be read.
    size_bytes, modified_ns : int
        As the file system says, the time in nanoseconds since 1970.
    """

    recording_id: str
    path: str
    root: str
    station: str
    start_local: datetime | None = None
    start_time: datetime | None = None
    start_time_source: str | None = None
    utc_offset_minutes: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    deployment: str | None = None
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    format: str | None = None
    frames: int | None = None
    seekable: bool = True
    status: str = "ok"
    error: str | None = None
    remarks: tuple[str, ...] = ()
    content: str | None = None
    size_bytes: int = 0
    modified_ns: int = 0

    @property
    def has_sound(self) -> bool:
        """Whether there is something to be decoded."""
        return self.status in ("ok", "partial")

    @property
    def absolute_path(self) -> str:
        """The file to open."""
        if is_url(self.root):
            return f"{self.root}/{self.path}"
        return os.path.join(path_from_text(self.root), path_from_text(self.path))
