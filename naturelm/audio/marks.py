"""What is wrong with a recording's sound, measured while it is decoded: silence of cards, clipping, dead channels.

Everything is measured on a grid of whole seconds from the recording's start, wherever decoding begins: the marks of a
recording, and the channels that its sound is made of, do not depend on how it is cut into segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MOST_CHANNELS = 8
"""Of recordings with more channels, an array of microphones, the mean is taken whatever the channels hold."""

FULL_SCALE = 0.9999
"""At least this, of 1, is a sample that the converter cut: the largest 16-bit sample is 0.99997."""

# Of two channels: what they have in common is lost in the mean below half of its level.
_CANCELLING = -0.5
# A few steps of a 16-bit converter, while another channel holds so many times more.
_DEAD_RANGE = 2.0**-12
_ALIVE_RATIO = 16
# Shorter runs of one value at the ends of a second are sound.
_SHORTEST_RUN_S = 0.05

_FIELDS = ("samples", "constant", "leading", "trailing", "nonfinite", "clipped", "sum", "inverted", "dead")
_COLUMN = {name: index for index, name in enumerate(_FIELDS)}


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks of a span, or of a whole recording.

    Attributes
    ----------
    measured_s : float
        Seconds of sound that were measured.
    zeros_s : float
        Seconds in which no sample changes, at least 0.05 s on end: zeros, or the one value of a failed card.
    zeros_end_s : float
        Of these, those at the end of the span.
    nonfinite_s : float
        Seconds of samples that are NaN or infinite in some channel.
    clipped_share : float
        Share of samples at full scale, 0 to 1.
    dc : float
        Mean of the samples, full scale is 1.
    channels_inverted : bool
        In some seconds, a channel is the inverse of an earlier one, and was left out of the mean.
    channel_dead : int, optional
        The first channel that holds nothing for some seconds while another one holds sound, and was left out.
    """

    measured_s: float
    zeros_s: float
    zeros_end_s: float
    nonfinite_s: float
    clipped_share: float
    dc: float
    channels_inverted: bool
    channel_dead: int | None

    @property
    def is_all_zeros(self) -> bool:
        return self.zeros_end_s >= self.measured_s


@dataclass(frozen=True, eq=False)
class SecondMarks:
    """What was measured of each second.

    Attributes
    ----------
    first_second : int
        The second of the recording that the first row describes.
    sample_rate_hz : int
    values : float32 [seconds, fields]
    """

    first_second: int
    sample_rate_hz: int
    values: npt.NDArray[np.float32]

    def between(self, start_s: float, end_s: float) -> Marks | None:
        """The marks of the seconds that begin within a span; None where none does."""
        seconds = np.arange(self.first_second, self.first_second + len(self.values))
        own = self.values[(seconds >= start_s - 1e-9) & (seconds < end_s - 1e-9)].astype(np.float64)
        samples = own[:, _COLUMN["samples"]]
        if not samples.sum():
            return None
        zeros = own[:, [_COLUMN["constant"], _COLUMN["leading"], _COLUMN["trailing"]]].sum(axis=1)
        dead = own[:, _COLUMN["dead"]]
        return Marks(
            measured_s=samples.sum() / self.sample_rate_hz,
            zeros_s=zeros.sum() / self.sample_rate_hz,
            zeros_end_s=self._zeros_at_end(own) / self.sample_rate_hz,
            nonfinite_s=own[:, _COLUMN["nonfinite"]].sum() / self.sample_rate_hz,
            clipped_share=own[:, _COLUMN["clipped"]].sum() / samples.sum(),
            dc=own[:, _COLUMN["sum"]].sum() / samples.sum(),
            channels_inverted=bool(own[:, _COLUMN["inverted"]].any()),
            channel_dead=int(dead[dead >= 0].min()) if (dead >= 0).any() else None,
        )

    @staticmethod
    def _zeros_at_end(own: npt.NDArray[np.float64]) -> float:
        frames = 0.0
        for second in own[::-1]:
            frames += second[_COLUMN["constant"]] + second[_COLUMN["trailing"]]
            if not second[_COLUMN["constant"]]:
                break
        return frames


