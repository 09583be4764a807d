"""Compose what the pocket model is trained on: ten-second scenes, noise, manifests, and the model's shape.

    python examples/pocket/corpus.py --esc10 ESC10_DIR --out CORPUS

ESC10_DIR holds `esc10.csv` (filename, fold, category) and `audio/`; fold 5 is left for `examples/pocket/evaluate.py`.
CORPUS gets `stage1.jsonl` (single clear sounds to be named), `stage2.jsonl` (no to three sounds at any time and level
over noise; all forms of questions), `held_out.jsonl` (as stage 2, other scenes), `noise/` and `shape/`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from naturelm.models.naturelm.config import NatureLMConfig
from naturelm.models.parts.beats import BeatsConfig
from naturelm.models.parts.qformer import QFormerConfig
from naturelm.synthetic import sounds as synthesis
from naturelm.training.manifest import write_manifest

Waveform = NDArray[np.float32]

RATE_HZ = 16_000
WINDOW = 10 * RATE_HZ
SOUND_S = 5.0
# Bands from 150 to 7500 Hz, as bins of 512-point spectra; what is above the last start is left out.
_BAND_STARTS = (5, 10, 19, 38, 64, 96, 144, 192, 240)

# Name -> (clause, the same in other words). The order is that of captions: who calls first, what surrounds it last.
LABELS: dict[str, tuple[str, str]] = {
    "Songbird": ("a songbird sings", "song of a songbird"),
    "Owl": ("an owl hoots", "hooting of an owl"),
    "Rooster": ("a rooster crows", "crowing of a rooster"),
    "Frog": ("frogs call", "calls of frogs"),
    "Cricket": ("crickets chirp", "chirping of crickets"),
    "Bat": ("a bat calls", "calls of a bat"),
    "Wolf": ("a wolf howls", "howling of a wolf"),
    "Dog": ("a dog barks", "barking of a dog"),
    "Whale": ("a whale moans", "moaning of a whale"),
    "Crying baby": ("a baby cries", "crying of a baby"),
    "Sneezing": ("a person sneezes", "sneezing of a person"),
    "Clock tick": ("a clock ticks", "ticking of a clock"),
    "Crackling fire": ("a fire crackles", "crackling of a fire"),
    "Chainsaw": ("a chainsaw runs", "noise of a chainsaw"),
    "Helicopter": ("a helicopter flies", "noise of a helicopter"),
    "Engine": ("an engine hums", "hum of an engine"),
    "Sea waves": ("sea waves break", "noise of sea waves"),
    "Rain": ("rain falls", "noise of rain"),
    "Wind": ("the wind blows", "noise of wind"),
}
NAMES = list(LABELS)

DETECTION = "What are the common names for the species in the audio, if any?"
FOCAL = "What is the common name for the focal species in the audio? Answer:"
CAPTION = "Caption the audio."
DESCRIPTION = "Describe the sounds in the recording."
FOCAL_OPTIONS = "Which of these is the focal species in the audio: {}? Answer:"
DETECTION_OPTIONS = "Which of these, if any, are present in the audio recording? {}"
TASKS = {
    DETECTION: "common-multiple-detection",
    DETECTION_OPTIONS: "common-detection-random",
    FOCAL: "common-naming",
    FOCAL_OPTIONS: "common-naming-random",
    CAPTION: "caption",
    DESCRIPTION: "caption",
}

# What a songbird and a cricket may sound like beside what the demo's do.
VARIANTS = {
    "Songbird": (synthesis.bird_call, synthesis.bird_chips, synthesis.bird_chorus),
    "Cricket": (synthesis.cricket_trill,),
}


@dataclass(frozen=True)
class Scene:
    """A scene's sound, the names heard in alphabetical order, and the loudest, where one clearly is."""

    waveform: Waveform
    names: tuple[str, ...]
    focal: str | None
    silent: bool


# -- sounds ----------------------------------------------------------------------------------------------------


def read_esc10(directory: Path, folds: Iterable[int]) -> list[tuple[str, Waveform]]:
    """Names and sound at 16 kHz of the clips in some folds."""
    with open(directory / "esc10.csv", newline="") as table:
        rows = [row for row in csv.DictReader(table) if int(row["fold"]) in folds]
    clips = []
    for row in rows:
        audio, rate_hz = soundfile.read(
            directory / "audio" / row["filename"], dtype="float32", always_2d=True
        )
        audio = soxr.resample(audio.mean(axis=1), rate_hz, RATE_HZ).astype(np.float32)
        clips.append((row["category"].replace("_", " ").capitalize(), audio))
    return clips


