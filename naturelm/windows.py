"""Cutting a recording's time into windows: pure arithmetic, no sound."""

from __future__ import annotations

import math
from dataclasses import dataclass

from naturelm.errors import NaturelmError

SAMPLE_RATE_HZ = 16_000
"""Recordings are resampled to this rate, which is that of all models."""

TOP_FREQUENCY_HZ = SAMPLE_RATE_HZ / 2
"""Models cannot hear what lies above."""

MIN_NEW_S = 0.5
"""A last, partial window is kept if it brings at least this much sound that no earlier window holds."""

MIN_LENGTH_S = 0.1
"""Shorter windows, and window starts closer than this, are refused: a typing error would plan millions of them."""

# Header durations are frames / rate: compare times with a tolerance far below one sample at 384 kHz.
_EPSILON_S = 1e-7


@dataclass(frozen=True, slots=True)
class Window:
    """What the model hears at once.

    Attributes
    ----------
    index : int
        0 for the window that starts the recording.
    start_s, end_s : float
        Seconds within the recording; `end_s` never lies beyond the recording's end, so a last window
        may be shorter than the window length.
    """

    index: int
    start_s: float
    end_s: float


def check_window(window_s: float, hop_s: float) -> None:
    """Raise NaturelmError unless windows of `window_s` every `hop_s` seconds cover all sound."""
    for name, seconds in (("window", window_s), ("hop", hop_s)):
        if not (math.isfinite(seconds) and seconds >= MIN_LENGTH_S):
            raise NaturelmError(f"{name} is {seconds:g} s; give a --{name} of at least {MIN_LENGTH_S:g} s")
    if hop_s > window_s:
        raise NaturelmError(
            f"hop is {hop_s:g} s, longer than the window of {window_s:g} s, so sound between windows would "
            "go unheard; give a --hop of at most the window"
        )


def window_count(duration_s: float, window_s: float, hop_s: float) -> int:
    """How many windows `plan_windows` cuts `duration_s` seconds into.

    Raises
    ------
    NaturelmError
        `window_s` or `hop_s` is not usable.
    """
    check_window(window_s, hop_s)
    # The first window that reaches the end, and how much of it no earlier one holds.
    last = max(0, math.ceil((duration_s - window_s - _EPSILON_S) / hop_s))
    new_s = duration_s - ((last - 1) * hop_s + window_s if last else 0.0)
    whole = duration_s - last * hop_s >= window_s - _EPSILON_S
    return last + 1 if whole or new_s >= MIN_NEW_S - _EPSILON_S else last


def plan_windows(
    duration_s: float, window_s: float, hop_s: float, first: int = 0, count: int | None = None
) -> list[Window]:
    """Cut `duration_s` seconds into windows.

    Windows start at 0, hop, 2·hop … while a start lies before the end, and stop after the first window
    that reaches the end. A last partial window is kept if it brings at least `MIN_NEW_S` that no earlier
    window holds; a recording shorter than `MIN_NEW_S` has none.

    Parameters
    ----------
    duration_s : float
        Seconds of sound in the recording.
    window_s, hop_s : float
        Window length and seconds between window starts; `0 < hop_s <= window_s`.
    first : int
        Index of the first window wanted.
    count : int, optional
        At most so many windows; by default all that follow.

    Raises
    ------
    NaturelmError
        `window_s` or `hop_s` is not usable.
    """
    end = window_count(duration_s, window_s, hop_s)
    if count is not None:
        end = min(end, first + count)
    # index * hop, not a running sum: no drift over a day of windows.
    return [Window(i, i * hop_s, min(i * hop_s + window_s, duration_s)) for i in range(first, end)]