class MarkMeter:
    """Mixes a stream of samples to mono, and measures it on the way.

    Parameters
    ----------
    sample_rate_hz : int
    channel : int, optional
        Channel to take and to measure, from 0; the mean of the sound ones where not given.
    first_second : int
        Where in the recording the stream begins.
    """

    def __init__(self, sample_rate_hz: int, channel: int | None = None, first_second: int = 0) -> None:
        self._rate = sample_rate_hz
        self._channel = channel
        self._first = first_second
        self._shortest = max(2, round(_SHORTEST_RUN_S * sample_rate_hz))
        self._ends_in_run = False
        self._values: list[npt.NDArray[np.float32]] = []

    def mix(
        self, frames: npt.NDArray[np.float32], nonfinite: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.float32]:
        """The samples that follow, mono.

        Parameters
        ----------
        frames : float32 [frames, channels]
            Whole seconds, but for the end of the recording; finite.
        nonfinite : bool [frames], optional
            Where samples were NaN or infinite.

        Returns
        -------
        float32 [frames]
        """
        if self._channel is not None:
            frames = frames[:, self._channel : self._channel + 1]
        # Channel by channel, so that what is measured lies together in memory.
        measured = np.ascontiguousarray(frames.T)
        mono = measured[0] if len(measured) == 1 else measured.mean(axis=0)
        for start in range(0, len(mono), self._rate):
            span = slice(start, start + self._rate)
            second = measured[:, span]
            samples = second.shape[1]
            lowest, highest = second.min(axis=1), second.max(axis=1)
            inverted, dead = False, -1
            if 1 < len(second) <= MOST_CHANNELS and samples > 1:
                sound, inverted, dead = _sound_channels(second, highest - lowest)
                if len(sound) < len(second):
                    mono[span] = second[sound].mean(axis=0)
            lost = 0 if nonfinite is None else int(np.count_nonzero(nonfinite[span]))
            constant, leading, trailing = (
                (0, 0, 0) if lost else self._runs(second, bool((lowest == highest).all()))
            )
            self._ends_in_run = constant + trailing > 0
            clipped = 0.0
            if lowest.min() <= -FULL_SCALE or highest.max() >= FULL_SCALE:
                clipped = float((np.abs(second) >= FULL_SCALE).mean() * samples)
            self._values.append(
                np.array(
                    [
                        samples,
                        constant,
                        leading,
                        trailing,
                        lost,
                        clipped,
                        mono[span].sum(),
                        inverted,
                        dead,
                    ],
                    np.float32,
                )
            )
        return mono

    def marks(self, from_second: int) -> SecondMarks:
        """What was measured so far, of the seconds from `from_second` on."""
        first = max(from_second, self._first)
        values = self._values[first - self._first :]
        return SecondMarks(
            first, self._rate, np.stack(values) if values else np.empty((0, len(_FIELDS)), np.float32)
        )

    def _runs(self, second: npt.NDArray[np.float32], is_constant: bool) -> tuple[int, int, int]:
        """Frames in a second that never changes, or at its beginning and its end."""
        if is_constant:
            # The last second of a recording may be a single sample.
            samples = second.shape[1]
            return samples if samples >= self._shortest or self._ends_in_run else 0, 0, 0
        return 0, self._run(second), self._run(second[:, ::-1])

    def _run(self, second: npt.NDArray[np.float32]) -> int:
        first = second[:, :1]
        if second.shape[1] < self._shortest or (second[:, : self._shortest] != first).any():
            return 0
        return int(np.argmax((second != first).any(axis=0)))


def pack(marks: SecondMarks) -> bytes:
    """As bytes, to be sent to another process."""
    return np.array([marks.first_second, marks.sample_rate_hz], "<i8").tobytes() + marks.values.tobytes()


def unpack(body: bytes) -> SecondMarks:
    """The other way round."""
    first_second, sample_rate_hz = np.frombuffer(body, "<i8", count=2)
    values = np.frombuffer(body, np.float32, offset=16).reshape(-1, len(_FIELDS))
    return SecondMarks(int(first_second), int(sample_rate_hz), values)


def _sound_channels(
    second: npt.NDArray[np.float32], ranges: npt.NDArray[np.float32]
) -> tuple[list[int], bool, int]:
    """The channels of a second that make its sound; whether some are inverted, and the first dead one or -1."""
    is_dead = (ranges <= _DEAD_RANGE) & (ranges * _ALIVE_RATIO <= ranges.max()) & (ranges.max() > 0)
    dead = int(np.argmax(is_dead)) if is_dead.any() else -1
    first, *others = np.flatnonzero(~is_dead).tolist()
    means = second.mean(axis=1).astype(np.float64)

    def product(one: int, other: int) -> float:
        return float(second[one] @ second[other]) / second.shape[1] - means[one] * means[other]

    power = product(first, first)
    inverted = [
        channel
        for channel in others
        if product(first, channel) < _CANCELLING * math.sqrt(max(power * product(channel, channel), 0.0))
    ]
    return [first, *(channel for channel in others if channel not in inverted)], bool(inverted), dead
