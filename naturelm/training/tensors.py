"""Tensors of parameters, sharded over workers or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from naturelm.errors import NaturelmError


def load_weights(targets: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into parameters of the same names and shapes, all or none.

    Raises
    ------
    NaturelmError
        If names or shapes differ.
    """
    wrong = sorted(targets.keys() ^ weights.keys()) or [
        name for name, parameter in targets.items() if parameter.shape != weights[name].shape
    ]
    if wrong:
        raise NaturelmError(
            f"{where}: contains weights of another model: {len(wrong)} are missing, unknown or of another shape, such "
            f"as {wrong[0]}; continue with the model that it was started with"
        )
    with torch.no_grad():
        for name, parameter in targets.items():
            parameter.copy_(like(weights[name], parameter))


def is_sharded(tensor: Tensor) -> bool:
    """Whether each worker stores a part of it."""
    # Not by its class: importing it takes seconds, and most runs do not shard.
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor; for a sharded one, all workers must call this."""
    return cast(Any, tensor).full_tensor() if is_sharded(tensor) else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A tensor on a parameter's device, of its type, and sharded as it is."""
    tensor = tensor.to(parameter.device, parameter.dtype, copy=True)
    if is_sharded(parameter):
        from torch.distributed.tensor import distribute_tensor

        sharded = cast(Any, parameter)
        return distribute_tensor(tensor, sharded.device_mesh, sharded.placements)
    return tensor
