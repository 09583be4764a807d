"""Language models in fewer bits: merged and quantised tensor by tensor, in memory or into a directory.

The bfloat16 weights are never in memory together: one matrix after the other is read, its adapters are added in
float32, and only its quantised form stays. A directory that `write_quantized` wrote holds the audio branch in
``model.safetensors``, and below ``llm`` what remains in bfloat16 and the quantised matrices, each with its scales under
``<name>_scales``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from naturelm.errors import NaturelmError, first_line
from naturelm.models.checkpoint import NameTable
from naturelm.models.config import LanguageModelConfig
from naturelm.models.parts.llama import new_llama, quiet
from naturelm.models.parts.quantized import products
from naturelm.models.parts.weights import WEIGHT_KINDS, Stored, WeightKind

ENTRY = "quantized"
"""Of ``config.json``: which kind, which share of the adapters, and of which weights."""
_SHARD_BYTES = 1 << 30
_SCALES = "_scales"
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Quantized:
    """What the ``config.json`` of a quantised directory says of it.

    Attributes
    ----------
    weights
        Name of the kind, of `WEIGHT_KINDS`.
    merging_alpha
        Share of the adapters that was merged.
    source
        Revision of the weights that were quantised.
    """

    weights: str
    merging_alpha: float
    source: str = ""

    @classmethod
    def of(cls, config: LanguageModelConfig, where: str) -> Quantized | None:
        """The entry of a model's settings; None where its weights are not quantised.

        Raises
        ------
        NaturelmError
            It names no kind that this version has.
        """
        values = config.other.get(ENTRY)
        if values is None:
            return None
        if not isinstance(values, dict) or values.get("weights") not in WEIGHT_KINDS:
            raise NaturelmError(
                f"{where}: {ENTRY} is {values!r}, which this version cannot read; quantise the model again"
            )
        return cls(str(values["weights"]), float(values.get("merging_alpha", 1.0)), str(values.get("source")))


class _Files:
    """Tensors of a directory's safetensors files, read one at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, Path] = {}
        try:
            for path in sorted(directory.glob("*.safetensors")):
                with safe_open(path, "pt") as file:
                    self._files |= dict.fromkeys(file.keys(), path)
        except (OSError, SafetensorError) as error:
            raise NaturelmError(f"{path}: cannot be read ({first_line(error)}); fetch it again") from error

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._files:
            raise NaturelmError(f"{self._directory}: has no tensor {name}; fetch the model again")
        with safe_open(self._files[name], "pt") as file:
            return file.get_tensor(name)


class MergedTensors:
    """Tensors of a language model, its adapters merged, quantised as they are read.

    Parameters
    ----------
    config
        The checkpoint's settings.
    names
        Its family's names.
    tensors
        What the checkpoint holds, by published name.
    llm_directory
        The base LLM's, where the checkpoint does not hold it.
    share
        Of the adapters.
    kind
        Of the matrices of the layers.
    """

    def __init__(
        self,
        config: LanguageModelConfig,
        names: NameTable,
        tensors: Mapping[str, Tensor],
        llm_directory: Path,
        share: float,
        kind: WeightKind,
    ) -> None:
        self._names, self._tensors, self._kind = names, tensors, kind
        self._scale = share * config.lora_alpha / config.lora_rank
        self._llm = _Files(llm_directory)

    def plain(self, name: str) -> Tensor:
        """A tensor that is not quantised."""
        found = self._trained(name)
        if found is not None:
            return found
        # Small models may read and write words by one matrix.
        return self._llm[_EMBEDDING if name == _HEAD and name not in self._llm else name]

    def stored(self, layer: str) -> Stored:
        """A matrix by its layer's name, with its adapters."""
        weight = self._trained(f"{layer}.base_layer.weight")
        if weight is None:
            weight = self._trained(f"{layer}.weight")
        weight = (self._llm[f"{layer}.weight"] if weight is None else weight).float()
        first, second = (self._trained(f"{layer}.lora_{part}.default.weight") for part in "AB")
        if first is not None and second is not None:
            weight = weight + self._scale * (second.float() @ first.float())
        return self._kind.store(weight)

    def _trained(self, name: str) -> Tensor | None:
        try:
            return self._tensors.get(self._names.published(f"llama.base_model.model.{name}"))
        except KeyError:
            return None


