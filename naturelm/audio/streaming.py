"""From a file to mono sound at the model's sample rate: in order, in blocks, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from naturelm.audio.levels import BandLevels, BandMeter
from naturelm.audio.marks import MarkMeter, SecondMarks
from naturelm.errors import NaturelmError
from naturelm.recordings.discovery import path_to_text
from naturelm.recordings.sound_files import can_seek, open_sound, raise_failure, read_error, read_frames
from naturelm.storage import StoreError, StorePath
from naturelm.windows import SAMPLE_RATE_HZ

Samples = npt.NDArray[np.float32]

# What is read at once, in whole seconds: about 1 MiB of all channels, which stays in the cache, or less at low sample
# rates.
_BLOCK_SAMPLES = 1 << 18
_BLOCK_S = 8
# Of a piece found by a seek: decoding beyond its end costs more than smaller blocks do.
_PIECE_BLOCK_S = 2
# 128 MiB: a second of a file with more, which no recorder writes, is not read as a whole, and is not measured.
_MOST_SAMPLES = 1 << 25
# A seek starts this much early: the resampling filter has then forgotten that sound began there.
_PREROLL_S = 1
# Going on in order is cheaper than a seek over less than this.
_NEAR_S = 10
# Float files may hold anything; beyond this, the resampling filter's sums would overflow.
_LARGEST = 2.0**15


class DecodeError(NaturelmError):
    """A recording that cannot be decoded.

    Attributes
    ----------
    status : {"corrupt", "unsupported"}
        What to write into its row.
    """

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class SoundStream:
    """A recording's sound, mono and resampled, read forwards.

    Positions are output samples from the recording's start, so that a span in the middle holds the same
    samples as the same span of the whole recording.

    Parameters
    ----------
    path : path
        The file.
    channel : int, optional
        Channel to take, from 0. Where not given the mean of all, second by second without those that hold nothing or
        are the inverse of another one (see `marks`).
    sample_rate_hz : int
        Output sample rate.
    measure_levels : bool
        Measure band levels at the recording's own sample rate on the way, for `levels`.
    seek_lossy : bool
        Seek in MP3 and Ogg files too. The samples are then those of decoding in order up to rounding; the archive job,
        whose rows must not depend on what was read before, does not.

    Attributes
    ----------
    ended : bool
        The end of the sound was reached, or damage that ends it.
    error : str, optional
        libsndfile's words, where the sound ended in damage.
    heard : bool
        Some sound was decoded.

    Raises
    ------
    DecodeError
        The file cannot be opened as sound, or has no such channel.
    StoreError
        The object store in which the file lies fails, now or while reading.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | StorePath,
        channel: int | None = None,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        measure_levels: bool = False,
        seek_lossy: bool = False,
    ) -> None:
        self._path = path
        self._rate = sample_rate_hz
        self._channel = channel
        self._measure_levels = measure_levels
        self.heard = False
        name = path_to_text(os.path.basename(str(path)))
        try:
            self._sound = open_sound(path)
            lossy = seek_lossy and self._sound.format in ("MP3", "OGG")
            self._seekable = lossy or can_seek(path, self._sound)
        except StoreError:
            raise
        except OSError as error:
            raise DecodeError("corrupt", f"{name}: cannot be read ({error.strerror or error})") from None
        except soundfile.LibsndfileError as error:
            raise DecodeError(
                "corrupt", f"{name}: cannot be opened ({error.error_string.rstrip('.')})"
            ) from None
        channels = self._sound.channels
        if channel is not None and channel >= channels:
            self.close()
            raise DecodeError(
                "unsupported",
                f"{name}: has {channels} channel(s) and no channel {channel}; give a lower --channel",
            )
        rate = self._sound.samplerate
        longest_s = _PIECE_BLOCK_S if seek_lossy else _BLOCK_S
        seconds = min(max(_BLOCK_SAMPLES // (channels * rate), 1), longest_s)
        self._is_measured = channels * rate <= _MOST_SAMPLES
        frames = seconds * rate if self._is_measured else max(1, _BLOCK_SAMPLES // channels)
        self._read_buffer = np.empty((frames, channels), np.float32)
        self._is_float = self._sound.subtype in ("FLOAT", "DOUBLE")
        self.ended = False
        self.error: str | None = None
        # `_kept` holds the output from sample `_kept_from` on; `_next` is the one after it.
        self._kept: Samples = np.empty(0, np.float32)
        self._kept_from = self._next = 0
        self._begin(0)

    @property
    def approximate(self) -> bool:
        """The format's length is known to within a codec frame or two only."""
        return self._sound.format in ("MP3", "OGG")

    def read(self, first: int, last: int | None, keep_from: int | None = None) -> Iterator[Samples]:
        """Read the samples from `first` up to `last`.

        Parameters
        ----------
        first, last : int
            Output samples from the recording's start; `last` None: to the end.
        keep_from : int, optional
            Where the next read will begin, if that lies before `last`: samples from there on are kept.

        Yields
        ------
        float32 [samples], within [-1, 1]
            One after the other, until `last` or the end of the sound. An empty block says that decoding
            continues somewhere before `first`.
        """
        gap = first - (self._kept_from + len(self._kept))
        if first < self._kept_from or (self._seekable and gap > _NEAR_S * self._rate):
            self._restart(first)
        position = first
        needed_levels_s = (first if keep_from is None else min(first, keep_from)) / self._rate
        while True:
            until = len(self._kept) if last is None else last - self._kept_from
            block = self._kept[position - self._kept_from : max(until, 0)]
            position += len(block)
            yield block
            if self.ended or (last is not None and position >= last):
                return
            needed_from = position if keep_from is None else min(position, keep_from)
            self._kept = self._kept[max(needed_from - self._kept_from, 0) :]
            self._kept_from = min(max(needed_from, self._kept_from), self._next)
            if self._meter is not None:
                self._meter.forget(needed_levels_s)
            self._decode_block()

    def levels(self, start_s: float, end_s: float) -> BandLevels:
        """Band levels of a span that was just read, in a stream with `measure_levels`."""
        assert self._meter is not None
        return self._meter.levels(start_s, end_s)

    def marks(self, start_s: float) -> SecondMarks:
        """What was found wrong with the seconds that were read, from that of `start_s` on."""
        return self._marks.marks(int(start_s))

    def close(self) -> None:
        self._sound.close()

    def __enter__(self) -> SoundStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _restart(self, first: int) -> None:
        """Go to a whole second before `first`: there, input and output samples coincide."""
        second = max(0, first // self._rate - _PREROLL_S) if self._seekable else 0
        if not self._seekable:
            self._sound.close()
            self._sound = open_sound(self._path)
        self._begin(second)
        frame = second * self._sound.samplerate
        try:
            self._sound.seek(min(frame, self._sound.frames))
            self.ended = frame > self._sound.frames
        except soundfile.LibsndfileError as error:
            raise_failure(self._sound)
            self.ended, self.error = True, error.error_string.rstrip(".") or "cannot go there"

    def _begin(self, second: int) -> None:
        self.ended, self.error = False, None
        source_rate = self._sound.samplerate
        self._meter = BandMeter(source_rate, second * source_rate) if self._measure_levels else None
        self._marks = MarkMeter(source_rate, self._channel, second)
        self._resampler = (
            soxr.ResampleStream(source_rate, self._rate, 1, dtype="float32", quality="HQ")
            if source_rate != self._rate
            else None
        )
        self._kept = np.empty(0, np.float32)
        self._kept_from = self._next = second * self._rate

    def _decode_block(self) -> None:
        frames = read_frames(self._sound, self._read_buffer)
        self.ended = frames < len(self._read_buffer)
        self.heard = self.heard or frames > 0
        if self.ended:
            self.error = read_error(self._sound)
        block = self._mono(self._read_buffer[:frames])
        if self._meter is not None:
            self._meter.hear(block)
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=self.ended)
        block = np.clip(block, -1.0, 1.0)
        self._next += len(block)
        self._kept = np.concatenate([self._kept, block]) if len(self._kept) else block

    def _mono(self, frames: Samples) -> Samples:
        nonfinite = None
        if self._is_float and not np.abs(frames).max(initial=0.0) < _LARGEST:
            nonfinite = np.asarray(~np.isfinite(frames).all(axis=1))
            frames = np.nan_to_num(frames, nan=0.0, posinf=0.0, neginf=0.0).clip(-_LARGEST, _LARGEST)
        if not self._is_measured:
            return frames.mean(axis=1) if self._channel is None else frames[:, self._channel].copy()
        return self._marks.mix(frames, nonfinite)


def decode(
    path: str | os.PathLike[str] | StorePath,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    channel: int | None = None,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    seek_lossy: bool = False,
) -> Iterator[Samples]:
    """Decode a span of a recording, streaming.

    Parameters
    ----------
    path : path
        The file.
    start_s, end_s : float
        Seconds within the recording; `end_s` None: to its end.
    channel : int, optional
        Channel to take, from 0; the mean of all where not given.
    sample_rate_hz : int
        Output sample rate.
    seek_lossy : bool
        As of `SoundStream`.

    Yields
    ------
    float32 [samples], within [-1, 1]
        Blocks, one after the other; sample k lies at round(start_s · rate) + k. NaN and infinities in float
        files become 0. Fewer seconds than requested mean that the recording ends there.

    Raises
    ------
    DecodeError
        The file cannot be opened, has no such channel, or holds damage; what lies before the damage comes
        first.
    """
    first = round(start_s * sample_rate_hz)
    last = None if end_s is None else round(end_s * sample_rate_hz)
    with SoundStream(path, channel, sample_rate_hz, seek_lossy=seek_lossy) as stream:
        yield from (block for block in stream.read(first, last) if len(block))
        if stream.error is not None:
            name = path_to_text(os.path.basename(str(path)))
            raise DecodeError("corrupt", f"{name}: decoding stopped ({stream.error})")
