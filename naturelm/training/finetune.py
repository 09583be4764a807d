"""Fine-tuning from labels to a model: manifests, a schedule that fits their number, and a comparison at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from naturelm.errors import NaturelmError
from naturelm.labels import normal_form, parse_labels
from naturelm.storage import write_whole
from naturelm.tables.reviews import precision_interval
from naturelm.training.labelled import DETECTION, manifest_rows
from naturelm.training.labelled_windows import Clip
from naturelm.training.manifest import write_manifest
from naturelm.training.pieces import piece
from naturelm.windows import SAMPLE_RATE_HZ

DEFAULTS: dict[str, Any] = {
    "model": {"trainable": ["projection", "lora"]},
    "data": {
        "questions_per_example": 2,
        "time_scale_probability": 0.3,
        "time_scale": 1.1,
        "gain_db": [-20, 0],
    },
    "optimisation": {
        "batch": 16,
        "peak_lr": 3.0e-4,
        "end_lr": 1.0e-5,
        "betas": [0.9, 0.98],
        "weight_decay": 0.05,
    },
    "evaluation": {"examples": 64, "max_new_tokens": 24},
    "run": {"log_every": 10, "checkpoint_every": 100, "loaders": 1},
}
"""What `naturelm finetune` takes where no --config says otherwise; `configs/train/finetune.yaml` is the same."""

_QUESTIONS = ("naming", "detection", "detection-options")
_OPTIONS = 5
# Few clips are seen many times, many clips a few times.
_EXAMPLES_SEEN = 4000
_FEWEST_PASSES, _MOST_PASSES = 3, 40
_MOST_EVALUATED = 500
_SIGNIFICANT = 0.05
_EVALUATION_BATCH = 16


@dataclass(frozen=True)
class Share:
    """A share and its 95 % interval (Wilson 1927).

    Attributes
    ----------
    right, of : int
        How many of how many.
    low, high : float
        The interval; 0 and 1 where `of` is 0.
    """

    right: int
    of: int
    low: float
    high: float

    @classmethod
    def make(cls, right: int, of: int) -> Share:
        low, high = precision_interval(right, of) if of else (0.0, 1.0)
        return cls(right, of, low, high)

    def __str__(self) -> str:
        if not self.of:
            return "-"
        return f"{self.right / self.of:.0%} [{100 * self.low:.0f}, {100 * self.high:.0f}]"


@dataclass(frozen=True)
class Comparison:
    """A model before and after, on the same held-out clips.

    Attributes
    ----------
    exact : (Share, Share)
        Clips whose answer named exactly the right labels.
    found : dict of str to (Share, Share)
        For each label the clips with it in which it was named (recall).
    correct : dict of str to (Share, Share)
        For each label the clips in which it was named that have it (precision).
    gained, lost : int
        Clips that only the new model, and only the old one, answered exactly.
    """

    exact: tuple[Share, Share]
    found: dict[str, tuple[Share, Share]]
    correct: dict[str, tuple[Share, Share]]
    gained: int
    lost: int

    @property
    def p_value(self) -> float:
        """Two-sided exact sign test of gained against lost clips (McNemar)."""
        return sign_test(self.gained, self.lost)

    def verdict(self) -> str:
        """One sentence: better, not better, or worse."""
        before, after = (f"{share.right} of {share.of}" for share in self.exact)
        counts = f"{before} clips exactly right before, {after} after (p = {self.p_value:.2g})"
        if self.p_value >= _SIGNIFICANT:
            return f"The new model is not shown to be better: {counts}."
        if self.gained > self.lost:
            return f"The new model is better: {counts}."
        return f"The new model is worse: {counts}; keep the old one."

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-serialisable."""
        return asdict(self) | {"p_value": self.p_value, "verdict": self.verdict()}


