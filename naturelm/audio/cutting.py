"""Cutting decoded sound into windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from naturelm.audio.streaming import Samples
from naturelm.windows import SAMPLE_RATE_HZ, Window


@dataclass(frozen=True, eq=False)
class CutWindow:
    """A window's sound.

    Attributes
    ----------
    window : Window
    samples : float32 [window samples]
        Zeros where the recording has ended.
    decoded_s : float
        Seconds of `samples` that were decoded.
    """

    window: Window
    samples: Samples
    decoded_s: float


def cut_windows(
    blocks: Iterable[npt.NDArray[np.floating]],
    windows: Iterable[Window],
    window_samples: int,
    *,
    start_s: float = 0.0,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> Iterator[CutWindow]:
    """Cut a stream of blocks into windows; sound that overlapping windows share is decoded once.

    Parameters
    ----------
    blocks : iterable of float [samples]
        As `decode` yields them; read only as far as the windows need.
    windows : iterable of Window
        In order of their starts, none before `start_s`.
    window_samples : int
        Length of every window in samples.
    start_s : float
        Where the first block begins within the recording.
    sample_rate_hz : int
        The blocks' sample rate.

    Yields
    ------
    CutWindow
        One for each window; window starts are rounded to samples from the recording's start.
    """
    stream = iter(blocks)
    kept: list[npt.NDArray[np.floating]] = []
    kept_from = end = round(start_s * sample_rate_hz)
    for window in windows:
        first = round(window.start_s * sample_rate_hz)
        while end < first + window_samples:
            block = next(stream, None)
            if block is None:
                break
            kept.append(block)
            end += len(block)
        while kept and kept_from + len(kept[0]) <= first:
            kept_from += len(kept.pop(0))
        samples = np.zeros(window_samples, np.float32)
        position = kept_from
        for block in kept:
            part = block[max(first - position, 0) : first + window_samples - position]
            at = max(position - first, 0)
            samples[at : at + len(part)] = part
            position += len(block)
        decoded = min(max(end - first, 0), window_samples)
        yield CutWindow(window, samples, decoded / sample_rate_hz)
