"""MPEG layer I and II streams that hold a tone, made by code: no encoder at hand writes them."""

from __future__ import annotations

import math

_RATES = {44100: (3, 0), 48000: (3, 1), 32000: (3, 2), 22050: (2, 0), 24000: (2, 1), 16000: (2, 2)}
# Index into the table of bit rates, and kbit/s: one for each layer and version, ample for one subband.
_BIT_RATES = {(1, 3): (6, 192), (1, 2): (6, 96), (2, 3): (12, 256), (2, 2): (8, 64)}
# Subbands that have an allocation: ISO 11172-3 tables B.2a and B.2b, 13818-3 table B.1; and bits for each allocation.
_SUBBANDS_II = {48000: 27, 44100: 30, 32000: 30, 22050: 30, 24000: 30, 16000: 30}
_FULL_SCALE = 3  # index of the scale factor 1


def tone_stream(layer: int, rate_hz: int, seconds: float, channels: int = 1, subband: int = 1) -> bytes:
    """A tone in the middle of a subband, from the first frame to the last.

    Its frequency is about (subband + 1/2) · rate / 64.
    """
    samples = 384 if layer == 1 else 1152
    frames = math.ceil(seconds * rate_hz / samples)
    return b"".join(_frame(layer, rate_hz, channels, subband, number) for number in range(frames))


def _frame(layer: int, rate_hz: int, channels: int, subband: int, number: int) -> bytes:
    version, rate_index = _RATES[rate_hz]
    index, kilobits = _BIT_RATES[layer, version]
    bits = _Bits()
    bits.put(0x7FF, 11)
    bits.put(version, 2)
    bits.put(4 - layer, 2)
    bits.put(1, 1)  # no checksum
    bits.put(index, 4)
    bits.put(rate_index, 2)
    # 44.1 kHz needs padding now and then, without which the bit rate is a little lower: no decoder minds.
    bits.put(0, 2)
    bits.put(3 if channels == 1 else 0, 2)
    bits.put(0, 6)
    if layer == 1:
        size_bytes = 12 * 1000 * kilobits // rate_hz * 4
        _layer_1(bits, channels, subband, number)
    else:
        size_bytes = 144 * 1000 * kilobits // rate_hz
        _layer_2(bits, rate_hz, version, channels, subband, number)
    return bits.as_bytes().ljust(size_bytes, b"\0")


def _layer_1(bits: _Bits, channels: int, subband: int, number: int) -> None:
    for band in range(32):
        for _ in range(channels):
            bits.put(14 if band == subband else 0, 4)  # 15 bits
    for _ in range(channels):
        bits.put(_FULL_SCALE, 6)
    for sample in range(12):
        for _ in range(channels):
            bits.put(_code(12 * number + sample, 15), 15)


def _layer_2(bits: _Bits, rate_hz: int, version: int, channels: int, subband: int, number: int) -> None:
    for band in range(_SUBBANDS_II[rate_hz]):
        if version == 3:
            width = 4 if band < 11 else 3 if band < 23 else 2
        else:
            width = 4 if band < 4 else 3 if band < 11 else 2
        for _ in range(channels):
            bits.put(15 if band == subband else 0, width)
    for _ in range(channels):
        bits.put(2, 2)  # one scale factor for the whole frame
    for _ in range(channels):
        bits.put(_FULL_SCALE, 6)
    size = 16 if version == 3 else 14
    for granule in range(12):
        for _ in range(channels):
            for sample in range(3):
                bits.put(_code(36 * number + 3 * granule + sample, size), size)


def _code(sample: int, size: int) -> int:
    """A quarter-rate tone at half of full scale, quantised, its first bit inverted."""
    value = round(math.cos(math.pi / 2 * sample + math.pi / 4) * 0.5 * 2 ** (size - 1))
    return (value + (1 << size - 1)) & ((1 << size) - 1)


class _Bits:
    def __init__(self) -> None:
        self._number, self._length = 0, 0

    def put(self, value: int, width: int) -> None:
        self._number = self._number << width | value
        self._length += width

    def as_bytes(self) -> bytes:
        padding = -self._length % 8
        return (self._number << padding).to_bytes((self._length + padding) // 8)
