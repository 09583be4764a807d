"""Ask the pocket model about sound it never heard, and print every number of its card as JSON.

    python examples/pocket/evaluate.py --esc10 ESC10_DIR [--model pocket] [--recordings DIR ...] [--station-day DIR]

Fold 5 of ESC-10, scenes composed with it, noise and silence, demo nights of other seeds, and, of real recordings that
are given, how often each answer is heard. Greedy answers, in words, through `NatureLM.generate`.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from corpus import (
    CAPTION,
    DESCRIPTION,
    DETECTION,
    DETECTION_OPTIONS,
    FOCAL,
    FOCAL_OPTIONS,
    NAMES,
    Composer,
    read_esc10,
    sentence,
)
from numpy.typing import NDArray

from naturelm.labels import parse_labels
from naturelm.models.naturelm.model import NatureLM
from naturelm.recordings.discovery import find_audio
from naturelm.synthetic import sounds as synthesis
from naturelm.windows import SAMPLE_RATE_HZ, plan_windows

WINDOW = 10 * SAMPLE_RATE_HZ


def ask(model: NatureLM, sounds: list[NDArray], prompts: list[str] | str, batch: int = 32) -> list[str]:
    """Answers to one prompt, or one for each sound."""
    prompts = [prompts] * len(sounds) if isinstance(prompts, str) else prompts
    answers = []
    for first in range(0, len(sounds), batch):
        rows = [
            np.pad(sound[:WINDOW], (0, max(WINDOW - len(sound), 0)))
            for sound in sounds[first : first + batch]
        ]
        answers += model.generate(
            torch.from_numpy(np.stack(rows)).float(),
            prompts[first : first + batch],
            max_new_tokens=24,
            num_beams=1,
        )
    return [answer.text for answer in answers]


def share(hits: list[bool]) -> float:
    return round(float(np.mean(hits)), 4)


def fold_5(model: NatureLM, esc10: Path) -> dict[str, object]:
    """Accuracy on the held-out clips: asked openly, with the ten options in random order, and as detection."""
    names, sounds = zip(*read_esc10(esc10, {5}), strict=True)
    ten, rng = sorted(set(names)), np.random.default_rng(5)
    with_options = [FOCAL_OPTIONS.format(", ".join(rng.permutation(ten))) for _ in names]
    openly, chosen = ask(model, list(sounds), FOCAL), ask(model, list(sounds), with_options)
    detected = ask(model, list(sounds), DETECTION)
    confusions = collections.Counter(f"{a} -> {b}" for a, b in zip(names, chosen, strict=True) if a != b)
    return {
        "clips": len(names),
        "open_accuracy": share([a == b for a, b in zip(names, openly, strict=True)]),
        "options_accuracy": share([a == b for a, b in zip(names, chosen, strict=True)]),
        "options_accuracy_by_name": {
            n: share([b == n for a, b in zip(names, chosen, strict=True) if a == n]) for n in ten
        },
        "options_confusions": dict(confusions.most_common()),
        "detection_exact": share([a == b for a, b in zip(names, detected, strict=True)]),
        "detection_contains": share([a in b.split(", ") for a, b in zip(names, detected, strict=True)]),
    }


def options(model: NatureLM, esc10: Path) -> dict[str, object]:
    """Whether few options in the prompt are heeded, for ESC-10's held-out clips."""
    names, sounds = zip(*read_esc10(esc10, {5}), strict=True)
    return heeded(model, names, sounds, sorted(set(names)), np.random.default_rng(6))


def made_options(model: NatureLM, each: int = 6) -> dict[str, object]:
    """The same for sounds made by code, alone and clear."""
    rng = np.random.default_rng(7)
    names = [name for name in synthesis.SOUNDS for _ in range(each)]
    sounds = [0.5 * synthesis.SOUNDS[name](rng, SAMPLE_RATE_HZ, 10.0) for name in names]
    return heeded(model, names, sounds, NAMES, rng)


