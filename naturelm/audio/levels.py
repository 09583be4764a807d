"""How loud each band of a recording is, at its native sample rate: what the activity gate looks at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from naturelm.windows import TOP_FREQUENCY_HZ

BANDS = 12
"""Half octaves, downwards from the highest frequency that both the recording and the model have."""

# The bin of the top frequency; enough to tell the lowest half octave from its neighbour.
_TOP_BIN = 256
_EDGES = 2.0 ** (np.arange(-BANDS, 1) / 2)
BAND_BINS = _TOP_BIN * np.diff(_EDGES)
"""How many bins of a frame's spectrum each band's level averages, about, at every sample rate."""

# A multiple of this has small factors whatever the sample rate is: Fourier transforms are quick.
_FRAME_STEP = 64
# Below the noise of any recorder; digital silence gets a level too.
_LEAST_POWER = 1e-12
# Few enough that they stay in the cache: twice as fast as a whole block.
_FRAMES_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class BandLevels:
    """Levels of a span.

    Attributes
    ----------
    db : float32 [frames, BANDS]
        Mean power within each band, dB, low bands first.
    start_s : float
        Start of the first frame within the recording.
    hop_s, frame_s : float
        Seconds between frame starts, and how long a frame is: twice that.
    """

    db: npt.NDArray[np.float32]
    start_s: float
    hop_s: float

    @property
    def frame_s(self) -> float:
        return 2 * self.hop_s


class BandMeter:
    """Measures a stream of samples, half-overlapping frame by frame.

    Frames lie on a grid from the recording's start, wherever the stream begins: a span in the middle has the same
    levels as the same span of the whole recording.

    Parameters
    ----------
    sample_rate_hz : int
        Of the samples that will be processed.
    first_sample : int
        Where in the recording the stream begins.
    """

    def __init__(self, sample_rate_hz: int, first_sample: int = 0) -> None:
        top_hz = min(TOP_FREQUENCY_HZ, sample_rate_hz / 2)
        steps = max(1, round(_TOP_BIN / top_hz * sample_rate_hz / _FRAME_STEP))
        self._frame = steps * _FRAME_STEP
        self._hop = self._frame // 2
        self.hop_s = self._hop / sample_rate_hz
        self._taper = np.hanning(self._frame + 1)[:-1].astype(np.float32)
        self._taper /= self._taper.sum() / 2
        self._bins = np.ceil(top_hz * _EDGES * self._frame / sample_rate_hz - 1e-9).astype(int)
        first_frame = -(-first_sample // self._hop)
        self._skip = first_frame * self._hop - first_sample
        self._rest = np.empty(0, np.float32)
        self._first = first_frame
        self._levels: list[npt.NDArray[np.float32]] = []

    def hear(self, samples: npt.NDArray[np.float32]) -> None:
        """Measure the samples that follow: float32 [samples], mono."""
        skipped = min(self._skip, len(samples))
        self._skip -= skipped
        self._rest = np.concatenate([self._rest, samples[skipped:]])
        frames = (len(self._rest) - self._frame) // self._hop + 1
        if frames <= 0:
            return
        cut = np.lib.stride_tricks.sliding_window_view(self._rest, self._frame)[:: self._hop][:frames]
        for start in range(0, frames, _FRAMES_AT_ONCE):
            spectrum = np.fft.rfft(cut[start : start + _FRAMES_AT_ONCE] * self._taper)[:, : self._bins[-1]]
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            means = np.add.reduceat(power, self._bins[:-1], axis=1) / np.diff(self._bins)
            self._levels.append((10 * np.log10(means + _LEAST_POWER)).astype(np.float32))
        self._rest = self._rest[frames * self._hop :].copy()

    def forget(self, before_s: float) -> None:
        """Drop the frames that start before `before_s`."""
        while self._levels and (self._first + len(self._levels[0])) * self.hop_s <= before_s:
            self._first += len(self._levels.pop(0))

    def levels(self, start_s: float, end_s: float) -> BandLevels:
        """The frames that lie wholly within a span; those added so far."""
        first = max(math.ceil(start_s / self.hop_s - 1e-6), self._first)
        last = math.floor(end_s / self.hop_s + 1e-6) - 1
        added = np.concatenate([np.empty((0, BANDS), np.float32), *self._levels])
        return BandLevels(
            added[first - self._first : max(last - self._first, first - self._first)],
            first * self.hop_s,
            self.hop_s,
        )
