"""What a model takes in memory, and how its weights fit a machine; imports no torch, and loads nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naturelm.errors import NaturelmError
from naturelm.models.presets import PRESETS, ModelSource, own_llm

# Below, float32 costs next to nothing: nothing is gained by rounding.
_SMALL_BYTES = 2e9
# As measured on CPUs (docs/benchmarks/2026-11-27-weights.md): libraries, and activations as a share of the weights.
_PROCESS_BYTES = 0.9e9
_ACTIVATIONS_SHARE = 0.06
_MATRICES = ("_proj.weight", "_proj.base_layer.weight")
# How the names of a language model's tensors begin, in its own directory and in checkpoints.
_LANGUAGE_MODELS = ("model.", "llama_model.", "base_model.")
_EIGHT_BITS = {"I8": "int8", "F8_E4M3": "fp8"}


@dataclass(frozen=True)
class Sizes:
    """How many numbers a model has.

    Attributes
    ----------
    matrices
        In the matrices of the language model's layers, which may be stored in 8 bits.
    others
        In everything else.
    stored
        How the matrices are stored where that is fixed: ``int8`` or ``fp8``; else None.
    """

    matrices: int
    others: int
    stored: str | None = None

    def bytes_of(self, weights: str) -> float:
        """What the process takes that runs it: ``float32``, ``bf16``, ``fp8`` or ``int8``."""
        wide = 4 if weights == "float32" else 2
        narrow = 1 if weights in ("int8", "fp8") else wide
        activations = _ACTIVATIONS_SHARE * 2 * (self.matrices + self.others)
        return narrow * self.matrices + wide * self.others + activations + _PROCESS_BYTES


# The language model's matrices; its embeddings and norms, adapters, and the audio branch.
_KNOWN = {
    # Llama 3.1 8B, its embedding with a token more.
    PRESETS["naturelm-8b"].path: Sizes(6_979_321_856, 1_050_943_488 + 266_240 + 112_817_023),
    # Vicuna 7B and 13B.
    PRESETS["salmonn-7b"].path: Sizes(6_476_005_376, 262_410_240 + 4_194_304 + 753_088_368),
    PRESETS["salmonn-13b"].path: Sizes(12_687_769_600, 328_094_720 + 6_553_600 + 753_875_824),
    PRESETS["ltu-7b"].path: Sizes(6_476_005_376, 262_410_240 + 4_194_304 + 88_797_184),
}


@dataclass(frozen=True)
class Room:
    """What a machine offers a model.

    Attributes
    ----------
    bytes
        Memory that is free, of the GPU where there is one; None where the system does not report it.
    is_gpu
        Whether it is a GPU's.
    has_bfloat16
        Whether the device multiplies bfloat16 itself.
    """

    bytes: float | None
    is_gpu: bool
    has_bfloat16: bool


def sizes_of(source: ModelSource, llm: str | Path | None = None) -> Sizes | None:
    """How large a model is, by the headers of its files; None where they are not on this machine."""
    if source.path in _KNOWN:
        return _KNOWN[source.path]
    directory = Path(source.path)
    if not source.is_local or not directory.is_dir():
        return None
    places = [directory, Path(llm) if llm is not None else own_llm(directory / "config.json")]
    if not places[1].is_dir():
        return None
    matrices = others = 0
    stored = None
    for name, dtype, numbers in _tensors(places):
        if name.endswith(_MATRICES) and name.startswith(_LANGUAGE_MODELS) and ".layers." in name:
            matrices += numbers
            stored = _EIGHT_BITS.get(dtype, stored)
        else:
            others += numbers
    return Sizes(matrices, others, stored) if matrices else None


def choose_weights(
    source: ModelSource, weights: str, dtype: str, room: Room, llm: str | Path | None = None
) -> str:
    """What ``auto`` means for a model on a machine, or the given weights if they fit.

    Parameters
    ----------
    source, llm
        The model.
    weights, dtype
        As in the settings of an archive.
    room
        What the machine offers.

    Returns
    -------
    str
        One of ``auto`` (as in the checkpoint, in the device's usual type), ``bf16``, ``int8`` or ``fp8``.

    Raises
    ------
    NaturelmError
        There is too little memory; the sentence has the choices that fit.
    """
    sizes = sizes_of(source, llm)
    if sizes is None or room.bytes is None:
        return weights
    usual = "bf16" if room.is_gpu or dtype == "bfloat16" else "float32"
    if weights == "auto" and sizes.stored is None and sizes.bytes_of("float32") > _SMALL_BYTES:
        wishes = ["bf16" if room.has_bfloat16 and dtype == "auto" else usual, "int8"]
        for wish in wishes:
            if sizes.bytes_of(wish) <= room.bytes:
                return "auto" if wish == usual else wish
    actual = (sizes.stored or usual) if weights == "auto" else weights
    needed = sizes.bytes_of(actual)
    if needed > room.bytes:
        others = () if sizes.stored else ("bf16", "int8")
        fitting = [
            f"--weights {other} ({sizes.bytes_of(other) / 1e9:.1f} GB)"
            for other in others
            if other != weights and sizes.bytes_of(other) <= room.bytes
        ]
        least = min(sizes.bytes_of(other) for other in (*others, actual))
        remedy = (
            f"give {' or '.join(fitting)}"
            if fitting
            else f"it needs at least {least / 1e9:.1f} GB: end other programs or use another machine"
        )
        raise NaturelmError(
            f"{source.name} needs about {needed / 1e9:.1f} GB of {'GPU ' if room.is_gpu else ''}memory with weights "
            f"{actual}, and {room.bytes / 1e9:.1f} GB are free; {remedy}"
        )
    return weights


def _tensors(directories: list[Path]) -> Iterator[tuple[str, str, int]]:
    """Name, type and number of elements of each tensor in the safetensors files of directories."""
    for path in dict.fromkeys(path for place in directories for path in sorted(place.glob("*.safetensors"))):
        for name, entry in _header(path).items():
            if name == "__metadata__":
                continue
            numbers = 1
            for length in entry["shape"]:
                numbers *= length
            yield name, entry["dtype"], numbers


def _header(path: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors; nothing where it is damaged, which is reported when it is loaded."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                return {}
            content = json.loads(file.read(length))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