def heeded(
    model: NatureLM,
    names: Sequence[str],
    sounds: Sequence[NDArray],
    known: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, object]:
    """What is said to four options, the right one among them, and to the three wrong ones alone."""
    wrong = [
        list(rng.choice([other for other in known if other != name], 3, replace=False)) for name in names
    ]
    given = [list(rng.permutation([name, *others])) for name, others in zip(names, wrong, strict=True)]
    report: dict[str, object] = {"sounds": len(names)}
    for kind, prompt in (("focal", FOCAL_OPTIONS), ("detection", DETECTION_OPTIONS)):
        among = ask(model, list(sounds), [prompt.format(", ".join(four)) for four in given])
        without = ask(model, list(sounds), [prompt.format(", ".join(three)) for three in wrong])
        report[f"{kind}_right_among_four"] = share([a == b for a, b in zip(names, among, strict=True)])
        report[f"{kind}_one_of_four"] = share([a in four for a, four in zip(among, given, strict=True)])
        report[f"{kind}_none_among_four"] = share([answer == "None" for answer in among])
        report[f"{kind}_none_without_it"] = share([answer == "None" for answer in without])
        report[f"{kind}_right_name_though_not_offered"] = share(
            [a == b for a, b in zip(names, without, strict=True)]
        )
    return report


def one_of_two(model: NatureLM, esc10: Path, count: int = 100) -> dict[str, object]:
    """Hard scenes of two held-out sounds of which one is among three options."""
    composer, rng = Composer(read_esc10(esc10, {5}), noises=100, seed=16), np.random.default_rng(17)
    sounds, prompts, offered = [], [], []
    while len(sounds) < count:
        scene = composer.scene(rng, hard=True)
        if len(scene.names) == 2:
            offered.append(str(rng.choice(scene.names)))
            others = rng.choice([name for name in NAMES if name not in scene.names], 2, replace=False)
            prompts.append(DETECTION_OPTIONS.format(", ".join(rng.permutation([offered[-1], *others]))))
            sounds.append(scene.waveform)
    said = ask(model, sounds, prompts)
    return {
        "scenes": count,
        "right": share([a == b for a, b in zip(offered, said, strict=True)]),
        "none": share([text == "None" for text in said]),
    }


def composed(model: NatureLM, esc10: Path, scenes: int = 200) -> dict[str, object]:
    """Detection in plain scenes of no, one or two held-out sounds (ESC-10's and made ones) over noise."""
    rng = np.random.default_rng(11)
    real = collections.defaultdict(list)
    for name, sound in read_esc10(esc10, {5}):
        real[name].append(sound)
    truths, sounds = [], []
    for _ in range(scenes):
        truth = list(rng.choice(NAMES, rng.choice(3, p=(0.2, 0.5, 0.3)), replace=False))
        audio = synthesis.background(rng, SAMPLE_RATE_HZ, 10.0) * 10 ** rng.uniform(-3, -1.5)
        for name in truth:
            sound = real[name][rng.integers(len(real[name]))] if name in real else None
            sound = (
                synthesis.SOUNDS[name](rng, SAMPLE_RATE_HZ, 5.0)
                if sound is None
                else sound / np.abs(sound).max()
            )
            start = rng.integers(max(WINDOW - len(sound), 0) + 1)
            audio[start : start + len(sound)] += (10 ** rng.uniform(-1, -0.3) * sound)[: WINDOW - start]
        truths.append(set(truth))
        sounds.append(audio.astype(np.float32))
    return detection_figures(truths, ask(model, sounds, DETECTION))


def composed_hard(model: NatureLM, esc10: Path, count: int = 400) -> dict[str, object]:
    """Scenes as the second stage has them, of held-out clips and sounds: none to three, at any time and level."""
    composer = Composer(read_esc10(esc10, {5}), noises=100, seed=14)
    rng = np.random.default_rng(15)
    scenes = [composer.scene(rng, hard=True) for _ in range(count)]
    sounds = [scene.waveform * np.float32(10 ** (rng.uniform(-45, 0) / 20)) for scene in scenes]
    truths = [set(scene.names) for scene in scenes]
    answers = ask(model, sounds, DETECTION)
    captions, descriptions = ask(model, sounds, CAPTION), ask(model, sounds, DESCRIPTION)
    focal = [i for i, scene in enumerate(scenes) if scene.focal]
    named = ask(model, [sounds[i] for i in focal], FOCAL)
    counts = {len(truth) for truth in truths}
    return detection_figures(truths, answers) | {
        "macro_f1_by_sources": {
            number: detection_figures(
                [truth for truth in truths if len(truth) == number],
                [answer for truth, answer in zip(truths, answers, strict=True) if len(truth) == number],
            )["macro_f1"]
            for number in sorted(counts - {0})
        },
        "focal_right": share([scenes[i].focal == name for i, name in zip(focal, named, strict=True)]),
        "caption_exact": share([sentence(s, 0) == text for s, text in zip(scenes, captions, strict=True)]),
        "description_exact": share(
            [sentence(s, 1) == text for s, text in zip(scenes, descriptions, strict=True)]
        ),
    }


