"""Checkpoints: reading tensors, and loading them under their published names so that nothing is left unsaid.

A published release holds the trained tensors (audio branch, LoRA, perhaps a token embedding) and not the base LLM; a
training checkpoint may hold the base LLM too. Each family lists both in a `NameTable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naturelm.errors import NaturelmError
from naturelm.models.parts.finite import check_finite

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_LISTED = 5


class NameTable:
    """Names of a family's tensors, as published and in its module.

    Parameters
    ----------
    released
        Published name -> name in the module, of what a release holds; ``{}`` stands for a layer's number, None for a
        tensor that is not used. Where several published names share one tensor, the first number is written.
    base_llm
        The same for the base LLM, as training checkpoints hold it beside the rest.
    """

    def __init__(self, released: Mapping[str, str | None], base_llm: Mapping[str, str]) -> None:
        self._ours: dict[str, str | None] = {**base_llm, **released}
        self._base_llm = base_llm.keys() - released.keys()
        # Released names come last, so that a token embedding is written under its released name.
        self._published = {ours: published for published, ours in self._ours.items() if ours}

    def ours(self, published: str) -> str | None:
        """The module's name of a published tensor, or None for one that is not used.

        Raises
        ------
        KeyError
            If the family has no such tensor.
        """
        if published in self._ours:
            return self._ours[published]
        ours = self._ours[_NUMBER.sub("{}", published)]
        return ours if ours is None else ours.format(*_NUMBER.findall(published))

    def knows(self, published: str) -> bool:
        """Whether the family has a tensor of this published name."""
        return published in self._ours or _NUMBER.sub("{}", published) in self._ours

    def published(self, ours: str) -> str:
        """The published name of one of the module's tensors."""
        numbers = _NUMBER.findall(ours)
        published = (
            self._published[ours] if ours in self._published else self._published[_NUMBER.sub("{}", ours)]
        )
        return published.format(*(numbers or ["0"]))

    def is_base_llm(self, published: str) -> bool:
        """Whether a published name belongs to the base LLM, which releases leave to its own repository."""
        return published in self._base_llm or _NUMBER.sub("{}", published) in self._base_llm


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a torch file read without running any code in it.

    A torch file may hold the tensors under ``model`` or ``state_dict``, as BEATs' own checkpoints do.

    Raises
    ------
    NaturelmError
        If the file cannot be read or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise NaturelmError(f"{path}: there is no such file; a checkpoint needs it") from error
    except Exception as error:  # both readers raise many kinds of errors for a damaged file
        reason = str(error).split("\n", 1)[0][:120]
        raise NaturelmError(f"{path}: holds no readable weights ({reason}); fetch the file again") from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise NaturelmError(f"{path}: holds something else than named tensors; give a model checkpoint")
    return content


def load_published(
    module: nn.Module, tensors: Mapping[str, Tensor], names: NameTable, where: str, with_base: bool = False
) -> None:
    """Copy published tensors into a module, all or none; only the base LLM may be left out.

    Parameters
    ----------
    module
        The model, or a part of it under its own name (``nn.ModuleDict({"beats": ...})``).
    tensors
        Published name -> tensor, of any floating type.
    names
        The family's.
    where
        The checkpoint's path, for errors.
    with_base
        Not even the base LLM may be left out.

    Raises
    ------
    NaturelmError
        If tensors are missing, unknown, of another shape, or not finite; one message names them.
    """
    targets = module.state_dict(keep_vars=True)
    found: dict[str, Tensor] = {}
    unknown, misshaped = [], {}
    for name in sorted(tensors, key=_by_number):
        try:
            ours = names.ours(name)
        except KeyError:
            unknown.append(name)
            continue
        if ours is None:
            continue
        if ours not in targets:
            unknown.append(name)
        elif targets[ours].shape != tensors[name].shape:
            shapes = f"{list(tensors[name].shape)} instead of {list(targets[ours].shape)}"
            misshaped[ours] = f"{name} {shapes}"
        else:
            # Layers share one relative bias under many names: the last wins, as when each is copied in turn.
            found[ours] = tensors[name]
    missing = [
        published
        for ours in targets.keys() - found.keys() - misshaped.keys()
        if not names.is_base_llm(published := names.published(ours)) or with_base
    ]
    problems = [
        _listing(sorted(entries, key=_by_number), kind)
        for entries, kind in (
            (missing, "missing"),
            (unknown, "unknown"),
            (misshaped.values(), "of another shape"),
        )
        if entries
    ]
    if problems:
        raise NaturelmError(
            f"{where} does not fit the model that its settings describe: {'; '.join(problems)}; "
            "give a checkpoint whose tensors and sizes belong together"
        )
    check_finite(((name, tensor) for name, tensor in tensors.items() if names.ours(name) in found), where)
    with torch.no_grad():
        for ours, tensor in found.items():
            targets[ours].copy_(tensor)


def published_tensors(module: nn.Module, names: NameTable) -> dict[str, Tensor]:
    """A module's tensors by their published names, without the base LLM, as a release holds them."""
    named = {names.published(ours): tensor for ours, tensor in module.state_dict().items()}
    return {name: tensor.contiguous() for name, tensor in named.items() if not names.is_base_llm(name)}


def _listing(names: Iterable[str], kind: str) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {kind} ({', '.join(names[:_LISTED])}{more})"


def _by_number(name: str) -> list[Any]:
    """Sort key that puts layer 10 after layer 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split(".")]
