"""Train the first bundled `pocket` model: one plain script for two CPU cores and an hour.

    python examples/train_first_pocket.py --esc10 ESC10_DIR --out POCKET_DIR

ESC10_DIR holds `esc10.csv` (filename, fold, category) and `audio/`. Folds 1 to 4 are trained on; fold 5 is heard only
by `examples/evaluate_first_pocket.py`. Ten-second scenes are composed on the fly from these clips and from
`naturelm.synthesis`, directly as mel power: powers of different sounds add up, so a scene costs an addition instead of
a decode and a Fourier transform. The audio encoder dominates the cost, so two questions are asked about each scene.

Axes: T frames · M mel bins · B scenes of a batch
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, PreTrainedTokenizerFast

from naturelm import synthesis
from naturelm.models.beats import BeatsConfig
from naturelm.models.fbank import BEATS_MEAN, BEATS_STD, fbank
from naturelm.models.naturelm import NatureLM
from naturelm.models.naturelm_config import NatureLMConfig
from naturelm.models.qformer import QFormerConfig

Power = NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000
FRAMES, MEL_BINS = 998, 128
FLOOR = np.finfo(np.float32).eps  # what fbank() clamps power to

# Name -> (clause, the same in other words). The order is that of answers: who calls first, what surrounds it last.
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


# -- sounds ----------------------------------------------------------------------------------------------------


def mel_power(waveform: NDArray[np.float32]) -> Power:
    """Mel power [T, M] of sound at 16 kHz."""
    return fbank(torch.from_numpy(waveform)[None])[0].exp().numpy()


def read_esc10(directory: Path, folds: set[int]) -> list[tuple[str, NDArray[np.float32]]]:
    """Names and sound at 16 kHz of the clips in some folds."""
    with open(directory / "esc10.csv", newline="") as table:
        rows = [row for row in csv.DictReader(table) if int(row["fold"]) in folds]
    clips = []
    for row in rows:
        audio, rate_hz = soundfile.read(
            directory / "audio" / row["filename"], dtype="float32", always_2d=True
        )
        audio = soxr.resample(audio.mean(axis=1), rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
        clips.append((row["category"].replace("_", " ").capitalize(), audio))
    return clips


@dataclass(frozen=True)
class Bank:
    """What scenes are made of: mel power of five-second sounds by name, and of ten-second backgrounds."""

    sounds: dict[str, list[Power]]
    backgrounds: list[Power]
    real: frozenset[str]

    @classmethod
    def build(cls, esc10: Path, synthetic_per_name: int = 120, backgrounds: int = 200, seed: int = 0) -> Bank:
        rng = np.random.default_rng(seed)
        sounds: dict[str, list[Power]] = {name: [] for name in NAMES}
        for name, audio in read_esc10(esc10, {1, 2, 3, 4}):
            sounds[name].append(mel_power(audio))
        real = frozenset(name for name, clips in sounds.items() if clips)
        for name, sound in synthesis.SOUNDS.items():
            count = synthetic_per_name // 4 if name in real else synthetic_per_name
            sounds[name] += [mel_power(sound(rng, SAMPLE_RATE_HZ, 5.0)) for _ in range(count)]
        noises = [mel_power(synthesis.background(rng, SAMPLE_RATE_HZ, 10.0)) for _ in range(backgrounds)]
        return cls(sounds, noises, real)


@dataclass(frozen=True)
class Scene:
    """Ten seconds as the encoder takes them [T, M], the names heard, and the loudest, where one clearly is."""

    features: NDArray[np.float32]
    names: tuple[str, ...]
    focal: str | None
    silent: bool


class Scenes(torch.utils.data.IterableDataset):
    """A stream of scenes: no, one or two sounds at random times and levels over random noise.

    It begins with single, clear, unaltered sounds and grows as hard as it gets over the first `ramp` scenes: started
    on the hard ones, the encoder learns nothing for thousands of scenes.
    """

    def __init__(self, bank: Bank, seed: int, ramp: int) -> None:
        self.bank, self.rng, self.ramp, self.made = bank, np.random.default_rng(seed), ramp, 0
        weights = np.array([1.0 if name in bank.real else 0.7 for name in NAMES])
        self.weights = weights / weights.sum()

    def __iter__(self) -> Iterator[Scene]:
        while True:
            yield self.scene(hardness=min(1.0, self.made / self.ramp))
            self.made += 1

    def scene(self, hardness: float) -> Scene:
        rng, hard = self.rng, self.rng.random() < hardness
        count = rng.choice(3, p=(0.15, 0.5, 0.35) if hard else (0.1, 0.9, 0))
        chosen = rng.choice(len(NAMES), count, replace=False, p=self.weights)
        level_db = rng.uniform(55, 105) if hard else rng.uniform(75, 100)
        softer_db = rng.uniform(0, 12) * (rng.random() < 0.6)
        # A recording's last window may be short; what is missing is silence.
        end = int(rng.integers(300, FRAMES)) if hard and rng.random() < 0.15 else FRAMES
        power = np.zeros((FRAMES, MEL_BINS), np.float32)
        for rank, index in enumerate(chosen):
            sounds = self.bank.sounds[NAMES[index]]
            sound = sounds[rng.integers(len(sounds))]
            sound = self.varied(sound) if hard and rng.random() < 0.8 else sound[:FRAMES]
            loud = 10 * np.log10(np.quantile(sound.mean(axis=1), 0.9) + 1e-9)
            sound = sound * np.float32(10 ** ((level_db - softer_db * rank - loud) / 10))
            # At the start: where a shorter recording lies in a padded window.
            at_start = count == 1 and rng.random() < 0.4
            start = 0 if at_start else int(rng.integers(max(end - len(sound), 0) + 1))
            power[start : start + len(sound)] += sound[: FRAMES - start]
        noise_db = level_db - rng.uniform(4 if hard else 25, 45) if count else rng.uniform(10, 95)
        silent = rng.random() < (0.25 if count else 0.1)
        if not silent:
            noise = self.bank.backgrounds[rng.integers(len(self.bank.backgrounds))]
            noise = np.roll(noise, rng.integers(FRAMES), axis=0) * self.equalizer(8)
            power += noise * np.float32(10 ** (noise_db / 10) / noise.mean())
        if rng.random() < 0.25:  # a recording of a lower sample rate has nothing above
            power[:, rng.integers(80, 125) :] *= np.float32(10 ** -rng.uniform(2, 5))
        power[end:] = 0
        features = (np.log(np.maximum(power, FLOOR)) - BEATS_MEAN) / (2 * BEATS_STD)
        if hard and rng.random() < 0.5:
            self.mask(features)
        names = tuple(NAMES[index] for index in sorted(chosen))
        focal = NAMES[chosen[0]] if count == 1 or (count == 2 and softer_db > 4) else None
        return Scene(features.astype(np.float32), names, focal, bool(silent and count == 0))

    def varied(self, power: Power) -> Power:
        """The same sound at another tempo, pitch and timbre."""
        rng = self.rng
        frames = round(len(power) * rng.uniform(0.85, 1.18))
        bins = np.clip(np.arange(MEL_BINS) + rng.integers(-5, 6), 0, MEL_BINS - 1)
        rows = np.linspace(0, len(power) - 1, frames).round().astype(int)
        return (power[rows][:, bins] * self.equalizer(6))[:FRAMES]

    def equalizer(self, depth_db: float) -> NDArray[np.float32]:
        """A smooth random gain over the mel bins, in power."""
        gain_db = np.interp(
            np.arange(MEL_BINS), np.linspace(0, MEL_BINS - 1, 6), self.rng.uniform(-depth_db, depth_db, 6)
        )
        return (10 ** (gain_db / 10)).astype(np.float32)

    def mask(self, features: NDArray) -> None:
        """SpecAugment (arXiv 1904.08779): two stripes of time and two of frequency become the mean."""
        for longest, axis in ((60, 0), (60, 0), (16, 1), (16, 1)):
            width = self.rng.integers(1, longest)
            start = self.rng.integers(features.shape[axis] - width)
            features.swapaxes(0, axis)[start : start + width] = features.mean()


# -- words -----------------------------------------------------------------------------------------------------


def questions(scene: Scene, rng: np.random.Generator, with_options: bool) -> list[tuple[str, str]]:
    """Two different (prompt, answer) pairs about a scene, mostly the two that an archive is asked.

    Questions with options are long, so a batch asks nothing else or none of them: little is spent on padding.
    """
    if with_options:
        kinds, weights = [DETECTION_OPTIONS, FOCAL_OPTIONS], np.array([1.0, 1.0])
    else:
        kinds, weights = [DETECTION, CAPTION, DESCRIPTION, FOCAL], np.array([3.0, 2.0, 0.6, 1.5])
    if scene.names and not scene.focal:
        weights[-1] = 0
    chosen = rng.choice(
        len(kinds), min(2, int(np.count_nonzero(weights))), replace=False, p=weights / weights.sum()
    )
    pairs = [question(kinds[index], scene, rng) for index in chosen]
    return pairs if len(pairs) == 2 else [pairs[0], question(DETECTION_OPTIONS, scene, rng)]


def question(kind: str, scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    if kind == DETECTION:
        return kind, ", ".join(scene.names) or "None"
    if kind == FOCAL:
        return kind, scene.focal or "None"
    if kind == FOCAL_OPTIONS:
        offered = scene.focal if rng.random() < 0.75 else None
        options = _options(rng, {offered} if offered else set(), avoid=scene.names)
        return kind.format(", ".join(options)), offered or "None"
    if kind == DETECTION_OPTIONS:
        options = _options(rng, set(scene.names) if rng.random() < 0.8 else set(), avoid=())
        heard = [name for name in scene.names if name in options]
        return kind.format(", ".join(options)), ", ".join(heard) or "None"
    if not scene.names:
        return kind, "Silence." if scene.silent else "Background noise only."
    form, joint = (0, " while ") if kind == CAPTION else (1, " and ")
    text = joint.join(LABELS[name][form] for name in scene.names)
    return kind, text[0].upper() + text[1:] + "."


def _options(rng: np.random.Generator, wanted: set[str], avoid: tuple[str, ...]) -> list[str]:
    others = [name for name in NAMES if name not in wanted and name not in avoid]
    options = [*sorted(wanted), *rng.choice(others, rng.choice((2, 3, 4, 6, 9)), replace=False)]
    if rng.random() < 0.4:
        options.append("None")
    return [str(name) for name in rng.permutation(options)]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of the words that prompts and answers use, with the Llama-3 special tokens at its end."""
    clauses = [form for forms in LABELS.values() for form in forms]
    texts = [
        f"<Audio></Audio> {prompt}"
        for prompt in (DETECTION, FOCAL, CAPTION, DESCRIPTION, FOCAL_OPTIONS, DETECTION_OPTIONS)
    ]
    texts += [
        ", ".join(NAMES),
        *NAMES,
        "None, None",
        "Background noise only.",
        "Silence.",
        "user",
        "assistant\n\n",
    ]
    texts += [
        f"{a[0].upper()}{a[1:]}{joint}{b}."
        for a, b in itertools.pairwise(clauses)
        for joint in (" and ", " while ")
    ]
    specials = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    specials.append("<|finetune_right_pad_id|>")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=640, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=specials[0],
        eos_token="<|eot_id|>",
        pad_token=specials[-1],
        additional_special_tokens=specials[1:4],
        clean_up_tokenization_spaces=False,
    )