class Composer:
    """Makes scenes of recorded clips and made sounds over noise.

    Parameters
    ----------
    clips
        Names and sounds that were recorded.
    noises
        How many different noises there are to begin with.
    """

    def __init__(self, clips: Sequence[tuple[str, Waveform]], noises: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._clips: dict[str, list[Waveform]] = {}
        for name, clip in clips:
            self._clips.setdefault(name, []).append(_trimmed(clip))
        weights = np.array([1.0 if name in self._clips else 0.7 for name in NAMES])
        weights[NAMES.index("Songbird")] = 1.5  # what stations hear most
        self._weights = weights / weights.sum()
        self._noises = [_steady(rng) for _ in range(noises)]

    def scene(self, rng: np.random.Generator, hard: bool) -> Scene:
        """No, one or, where `hard`, up to three sounds at any time and level over noise."""
        count = int(rng.choice(4, p=(0.22, 0.4, 0.28, 0.1) if hard else (0.1, 0.9, 0, 0)))
        chosen = [NAMES[i] for i in rng.choice(len(NAMES), count, replace=False, p=self._weights)]
        # A recording's last window may be short; what is missing is silence.
        size = int(rng.integers(3 * RATE_HZ, WINDOW)) if hard and rng.random() < 0.12 else WINDOW
        audio = np.zeros(WINDOW, np.float32)
        softer_db = rng.uniform(0, 12) * (rng.random() < 0.6)
        for rank, name in enumerate(chosen):
            sound = self._sound(name, rng)
            if rng.random() < 0.8 * hard:
                sound = varied(sound, rng)
            if rng.random() < 0.3 * hard:
                sound = distant(sound, rng)
            sound = softest = sound * np.float32(10 ** (-softer_db * rank / 20) / loudness(sound))
            # At the start: where a shorter recording lies in a padded window.
            at_start = count == 1 and rng.random() < 0.3
            start = 0 if at_start else int(rng.integers(max(size - len(sound), 0) + 1))
            audio[start : start + len(sound)] += sound[: WINDOW - start]
        silent = bool(rng.random() < (0.25 if count else 0.1))
        if not silent:
            noise = self.noise(rng)[:WINDOW]
            gain_db = clear_db(softest, noise) - rng.uniform(*(6, 60) if hard else (30, 70)) if count else 0.0
            audio += noise * np.float32(10 ** (gain_db / 20))
            if rng.random() < 0.5 * hard:  # no high-pass filter
                low = synthesis.rumble(rng, RATE_HZ, WINDOW / RATE_HZ)
                gain_db += rng.uniform(0, 42)
                audio += low * np.float32(10 ** (gain_db / 20) * loudness(noise) / loudness(low))
        if rng.random() < 0.25:  # a recording of a lower sample rate has nothing above
            audio = equalized(audio, rng, 0.0, top_hz=rng.uniform(3500, 7500))
        if not silent or count:
            audio *= np.float32((0.7 if count else 10 ** rng.uniform(-3.5, 0)) / np.abs(audio).max())
        names = tuple(sorted(chosen))
        focal = chosen[0] if count == 1 or (count > 1 and softer_db > 4) else None
        return Scene(audio[:size], names, focal, silent and not count)

    def noise(self, rng: np.random.Generator) -> Waveform:
        """Twelve seconds of steady noise."""
        noise = self._noises[rng.integers(len(self._noises))]
        return equalized(np.roll(noise, rng.integers(len(noise))), rng, float(rng.choice((6.0, 16.0))))

    def _sound(self, name: str, rng: np.random.Generator) -> Waveform:
        clips = self._clips.get(name, [])
        make = synthesis.SOUNDS.get(name)
        if clips and (make is None or rng.random() < 0.75):
            return clips[rng.integers(len(clips))]
        assert make is not None
        variants = VARIANTS.get(name, ())
        if variants and rng.random() < 0.4 * len(variants) ** 0.5:
            make = variants[rng.integers(len(variants))]
        return make(rng, RATE_HZ, SOUND_S)


def varied(sound: Waveform, rng: np.random.Generator) -> Waveform:
    """The same sound at another speed, and with another timbre."""
    faster = soxr.resample(sound, rng.uniform(0.85, 1.18), 1.0, quality="QQ").astype(np.float32)
    return equalized(faster, rng, 6.0)[:WINDOW]


def distant(sound: Waveform, rng: np.random.Generator) -> Waveform:
    """The same sound as it comes through a wood: with a reverberation of 0.1 to 0.8 s, its highs lost."""
    size = round(rng.uniform(0.1, 0.8) * RATE_HZ)
    tail = rng.standard_normal(size) * 10 ** (-3 * np.linspace(0, 1, size))
    tail[0] += rng.uniform(0.3, 2) * np.sqrt(np.square(tail).sum())
    total = len(sound) + size
    spectrum = np.fft.rfft(sound, total) * np.fft.rfft(tail, total)
    loss_db = rng.uniform(0, 12) * np.linspace(0, 1, len(spectrum))
    return np.fft.irfft(spectrum * 10 ** (-loss_db / 20), total).astype(np.float32)[:WINDOW]


def equalized(
    sound: Waveform, rng: np.random.Generator, depth_db: float, top_hz: float = RATE_HZ
) -> Waveform:
    """The same sound after a smooth random gain over a mel scale, and without what lies above `top_hz`."""
    spectrum = np.fft.rfft(sound)
    frequency_hz = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    mel = np.log1p(frequency_hz / 700) / np.log1p(RATE_HZ / 2 / 700)
    gain_db = np.interp(mel, np.linspace(0, 1, 6), rng.uniform(-depth_db, depth_db, 6))
    gain_db[frequency_hz > top_hz] = -rng.uniform(20, 50)
    return np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(sound)).astype(np.float32)


