"""Pieces of recordings, found by a seek. Imports no torch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soundfile

from naturelm.audio.streaming import DecodeError, Samples, decode
from naturelm.recordings.sound_files import open_sound
from naturelm.storage import StoreError


def piece(path: str, duration_s: float, place: float, span: tuple[float, float] | None = None) -> Samples:
    """Sound from a recording, or from a part of it, so long or as long as that is.

    Parameters
    ----------
    path
        The recording.
    duration_s
        Length in seconds.
    place
        Where in the recording or part: 0 is its start, 1 its end.
    span
        Start and end of the part, in seconds; the whole recording by default.

    Raises
    ------
    DecodeError
        It cannot be decoded.
    """
    first_s, last_s = span or (0.0, claimed_s(path))
    start_s = first_s + place * max(0.0, last_s - first_s - duration_s)
    end_s = start_s + duration_s
    # In order, a piece of a long MP3 would take as long as all that is before it.
    blocks = list(decode(path, start_s=start_s, end_s=min(end_s, last_s) if span else end_s, seek_lossy=True))
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


@lru_cache(maxsize=1 << 16)
def claimed_s(path: str) -> float:
    """Duration of a recording by its header, in seconds.

    Raises
    ------
    DecodeError
        It cannot be opened as sound.
    """
    try:
        with open_sound(path) as sound:
            return sound.frames / sound.samplerate
    except StoreError:
        raise  # the store failed, not the recording
    except (OSError, soundfile.LibsndfileError) as error:
        raise DecodeError("corrupt", f"{path}: cannot be opened ({error})") from None
