"""A model of a few thousand weights, a few seconds of sound, and runs over them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from rich.console import Console

from naturelm.models import presets
from naturelm.synthetic.sounds import SOUNDS
from naturelm.training.display import TrainProgress
from naturelm.training.run import run_training
from naturelm.training.settings import TrainConfig, parse
from naturelm.training.store import RunStore

WINDOW_S = 2.0
QUESTION = "What are the common names for the species in the audio, if any?"
POCKET = Path(presets.resolve("pocket").path)


def make_shape(directory: Path, **changes: Any) -> Path:
    """A tiny model's shape, without weights: `model.new`."""
    values = {
        "llama_path": "llm",
        "window_s": WINDOW_S,
        "beats_cfg": {
            "input_patch_size": 32,
            "embed_dim": 16,
            "encoder_layers": 2,
            "encoder_embed_dim": 32,
            "encoder_ffn_embed_dim": 64,
            "encoder_attention_heads": 2,
            "conv_pos": 8,
            "conv_pos_groups": 4,
            "num_buckets": 16,
            "max_distance": 32,
        },
        "qformer": {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "second_per_window": 0.16,
        "second_stride": 0.16,
        "lora_rank": 2,
        "lora_alpha": 2,
        "lora_dropout": 0.0,
        **changes,
    }
    llm = json.loads((POCKET / "llm" / "config.json").read_text())
    llm |= {
        "hidden_size": 32,
        "head_dim": 16,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "dtype": "float32",
    }
    (directory / "llm").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(values))
    (directory / "llm" / "config.json").write_text(json.dumps(llm))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / "llm" / name).write_bytes((POCKET / "llm" / name).read_bytes())
    return directory


def make_manifest(directory: Path, count: int = 12) -> Path:
    """Short sounds made by code, each with its name."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = sorted(SOUNDS)
    rows = []
    for number in range(count):
        name = names[number % len(names)]
        sound = SOUNDS[name](rng, 16_000, WINDOW_S).astype(np.float32)
        soundfile.write(directory / f"{number}.wav", 0.3 * sound, 16_000)
        rows.append(
            {
                "path": f"{number}.wav",
                "prompt": QUESTION,
                "text": name,
                "task": "common-detection",
                "id": f"sound-{number}",
            }
        )
    manifest = directory / "train.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def settings(shape: Path, manifest: Path, storage: object, **sections: Any) -> dict[str, Any]:
    """A run of a few steps in this process, all parts training, in float32; `sections` change single settings."""
    values: dict[str, Any] = {
        "model": {"new": str(shape), "trainable": ["beats", "qformer", "projection", "lora", "llm"]},
        "data": {"manifests": [str(manifest)], "window_s": WINDOW_S},
        "optimisation": {"steps": 6, "batch": 4, "peak_lr": 3e-3, "end_lr": 1e-3},
        "precision": "float32",
        "run": {"storage": str(storage), "ray": False, "loaders": 0, "log_every": 1, "checkpoint_every": 2},
    }
    for name, change in sections.items():
        values[name] = {**values[name], **change} if isinstance(values.get(name), dict) else change
    return values


def config(shape: Path, manifest: Path, storage: object, **sections: Any) -> TrainConfig:
    """As `settings`, checked."""
    return parse(settings(shape, manifest, storage, **sections), "test.yaml")


def write_config(path: Path, values: dict[str, Any]) -> Path:
    """A configuration file."""
    path.write_text(yaml.safe_dump(values))
    return path


def run(values: TrainConfig, resume: bool = False) -> int:
    """Train, silently."""
    return run_training(values, resume, TrainProgress(Console(file=io.StringIO())))


def losses(storage: object) -> dict[int, float]:
    """Step -> loss, as the run's metrics have them."""
    return {row["step"]: row["loss"] for row in RunStore(str(storage)).metrics() if "loss" in row}
