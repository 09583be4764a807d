"""A small archive made by code, and its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from naturelm.archive.backends import local
from naturelm.archive.figures import Counts
from naturelm.archive.job import process_archive
from naturelm.archive.progress import Progress
from naturelm.archive.stopping import Stop
from naturelm.archive.writer import Committer
from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load_archive_config
from naturelm.results.rows import AnsweredSegment
from naturelm.synthetic import sounds

RATE_HZ = 16_000
STATIONS = ("007", "湿地")


def make_archive(root: Path, windows: int = 4) -> Path:
    """Recordings whose windows hold owls, frogs and noise in turn: one of each station, one undated, one broken."""
    rng = np.random.default_rng(0)
    makers = (sounds.owl, sounds.frog, sounds.background)
    for number, name in enumerate([*(f"{station}_20240501_060000.wav" for station in STATIONS), "plain.wav"]):
        path = root / (STATIONS[number] if number < len(STATIONS) else "nodate") / name
        path.parent.mkdir(parents=True)
        parts = [makers[(number + window) % 3](rng, RATE_HZ, 10.0) for window in range(windows)]
        noise = rng.normal(size=windows * 10 * RATE_HZ) * 0.003
        soundfile.write(path, (np.concatenate(parts) * 0.5 + noise).astype(np.float32), RATE_HZ)
    (root / "broken.wav").write_bytes(b"RIFF no recording")
    return root


def settings(**sections: Any) -> ArchiveConfig:
    """Segments of two windows, in this process."""
    return load_archive_config(None, {"job": {"segment_minutes": 1 / 3, "workers": 0}} | sections)


def run(
    archive: Path, out: Path, config: ArchiveConfig | None = None, *, embed: bool = False, **options: Any
) -> Counts:
    config = config or settings(embeddings={"pooling": "mean"})
    return process_archive([archive], out, config, Progress(), embed_only=embed, **options)


def stopped_after(segments: int, monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Ends a run when so many segments with sound have been committed, of batches of two windows."""
    stop, commit, done = Stop(), Committer.commit, []

    def count(self: Committer, answered: AnsweredSegment) -> None:
        commit(self, answered)
        done.extend([answered.segment.id] * bool(answered.windows))
        if len(done) >= segments:
            stop.ask("SIGINT")

    monkeypatch.setattr(Committer, "commit", count)
    monkeypatch.setattr(local, "_WINDOWS_PER_CALL", 2)
    return stop