# -- training --------------------------------------------------------------------------------------------------


def make_model(seed: int, start: Path | None = None) -> NatureLM:
    """A model with random weights, or that of a checkpoint, all of it to be trained."""
    torch.manual_seed(seed)
    model = NatureLM.from_pretrained(start, device="cpu", dtype=torch.float32) if start else new_model()
    model.language_model.set_attn_implementation("eager")  # its gradient is cheaper on a CPU
    model.requires_grad_(True)  # the adapters and what they adapt: there is no pretrained base to keep
    return model


def new_model() -> NatureLM:
    tokenizer = make_tokenizer()
    llm = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **LLM_SIZES,
    )
    model = NatureLM.from_config(POCKET, llm, tokenizer)
    with torch.no_grad():
        model.beats.patch_embedding.weight.copy_(cosine_filters(model.config.beats.input_patch_size))
    return model


def cosine_filters(size: int, kept: int = 16) -> Tensor:
    """Two-dimensional cosines [kept * kept, 1, size, size]: patches start out described as an image codec does."""
    place, order = torch.arange(size) + 0.5, torch.arange(kept)
    basis = torch.cos(torch.pi * order[:, None] * place / size) * (2 / size) ** 0.5
    filters = torch.einsum("ui,vj->uvij", basis, basis).reshape(kept * kept, 1, size, size)
    # The mean, several times larger than all else, would drown it in the norm that follows.
    filters[0] *= 0.05
    return filters


