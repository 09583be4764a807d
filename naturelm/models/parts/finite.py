"""Weights that are numbers: a model with NaN or infinity in it answers nonsense, and says so nowhere."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from naturelm.errors import NaturelmError

_LISTED = 3


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Check weights, one tensor after the other: each is read once and nothing is copied.

    Parameters
    ----------
    tensors
        Name and tensor, of any type; those that hold no data (``meta``) are left out.
    where
        The checkpoint's path, for the error.

    Raises
    ------
    NaturelmError
        A tensor contains NaN or infinity.
    """
    wrong = [name for name, tensor in tensors if not _is_finite(tensor)]
    if wrong:
        more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise NaturelmError(
            f"{where}: {len(wrong)} {'tensor contains' if len(wrong) == 1 else 'tensors contain'} NaN or infinity "
            f"({', '.join(wrong[:_LISTED])}{more}); fetch the checkpoint again, or give one of an earlier step"
        )


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.element_size() == 1:  # no extremes of 8 bits
        tensor = tensor.float()
    # The extremes of what contains NaN are NaN.
    least, largest = torch.aminmax(tensor.detach())
    return bool(torch.isfinite(least) & torch.isfinite(largest))
