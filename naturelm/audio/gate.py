"""The activity gate: windows in which nothing rises above the background need no model.

A window is active where, in some band, the level is at least the threshold above what the band's background reaches by
chance, for a tenth of a second in all. The background runs along with the recording: sound that continues without
a pause becomes a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from naturelm.audio.levels import BAND_BINS, BandLevels
from naturelm.windows import Window

_ACTIVE_S = 0.1
_BACKGROUND_REACH_S = 30
# Of the seconds around: calls in less than four of five leave it alone.
_BACKGROUND_QUANTILE = 0.2
# Steady noise exceeds its median level by this in a hundredth of all frames: by much in low bands, whose level is the
# mean of few bins, by little in high ones. Chi-squared by Wilson and Hilferty; neighbouring bins of a tapered frame
# share half of their information.
_SPREAD = 2 / (9 * BAND_BINS)
_CHANCE_DB = (30 * np.log10(1 + 2.326 * np.sqrt(_SPREAD) / (1 - _SPREAD))).astype(np.float32)


def gated(levels: BandLevels, windows: Sequence[Window], threshold_db: float) -> tuple[bool, ...]:
    """Say which windows the model need not hear.

    Parameters
    ----------
    levels : BandLevels
        Of the segment that the windows belong to: its sound alone is the background, so that its rows do not
        depend on what else is decoded with it.
    windows : sequence of Window
    threshold_db : float
        Level above the background's own fluctuation that counts as activity.

    Returns
    -------
    tuple of bool
        For each window. A window too short to be measured is not gated.
    """
    if not len(levels.db):
        return (False,) * len(windows)
    return tuple(activity < threshold_db for activity in activities_db(levels, windows))


def activities_db(levels: BandLevels, windows: Sequence[Window]) -> list[float]:
    """How far each window rises above the background for a tenth of a second; infinite where it is not known."""
    above_db = levels.db - _background_db(levels) - _CHANCE_DB
    rank = max(1, round(_ACTIVE_S / levels.hop_s))
    activities = []
    for window in windows:
        first = math.ceil((window.start_s - levels.start_s) / levels.hop_s - 1e-6)
        last = math.floor((window.end_s - levels.frame_s - levels.start_s) / levels.hop_s + 1e-6) + 1
        own = above_db[max(first, 0) : max(last, 0)]
        known = len(own) >= rank
        activities.append(float(np.partition(own, -rank, axis=0)[-rank].max()) if known else math.inf)
    return activities


def _background_db(levels: BandLevels) -> npt.NDArray[np.float32]:
    """Each band's background at each frame: a low quantile of the median levels of the seconds around."""
    seconds = np.array_split(levels.db, max(1, round(len(levels.db) * levels.hop_s)))
    medians = np.stack([np.median(part, axis=0) for part in seconds])
    background = np.stack(
        [
            np.quantile(
                medians[max(0, now - _BACKGROUND_REACH_S) : now + _BACKGROUND_REACH_S + 1],
                _BACKGROUND_QUANTILE,
                axis=0,
            )
            for now in range(len(medians))
        ]
    )
    return np.repeat(background, [len(part) for part in seconds], axis=0)