def answer_loss(model: NatureLM, audio_BAD: Tensor, asked: list[list[tuple[str, str]]]) -> Tensor:
    """`NatureLM.loss`, cross-entropy of answers and end tokens, with the same number of questions for each scene."""
    prompts = [prompt for pairs in asked for prompt, _ in pairs]
    end = model.tokenizer.convert_tokens_to_ids(model.config.end_sym)
    encoded = model.tokenizer(
        [text for pairs in asked for _, text in pairs], add_special_tokens=False
    ).input_ids
    answers = [[*ids, end] for ids in encoded]
    embeds, mask = model.embed_prompts(audio_BAD.repeat_interleave(len(asked[0]), dim=0), prompts, answers)
    longest = max(map(len, answers))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model.llama(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1
    ).logits[:, :-1]
    targets = torch.tensor([[-100] * (longest - len(ids)) + ids for ids in answers])
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    model = make_model(args.seed, args.start)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {model.audio_tokens} audio tokens",
        flush=True,
    )
    bank = Bank.build(args.esc10)
    scenes = Scenes(bank, args.seed + 1, ramp=1 if args.start else args.steps * args.batch // 2)
    # One process composes, one trains.
    loader = torch.utils.data.DataLoader(
        scenes, args.batch, num_workers=1, prefetch_factor=4, collate_fn=list
    )
    stream = iter(loader)
    rng = np.random.default_rng(args.seed + 2)
    # Two layers that are thrown away: naming what is there straight from patches and from audio tokens teaches the
    # encoder faster than words alone. They teach alone at first; the last part is the model's own loss only.
    heads = nn.ModuleList(
        nn.Linear(2 * width, len(NAMES) + 1)
        for width in (model.config.beats.encoder_embed_dim, model.audio_projection.out_features)
    )
    words_from, words_only = (0, 0) if args.start else (args.steps // 6, args.steps * 5 // 6)
    parameters = [*model.parameters(), *heads.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.5 + 0.5 * float(np.cos(np.pi * step / args.steps)))
    )
    model.train()
    started, means = time.monotonic(), np.full(3, np.nan)
    for step in range(1, args.steps + 1):
        batch: list[Scene] = next(stream)
        features = torch.from_numpy(np.stack([scene.features for scene in batch]))
        present = torch.tensor(
            [[*(name in scene.names for name in NAMES), not scene.names] for scene in batch]
        ).float()
        present = present / present.sum(dim=1, keepdim=True)
        with torch.autocast("cpu", torch.bfloat16):
            patches = model.audio_norm(model.beats.encode_features(features))
            audio = model.audio_projection(model.qformer(patches))
            losses = {}
            if step > words_from:
                asked = [questions(scene, rng, with_options=step % 3 == 0) for scene in batch]
                losses["words"] = answer_loss(model, audio, asked)
            if step <= words_only:
                for name, head, x in zip(("patches", "tokens"), heads, (patches, audio), strict=True):
                    scores = head(torch.cat([x.mean(dim=1), x.amax(dim=1)], dim=1)).float()
                    losses[name] = F.cross_entropy(scores, present)
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values(), torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        schedule.step()
        now = np.array(
            [losses[name].item() if name in losses else np.nan for name in ("words", "patches", "tokens")]
        )
        means = np.where(np.isnan(means) | np.isnan(now), now, 0.98 * means + 0.02 * now)
        if step % 25 == 0:
            words, by_patches, by_tokens = means
            print(
                f"step {step}  words {words:.3f}  presence {by_patches:.3f} {by_tokens:.3f}  "
                f"{time.monotonic() - started:.0f} s, {time.process_time():.0f} s of CPU",
                flush=True,
            )
        if (step % args.save_every == 0 and step > words_from) or step == args.steps:
            save(model, args.out)


def save(model: NatureLM, directory: Path) -> None:
    """Write the weights in half precision, base language model and tokenizer included."""
    copy.deepcopy(model).to_dtype(torch.float16).save_pretrained(directory, with_llm=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the first pocket model.")
    parser.add_argument("--esc10", type=Path, required=True, help="directory of esc10.csv and audio/")
    parser.add_argument("--out", type=Path, required=True, help="directory to write the checkpoint into")
    parser.add_argument(
        "--start", type=Path, help="go on from this checkpoint: hard scenes, the model's loss alone"
    )
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