def clear_db(sound: Waveform, noise: Waveform) -> float:
    """How far a sound's loudest moments stand out of a noise, in decibels, in the band where they do most."""
    levels_db = []
    for one in (sound, noise):
        frames = sliding_window_view(one, 512)[::256] * np.hanning(512).astype(np.float32)
        power = np.square(np.abs(np.fft.rfft(frames)))
        levels_db.append(10 * np.log10(np.add.reduceat(power, _BAND_STARTS, axis=1)[:, :-1] + 1e-9))
    return float((np.quantile(levels_db[0], 0.97, axis=0) - np.median(levels_db[1], axis=0)).max())


def loudness(sound: Waveform) -> float:
    """Root mean square of the loud tenth of a sound's frames."""
    frames = sound[: len(sound) // 400 * 400].reshape(-1, 400)
    return float(np.sqrt(np.quantile(np.square(frames).mean(axis=1), 0.9))) + 1e-6


def _steady(rng: np.random.Generator) -> Waveform:
    """Noise of a quiet place: of a recorder's electronics, or of far traffic and wind, that lies much lower."""
    if rng.random() < 0.5:
        return synthesis.background(rng, RATE_HZ, 12.0)
    low = synthesis.coloured_noise(rng, 12 * RATE_HZ, rng.uniform(1.6, 3))
    low *= 10 ** (np.interp(np.linspace(0, 11, len(low)), np.arange(12), rng.uniform(-5, 5, 12)) / 20)
    hiss = synthesis.background(rng, RATE_HZ, 12.0)
    return (low / loudness(low) + hiss * 10 ** (-rng.uniform(0, 40) / 20) / loudness(hiss)).astype(np.float32)


def _trimmed(clip: Waveform) -> Waveform:
    """Without the digital silence at the end that fills ESC-10's clips up to five seconds."""
    heard = np.flatnonzero(np.abs(clip) > 1e-4)
    return clip[: heard[-1] + 1] if len(heard) else clip


# -- words -----------------------------------------------------------------------------------------------------


def questions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Task, prompt and answer of everything that is asked about a scene."""
    asked = [(DETECTION, DETECTION, ", ".join(scene.names) or "None")]
    for _ in range(4):
        # All that is heard, nothing of it, or some of it.
        offered = rng.choice((len(scene.names), 0, rng.integers(len(scene.names) + 1)), p=(0.4, 0.3, 0.3))
        options = _options(rng, set(rng.permutation(scene.names)[:offered]), avoid=scene.names)
        heard = [name for name in scene.names if name in options]
        asked.append(
            (DETECTION_OPTIONS, DETECTION_OPTIONS.format(", ".join(options)), ", ".join(heard) or "None")
        )
    if scene.focal or not scene.names:
        asked.append((FOCAL, FOCAL, scene.focal or "None"))
        for _ in range(4):
            answer = scene.focal if rng.random() < 0.6 else None
            options = _options(rng, {answer} if answer else set(), avoid=scene.names)
            asked.append((FOCAL_OPTIONS, FOCAL_OPTIONS.format(", ".join(options)), answer or "None"))
    asked.append((CAPTION, CAPTION, sentence(scene, 0)))
    asked.append((DESCRIPTION, DESCRIPTION, sentence(scene, 1)))
    return [(TASKS[kind], prompt, text) for kind, prompt, text in asked]


def sentence(scene: Scene, form: int) -> str:
    """A caption, in one of two forms."""
    if not scene.names:
        return "Silence." if scene.silent else "Background noise only."
    first, *others = (LABELS[name][form] for name in NAMES if name in scene.names)
    text = (" while " if form == 0 else " and ").join([first, " and ".join(others)]) if others else first
    return f"{text[0].upper()}{text[1:]}."


def _options(rng: np.random.Generator, wanted: set[str], avoid: Iterable[str]) -> list[str]:
    others = [name for name in NAMES if name not in wanted and name not in avoid]
    options = [*sorted(wanted), *rng.choice(others, rng.choice((2, 3, 3, 4, 6, 9)), replace=False)]
    if rng.random() < 0.4:
        options.append("None")
    return [str(name) for name in rng.permutation(options)]


# -- the model's shape -----------------------------------------------------------------------------------------

POCKET = NatureLMConfig(
    llama_path="llm",
    beats=BeatsConfig(
        input_patch_size=32,  # 31 x 4 patches of 320 ms: a fifth of the time of 16 x 16, and it learns faster
        embed_dim=256,
        encoder_layers=3,
        encoder_embed_dim=192,
        encoder_ffn_embed_dim=768,
        encoder_attention_heads=4,
        conv_pos=16,
        num_buckets=64,
        max_distance=128,
    ),
    qformer=QFormerConfig(
        hidden_size=192,
        num_attention_heads=6,
        intermediate_size=384,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    second_per_window=0.16,  # 8 patches: all four bands of two steps, 640 ms; 15 audio tokens
    second_stride=0.16,
    lora_rank=4,
    lora_alpha=4,
    lora_dropout=0.0,
    end_sym="<|end_of_text|>",
)
LLM_SIZES = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}


def write_shape(directory: Path, texts: Sequence[str]) -> None:
    """Sizes of the model, and a tokenizer for which the corpus's words are single tokens."""
    tokenizer = make_tokenizer(texts)
    llm = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **LLM_SIZES,
    )
    tokenizer.save_pretrained(directory / "llm")
    llm.save_pretrained(directory / "llm")
    (directory / "config.json").write_text(json.dumps(POCKET.to_dict(), indent=2) + "\n")


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the words in some texts, with the Llama-3 special tokens at its end."""
    specials = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|finetune_right_pad_id|>",
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*texts, "user", "assistant\n\n"], trainer)
    tokenizer.add_special_tokens(specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=specials[0],
        eos_token="<|eot_id|>",
        pad_token=specials[-1],
        additional_special_tokens=specials[1:4],
        clean_up_tokenization_spaces=False,
    )


# -- files -----------------------------------------------------------------------------------------------------


_COMPOSERS: list[Composer] = []  # this process's, begun with: too large to be sent with each task


def write_scene(out: Path, part: str, hard_share: float, seed: int, number: int) -> list[dict[str, str]]:
    """Write one scene of a manifest; returns its rows."""
    rng = np.random.default_rng((seed, number))
    scene = _COMPOSERS[0].scene(rng, hard=bool(rng.random() < hard_share))
    path = f"{part}/{number:05d}.wav"
    soundfile.write(out / path, scene.waveform, RATE_HZ, "PCM_16")
    asked = questions(scene, rng)
    if part == "stage1":
        asked = [(task, prompt, text) for task, prompt, text in asked if prompt == FOCAL]
    return [
        {"path": path, "prompt": prompt, "text": text, "task": task, "id": f"{part}-{number:05d}-{i}"}
        for i, (task, prompt, text) in enumerate(asked)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compose what the pocket model is trained on.")
    parser.add_argument("--esc10", type=Path, required=True, help="directory of esc10.csv and audio/")
    parser.add_argument("--out", type=Path, required=True, help="directory to write the corpus into")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--stage1", type=int, default=12_000, help="scenes of single clear sounds")
    parser.add_argument("--stage2", type=int, default=30_000, help="scenes of all kinds")
    parser.add_argument("--held-out", type=int, default=200, help="scenes to watch the training with")
    parser.add_argument("--noises", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    composer = Composer(read_esc10(args.esc10, args.folds), args.noises, seed=0)
    (args.out / "noise").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for number in range(args.noises):
        noise = composer.noise(rng)
        noise *= np.float32(0.7 / np.abs(noise).max())
        soundfile.write(args.out / "noise" / f"{number:03d}.wav", noise, RATE_HZ, "PCM_16")
    texts: list[str] = []
    parts = (("stage1", args.stage1, 0.0), ("stage2", args.stage2, 0.8), ("held_out", args.held_out, 0.8))
    with Pool(args.processes, _COMPOSERS.append, (composer,)) as pool:
        for seed, (part, count, hard_share) in enumerate(parts, start=2):
            (args.out / part).mkdir(exist_ok=True)
            write = partial(write_scene, args.out, part, hard_share, seed)
            rows = [row for scene in pool.imap(write, range(count), chunksize=50) for row in scene]
            write_manifest(args.out / f"{part}.jsonl", rows)
            texts += [text for row in rows for text in (f"<Audio></Audio> {row['prompt']}", row["text"])]
            print(f"{part}: {count} scenes, {len(rows)} questions", flush=True)
    write_shape(args.out / "shape", [*texts, *NAMES])


if __name__ == "__main__":
    main()
