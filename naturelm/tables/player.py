"""A short excerpt as a web page shows it: a spectrogram with axes and a player, all inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from naturelm.errors import NaturelmError
from naturelm.tables.originals import locate_originals, read_excerpts
from naturelm.tables.spectrogram import Spectrogram, bitmap_png, spectrogram
from naturelm.text import one_line
from naturelm.windows import TOP_FREQUENCY_HZ

if TYPE_CHECKING:
    import jinja2

PAD_S = 1.0
"""Sound before and after a detection that an excerpt includes, in seconds."""
MAX_PLAYER_S = 20.0
"""Longer excerpts are cut, so that a page stays small."""

_MP3_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000)
_MP3_COMPRESSION = 0.7  # 56 kbit/s at 24 kHz: about 70 kB for ten seconds
_PLAYER_PEAK = 0.7


@cache
def templates() -> jinja2.Environment:
    """The package's page templates; whatever they are given is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("naturelm.tables"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["line"] = one_line
    return environment


def data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def listening_mp3(samples: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Encode mono sound as a small MP3 for listening.

    Quiet recordings are the rule, so the level is raised to a common peak; frequencies above 12 kHz go.
    """
    rate = next((rate for rate in _MP3_RATES_HZ if rate >= sample_rate_hz), _MP3_RATES_HZ[-1])
    sound = samples if rate == sample_rate_hz else soxr.resample(samples, sample_rate_hz, rate)
    peak = float(np.abs(sound).max(initial=0.0))
    if peak > 0:
        sound = sound * (_PLAYER_PEAK / peak)
    out = io.BytesIO()
    soundfile.write(
        out, sound, rate, format="MP3", compression_level=_MP3_COMPRESSION, bitrate_mode="CONSTANT"
    )
    return out.getvalue()


def player_html(
    samples: NDArray[np.float32],
    sample_rate_hz: int,
    start_s: float,
    description: str,
    detection_s: tuple[float, float] | None = None,
) -> str:
    """Render spectrogram and player of an excerpt as HTML without references to other files.

    Parameters
    ----------
    samples : array, float32 [samples]
        Mono sound; what lies beyond `MAX_PLAYER_S` is left out.
    sample_rate_hz : int
        Its sample rate.
    start_s : float
        Where the excerpt starts in its recording, in seconds.
    description : str
        What the picture and the player are of, for readers who do not see them. Escaped.
    detection_s : (float, float), optional
        Start and end of the detection within the recording; marked where they lie inside the excerpt.
    """
    samples = samples[: round(MAX_PLAYER_S * sample_rate_hz)]
    picture = spectrogram(samples, sample_rate_hz)
    return (
        templates()
        .get_template("player.html.j2")
        .render(
            picture=data_uri(bitmap_png(picture), "image/png"),
            sound=data_uri(listening_mp3(samples, sample_rate_hz), "audio/mpeg"),
            description=description,
            seconds=[(f"{tick:g}", x) for tick, x in _time_ticks(start_s, picture.duration_s)],
            kilohertz=[(f"{tick:g}", y) for tick, y in _frequency_ticks(picture)],
            heard=1 - TOP_FREQUENCY_HZ / picture.max_hz if picture.max_hz > TOP_FREQUENCY_HZ else None,
            marks=[
                (edge_s - start_s) / picture.duration_s
                for edge_s in detection_s or ()
                if start_s + 0.01 < edge_s < start_s + picture.duration_s - 0.01
            ],
        )
    )


def add_players(
    directory: Path,
    rows: Sequence[dict[str, Any]],
    describe: Callable[[dict[str, Any]], str],
    archive: Path | None = None,
) -> None:
    """Give each row a `player`: HTML, or None where the original is not found or cannot be read.

    Parameters
    ----------
    directory : Path
        The results directory.
    rows : sequence of dict
        Each with `recording_id`, `path`, `start_s` and `end_s`.
    describe : callable
        A row's description, as `player_html` takes it.
    archive : Path, optional
        As of `locate_originals`.
    """
    by_recording: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        row["player"] = None
        by_recording.setdefault(row["recording_id"], []).append(row)
    paths = {recording_id: own[0]["path"] for recording_id, own in by_recording.items()}
    for recording_id, original in locate_originals(directory, paths, archive).items():
        own = by_recording[recording_id]
        try:
            for excerpt in read_excerpts(
                original, [(row["start_s"] - PAD_S, row["end_s"] + PAD_S) for row in own]
            ):
                row = own[excerpt.index]
                row["player"] = player_html(
                    excerpt.mono(),
                    excerpt.sample_rate_hz,
                    excerpt.start_s,
                    describe(row),
                    (row["start_s"], row["end_s"]),
                )
        except NaturelmError:
            continue  # shown without a player, as a missing original is


def _time_ticks(start_s: float, duration_s: float) -> list[tuple[float, float]]:
    """Times worth naming, each with its place along the picture, 0 … 1."""
    step = next((step for step in (0.1, 0.2, 0.5, 1, 2, 5) if duration_s / step <= 8), 5)
    first = int(np.ceil(start_s / step - 1e-6))
    count = int((start_s + duration_s) / step + 1e-6) - first + 1
    times = [round((first + i) * step, 3) for i in range(count)]
    return [(time, (time - start_s) / duration_s) for time in times]


def _frequency_ticks(picture: Spectrogram) -> list[tuple[float, float]]:
    """Frequencies in kHz worth naming, each with its place from the top, 0 … 1."""
    top_khz = picture.max_hz / 1000
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 4) if top_khz / step <= 6)
    ticks = [i * step for i in range(int(top_khz / step + 1e-6) + 1)]
    return [(tick, 1 - tick / top_khz) for tick in ticks]