class StoredTensors:
    """Tensors of a directory that `quantize` wrote; methods as of `MergedTensors`."""

    def __init__(self, directory: Path) -> None:
        self._files = _Files(directory)

    def plain(self, name: str) -> Tensor:
        return self._files[name]

    def stored(self, layer: str) -> Stored:
        return Stored(self._files[f"{layer}.weight"], self._files[f"{layer}.weight{_SCALES}"])


def write_quantized(
    out: Path,
    config: LanguageModelConfig,
    audio: Mapping[str, Tensor],
    llm_config: LlamaConfig,
    tokenizer: Any,
    read: MergedTensors,
    quantized: Quantized,
) -> None:
    """Write a quantised model into a new directory, all of it or nothing.

    Parameters
    ----------
    out
        The directory, which is missing or empty.
    config
        The model's settings.
    audio
        Tensors of the audio branch, by published name.
    llm_config, tokenizer
        The base LLM's.
    read
        Its tensors.
    quantized
        What is written into ``config.json`` of the kind.

    Raises
    ------
    NaturelmError
        The directory is not empty, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NaturelmError(f"{out}: is not empty; give a new directory with --out")
    llama = new_llama(llm_config, torch.bfloat16, "meta")
    matrices = {f"{layer}.{name}.weight" for layer, names in products(llama) for name in names}
    needed = int(
        sum(parameter.numel() * 2 for parameter in llama.parameters())
        - sum(parameter.numel() for name, parameter in llama.named_parameters() if name in matrices)
        + sum(tensor.nbytes for tensor in audio.values())
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < needed:
            raise NaturelmError(
                f"{out}: the quantised model needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free; "
                "give --out on another one"
            )
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
            whole = Path(place) / out.name
            (whole / "llm").mkdir(parents=True)
            with quiet():
                llm_config.save_pretrained(whole / "llm")
                tokenizer.save_pretrained(whole / "llm")
            shards = _Shards(whole / "llm")
            for layer, names in products(llama):
                for name in names:
                    stored = read.stored(f"{layer}.{name}")
                    assert stored.scales is not None
                    shards.add(f"{layer}.{name}.weight", stored.values)
                    shards.add(f"{layer}.{name}.weight{_SCALES}", stored.scales)
            for name, _ in llama.named_parameters(remove_duplicate=False):
                if name not in matrices:
                    shards.add(name, read.plain(name).to(torch.bfloat16))
            shards.finish()
            save_file(dict(audio), whole / "model.safetensors", metadata={"format": "pt"})
            values = {**config.to_dict(), "llama_path": "llm", ENTRY: vars(quantized)}
            (whole / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            readable = (whole / "config.json").stat().st_mode & 0o777
            for path in whole.rglob("*.safetensors"):
                path.chmod(readable)  # safetensors lets only the owner read its files
            if out.exists():
                out.rmdir()
            whole.rename(out)
    except (OSError, SafetensorError) as error:
        raise NaturelmError(
            f"{out}: cannot be written ({first_line(error)}); nothing of it is kept: give --out elsewhere"
        ) from error


class _Shards:
    """Writes tensors into files of bounded size, and the index of which is where."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: dict[str, Tensor] = {}
        self._written: list[tuple[Path, list[str]]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        self._waiting[name] = tensor.contiguous()
        if sum(waiting.nbytes for waiting in self._waiting.values()) >= _SHARD_BYTES:
            self._write()

    def finish(self) -> None:
        if self._waiting:
            self._write()
        where: dict[str, str] = {}
        for number, (path, names) in enumerate(self._written, start=1):
            name = f"model-{number:05d}-of-{len(self._written):05d}.safetensors"
            path.rename(self._directory / name)
            where |= dict.fromkeys(names, name)
        index = {"metadata": {}, "weight_map": where}
        (self._directory / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=2) + "\n", encoding="utf-8"
        )

    def _write(self) -> None:
        path = self._directory / f"part-{len(self._written)}.safetensors"
        # Tensors that share memory, such as an embedding that is also the head, are refused by safetensors.
        own = {name: tensor.clone() if name == _HEAD else tensor for name, tensor in self._waiting.items()}
        save_file(own, path, metadata={"format": "pt"})
        self._written.append((path, list(own)))
        self._waiting = {}
