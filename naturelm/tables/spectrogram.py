"""Pictures of sound: a spectrogram as an array, as a small bitmap, and as a picture with axes."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naturelm.tables.row_formats import whole_file

MAX_FREQUENCY_HZ = 12_000.0
"""Nothing above is drawn: models receive sound up to `TOP_FREQUENCY_HZ`."""

_WINDOW_S = 0.032
_DYNAMIC_RANGE_DB = 55.0
_FLATTENED = 0.8
_COLOURS = 64  # enough for the eye, and a paletted PNG a third smaller than with 256


@dataclass(frozen=True, slots=True)
class Spectrogram:
    """Loudness over frequency and time.

    Attributes
    ----------
    level_db : array, float32 [frequencies, times]
        Power in dB (re an arbitrary level), lowest frequency first.
    duration_s : float
        Seconds that the columns span.
    max_hz : float
        Frequency at the top of the last row, in Hz.
    """

    level_db: NDArray[np.float32]
    duration_s: float
    max_hz: float

    def brightness(self) -> NDArray[np.float32]:
        """Level scaled to 0 (background) … 1 (loudest), float32 [frequencies, times].

        Most of each frequency's own background is taken away, or the rumble of wind and engines would outshine
        every bird; not all of it, or a cricket that never pauses would vanish.
        """
        level_db = self.level_db - _FLATTENED * np.median(self.level_db, axis=1, keepdims=True)
        top = float(np.percentile(level_db, 99.9))
        bottom = max(float(np.median(level_db)) + 1.0, top - _DYNAMIC_RANGE_DB)
        # A silent window stays dark instead of showing its rounding noise.
        return np.clip((level_db - bottom) / max(top - bottom, 20.0), 0.0, 1.0)


def spectrogram(
    samples: NDArray[np.float32], sample_rate_hz: int, columns: int = 600, rows: int = 160
) -> Spectrogram:
    """Compute a spectrogram of at most `columns` × `rows`.

    Parameters
    ----------
    samples : array, float32 [samples]
        Mono sound.
    sample_rate_hz : int
        Its sample rate.
    columns, rows : int
        Greatest number of times and frequencies; finer ones are pooled by their maximum, so that a short call
        stays visible.
    """
    size = 2 ** max(5, round(np.log2(sample_rate_hz * _WINDOW_S)))
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    max_hz = min(MAX_FREQUENCY_HZ, sample_rate_hz / 2)
    bins = max(1, round(max_hz / sample_rate_hz * size))
    hop = int(np.clip(len(samples) // columns, size // 8, size // 2))
    padded = np.pad(samples, (size // 2, size))
    starts = np.arange(0, max(len(samples), 1), hop)
    power = np.empty((bins, len(starts)), np.float32)
    for first in range(0, len(starts), 256):  # in parts: a minute at 384 kHz would take gigabytes
        part = starts[first : first + 256]
        frames = padded[part[:, None] + np.arange(size)] * window
        power[:, first : first + 256] = (np.abs(np.fft.rfft(frames)[:, 1 : bins + 1]) ** 2).T
    power = _pooled(_pooled(power, rows, axis=0), columns, axis=1)
    return Spectrogram(10 * np.log10(power + 1e-10), len(samples) / sample_rate_hz, max_hz)


def _pooled(values: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float32]:
    if values.shape[axis] <= size:
        return values
    edges = np.arange(size) * values.shape[axis] // size
    return np.maximum.reduceat(values, edges, axis=axis)


def bitmap_png(picture: Spectrogram) -> bytes:
    """The bare spectrogram as a paletted PNG, without axes; the page that shows it draws them."""
    from matplotlib import colormaps
    from PIL import Image

    shades = np.round(picture.brightness()[::-1] * (_COLOURS - 1)).astype(np.uint8)
    image = Image.fromarray(shades, "P")
    palette = colormaps["magma"](np.linspace(0, 1, _COLOURS))[:, :3]
    image.putpalette(np.round(palette * 255).astype(np.uint8).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def save_picture(
    path: Path,
    picture: Spectrogram,
    title: str,
    start_s: float,
    detection_s: tuple[float, float] | None = None,
) -> None:
    """Save a spectrogram with axes (seconds within the recording, kHz) as PNG.

    Parameters
    ----------
    path : Path
        File to write.
    picture : Spectrogram
        What to draw.
    title : str
        Shown as it is: untrusted text is not read as mathematics.
    start_s : float
        Where the sound starts in its recording, in seconds.
    detection_s : (float, float), optional
        Start and end of the detection within the recording; marked by two lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    end_s = start_s + picture.duration_s
    axes.imshow(
        picture.brightness(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(start_s, end_s, 0.0, picture.max_hz / 1000),
        interpolation="nearest",
    )
    for edge_s in detection_s or ():
        if start_s < edge_s < end_s:
            axes.axvline(edge_s, color="white", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlabel("Time in recording (s)")
    axes.set_ylabel("Frequency (kHz)")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # an emoji in a label is drawn as a box
        with whole_file(path, "wb") as file:
            figure.savefig(file, format="png")