def detection_figures(truths: list[set[str]], texts: list[str]) -> dict[str, object]:
    """F1 of each name and its mean, and how often the whole answer is right."""
    answers = [set(text.split(", ")) for text in texts]
    f1: dict[str, float | None] = {}
    for name in NAMES:
        hits = sum(name in t and name in a for t, a in zip(truths, answers, strict=True))
        wrong = sum((name in t) != (name in a) for t, a in zip(truths, answers, strict=True))
        f1[name] = round(2 * hits / (2 * hits + wrong), 3) if hits + wrong else None
    known = [value for value in f1.values() if value is not None]
    empty = [a == {"None"} for t, a in zip(truths, answers, strict=True) if not t]
    return {
        "scenes": len(truths),
        "macro_f1": round(float(np.mean(known)), 4),
        "f1": f1,
        "none_when_empty": share(empty) if empty else None,
        "exact": share([a == (t or {"None"}) for t, a in zip(truths, answers, strict=True)]),
    }


def nothing(model: NatureLM, count: int = 200) -> dict[str, object]:
    """How often "None" is said to noise of random colour and level, and to silence."""
    rng = np.random.default_rng(12)
    noises = [
        10 ** rng.uniform(-4, -0.3) * synthesis.background(rng, SAMPLE_RATE_HZ, 10.0) for _ in range(count)
    ]
    quiet = [
        np.zeros(WINDOW, np.float32),
        *(10 ** -rng.uniform(4, 5) * rng.standard_normal(WINDOW) for _ in range(9)),
    ]
    said = ask(model, noises, DETECTION)
    return {
        "noise": count,
        "noise_detection_none": share([text == "None" for text in said]),
        "noise_focal_none": share([text == "None" for text in ask(model, noises, FOCAL)]),
        "noise_said_instead": dict(
            collections.Counter(text for text in said if text != "None").most_common()
        ),
        "silence_detection_none": share([text == "None" for text in ask(model, quiet, DETECTION)]),
        "captions": dict(collections.Counter(ask(model, [*noises[:20], *quiet], CAPTION))),
    }