def sign_test(gained: int, lost: int) -> float:
    """Two-sided p-value of so many gains and losses where both are equally likely."""
    trials = gained + lost
    tail = sum(math.comb(trials, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**trials)


def steps_for(clips: int, batch: int) -> int:
    """Steps for so many clips: each is seen 3 to 40 times, and 4,000 in all where that lies between."""
    passes = min(max(_EXAMPLES_SEEN / clips, _FEWEST_PASSES), _MOST_PASSES)
    return max(10, round(clips * passes / batch))


def write_manifests(train: Sequence[Clip], held_out: Sequence[Clip], out: Path, seed: int) -> None:
    """Write `train.jsonl` and `held_out.jsonl` into `out`."""
    for name, clips in (("train", train), ("held_out", held_out)):
        rows = manifest_rows([clip.labelled() for clip in clips], _QUESTIONS, _OPTIONS, seed=seed, root=out)
        write_manifest(out / f"{name}.jsonl", rows)


def settings(
    base: dict[str, Any],
    model: str,
    out: Path,
    window_s: float,
    clips: int,
    steps: int | None,
    run: dict[str, Any],
) -> dict[str, Any]:
    """The configuration of the training run: `base`, filled in with what the labels decide."""
    sections = {
        name: dict(base.get(name) or {}) for name in ("model", "data", "optimisation", "evaluation", "run")
    }
    optimisation = sections["optimisation"]
    # A new value, since the base's own may not be a number: it is checked with the rest.
    batch = optimisation.get("batch", 16)
    optimisation.setdefault("steps", steps_for(clips, batch) if isinstance(batch, int) and batch > 0 else 1)
    if steps is not None:
        optimisation["steps"] = steps
    sections["model"] |= {"checkpoint": model}
    sections["data"] |= {"manifests": [str(out / "train.jsonl")], "window_s": window_s}
    sections["evaluation"] = {"every_steps": max(1, int(optimisation["steps"]) // 4)} | sections["evaluation"]
    sections["evaluation"] |= {"manifests": [str(out / "held_out.jsonl")]}
    sections["run"] |= {"storage": str(out / "run")} | run
    return base | sections


def chosen(held_out: Sequence[Clip], seed: int) -> list[Clip]:
    """The clips that both models are compared on: all, or so many drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(held_out))[:_MOST_EVALUATED]
    return [held_out[number] for number in np.sort(order)]


def answers(model: str, clips: Sequence[Clip]) -> list[frozenset[str]]:
    """The labels that a model names in each clip when it is queried as `naturelm process` does by default.

    Parameters
    ----------
    model
        A name, as `load_model` takes it.
    clips
        Windows.
    """
    from naturelm.engine.engine import Engine
    from naturelm.engine.queries import EngineQuery
    from naturelm.models import load_model
    from naturelm.models.base import LanguageModel

    loaded = load_model(model)
    assert isinstance(loaded, LanguageModel)  # training has begun with it
    samples = loaded.natural_window_samples
    named: list[frozenset[str]] = []
    kinds = {clip.scientific for clip in clips}
    engines = {
        kind: Engine(loaded, [EngineQuery(DETECTION.format("scientific" if kind else "common"))])
        for kind in kinds
    }
    for start in range(0, len(clips), _EVALUATION_BATCH):
        part = clips[start : start + _EVALUATION_BATCH]
        waveforms_BS = np.zeros((len(part), samples), np.float32)
        for row, clip in zip(waveforms_BS, part, strict=True):
            sound = piece(str(clip.path), samples / SAMPLE_RATE_HZ, 0.0, clip.span)[:samples]
            row[: len(sound)] = sound
        texts = [""] * len(part)
        for kind, engine in engines.items():
            own = [number for number, clip in enumerate(part) if clip.scientific == kind]
            for number, (answer,) in zip(own, engine.answer(waveforms_BS[own]) if own else [], strict=True):
                texts[number] = answer.text
        named += [frozenset(normal_form(label.name) for label in parse_labels(text)) for text in texts]
    return named


def compare(
    clips: Sequence[Clip], before: Sequence[frozenset[str]], after: Sequence[frozenset[str]]
) -> Comparison:
    """Figures of two models' answers about the same clips."""
    truth = [frozenset(map(normal_form, clip.names)) for clip in clips]
    spelling = {normal_form(name): name for clip in clips for name in clip.names}
    exact = [[own == expected for own, expected in zip(side, truth, strict=True)] for side in (before, after)]
    found, correct = {}, {}
    for form, name in sorted(spelling.items(), key=lambda item: item[1]):
        hits = [
            sum(form in own & expected for own, expected in zip(side, truth, strict=True))
            for side in (before, after)
        ]
        present = sum(form in expected for expected in truth)
        found[name] = (Share.make(hits[0], present), Share.make(hits[1], present))
        times = [sum(form in own for own in side) for side in (before, after)]
        correct[name] = (Share.make(hits[0], times[0]), Share.make(hits[1], times[1]))
    return Comparison(
        (Share.make(sum(exact[0]), len(clips)), Share.make(sum(exact[1]), len(clips))),
        found,
        correct,
        gained=sum(new and not old for old, new in zip(*exact, strict=True)),
        lost=sum(old and not new for old, new in zip(*exact, strict=True)),
    )


def store_comparison(comparison: Comparison, out: Path) -> None:
    """Write `comparison.json` into `out`."""
    text = json.dumps(comparison.to_json(), ensure_ascii=False, indent=1) + "\n"
    write_whole(out / "comparison.json", text.encode())


def require_labels(train: Sequence[Clip]) -> None:
    """Raise NaturelmError where there is no label to learn."""
    if not any(clip.names for clip in train):
        raise NaturelmError("no clip has a label; give labels of something to name")