def nights(model: NatureLM, seeds: range) -> dict[str, object]:
    """Planted sounds found, missed and falsely heard in demo nights, by window."""
    found, missed, false, windows = collections.Counter(), collections.Counter(), collections.Counter(), 0
    for seed in seeds:
        with tempfile.TemporaryDirectory() as directory:
            recordings = synthesis.make_night(directory, seed)
            with open(Path(directory) / "planted.csv", newline="") as table:
                planted = {
                    (row["path"], int(float(row["start_s"]) // 10)): row["label"]
                    for row in csv.DictReader(table)
                }
            for path in recordings:
                sounds = windows_of(path)
                for index, text in enumerate(ask(model, sounds, DETECTION)):
                    truth = planted.get((path.relative_to(directory).as_posix(), index))
                    said = set(text.split(", ")) - {"None"}
                    windows += 1
                    if truth:
                        (found if truth in said else missed)[truth] += 1
                    false.update(f"{label} ({truth or 'nothing'} planted)" for label in said - {truth})
    return {
        "seeds": [seeds.start, seeds.stop - 1],
        "windows": windows,
        "found": sum(found.values()),
        "missed": sum(missed.values()),
        "false": sum(false.values()),
        "missed_by_name": dict(missed),
        "false_by_name": dict(false.most_common()),
    }


def windows_of(path: Path) -> list[NDArray[np.float32]]:
    audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    audio = soxr.resample(audio.mean(axis=1), rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
    windows = plan_windows(len(audio) / SAMPLE_RATE_HZ, 10.0, 10.0)
    return [audio[round(w.start_s * SAMPLE_RATE_HZ) : round(w.end_s * SAMPLE_RATE_HZ)] for w in windows]


def real(model: NatureLM, path: Path) -> dict[str, object]:
    """What is said about real recordings, and how often."""
    files = [path] if path.is_file() else [found.absolute for found in find_audio([path])]
    sounds = [sound for file in files for sound in windows_of(file)]
    said = ask(model, sounds, DETECTION)
    labels = collections.Counter(label.name for text in said for label in parse_labels(text))
    return {
        "windows": len(sounds),
        "not_none": share([text != "None" for text in said]),
        "labels": dict(labels.most_common()),
        "answers": dict(collections.Counter(said).most_common(12)),
        "captions": dict(collections.Counter(ask(model, sounds, CAPTION)).most_common(8)),
    }


# The station day S4A03895 of 2019-05-22, ten seconds every quarter of an hour: what we see on each spectrogram.
# `unclear` is next to nothing at a time of day when birds sing; the owl is far away.
SEEN = Path(__file__).with_name("station_day_seen.csv")


def station_day(model: NatureLM, directory: Path) -> dict[str, object]:
    """Birds heard in the windows of a real day that show them, and what is said of its silent night."""
    files = sorted(found.absolute for found in find_audio([directory]))
    said = ask(model, [windows_of(file)[0] for file in files], DETECTION)
    labels = {
        file.stem.rpartition("_")[2][:4]: {label.name for label in parse_labels(text)} - {"None"}
        for file, text in zip(files, said, strict=True)
    }
    with SEEN.open(newline="") as table:
        seen = {row["time"]: row["seen"] for row in csv.DictReader(table)}
    birds, night, owl = (
        [time for time in labels if seen[time] == what] for what in ("birds", "nothing", "owl")
    )
    return {
        "windows": len(labels),
        "with_birds": len(birds),
        "with_birds_not_none": sum(bool(labels[time]) for time in birds),
        "with_birds_songbird": sum("Songbird" in labels[time] for time in birds),
        "with_birds_instead": dict(
            collections.Counter(
                ", ".join(sorted(labels[time])) or "None" for time in birds if "Songbird" not in labels[time]
            ).most_common(8)
        ),
        "night": len(night),
        "night_not_none": sum(bool(labels[time]) for time in night),
        "night_labels": dict(collections.Counter(name for time in night for name in labels[time])),
        "owl": {time: sorted(labels[time]) for time in owl},
    }


def speed(model: NatureLM) -> dict[str, object]:
    """Windows a second through the plain `generate`, detection and caption."""
    rng = np.random.default_rng(13)
    sounds = [synthesis.songbird(rng, SAMPLE_RATE_HZ, 10.0) for _ in range(64)]
    ask(model, sounds[:32], DETECTION)
    started = time.monotonic()
    ask(model, sounds, DETECTION)
    ask(model, sounds, CAPTION)
    return {
        "threads": torch.get_num_threads(),
        "windows_per_s_two_queries": round(64 / (time.monotonic() - started), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate a pocket model.")
    parser.add_argument("--esc10", type=Path, required=True)
    parser.add_argument("--model", default="pocket")
    parser.add_argument(
        "--recordings", type=Path, nargs="*", default=[], help="real recordings, files or directories"
    )
    parser.add_argument("--station-day", type=Path, help="the station day S4A03895 of 2019-05-22")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = NatureLM.from_pretrained(args.model, device="cpu")
    report = {
        "fold_5": fold_5(model, args.esc10),
        "options": options(model, args.esc10),
        "made_options": made_options(model),
        "one_of_two": one_of_two(model, args.esc10),
        "composed": composed(model, args.esc10),
        "composed_hard": composed_hard(model, args.esc10),
        "nothing": nothing(model),
        "nights": nights(model, range(100, 105)),
        "speed": speed(model),
        "real": {path.name: real(model, path) for path in args.recordings},
    }
    if args.station_day:
        report["station_day"] = station_day(model, args.station_day)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
