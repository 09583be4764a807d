"""Audio models: families, checkpoints and answers; torch is imported only with a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naturelm.errors import NaturelmError
from naturelm.models import presets
from naturelm.models.answer import Answer

if TYPE_CHECKING:
    import torch

    from naturelm.models.base import Classifier, LanguageModel
    from naturelm.models.ltu.model import LTU
    from naturelm.models.naturelm.model import NatureLM
    from naturelm.models.salmonn.model import SALMONN

__all__ = ["LTU", "SALMONN", "Answer", "NatureLM", "load_encoder", "load_model"]
_CLASSES = {"LTU": "ltu", "NatureLM": "naturelm", "SALMONN": "salmonn"}


def load_model(
    name: str | Path,
    llm: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    merging_alpha: float = 1.0,
    weights: str = "auto",
    **part_files: str | Path,
) -> LanguageModel | Classifier:
    """Load a model of whichever family.

    Parameters
    ----------
    name
        Preset name (``"pocket"``), local directory or file, or hub id.
    llm
        Base language model, directory or hub id; by default what the checkpoint's ``config.json`` names, resolved
        against the checkpoint's directory where that is a relative path.
    device
        By default the GPU where there is one.
    dtype
        Of the weights; by default bfloat16 on a GPU and float32 elsewhere. Adapters stay float32.
    merging_alpha
        Share of the adapters in the language model; see `naturelm.models.base.LanguageModel`.
    weights
        How the language model's matrices are stored: ``"bf16"``, ``"fp8"``, ``"int8"``, or ``"auto"`` for what the
        checkpoint holds, in `dtype`. Beside 8-bit matrices, `dtype` is bfloat16 wherever the device multiplies it.
    part_files
        Parts of the model that its family publishes in files of their own, such as SALMONN's ``whisper`` and ``beats``;
        by default what ``config.json`` names, as for `llm`.

    Raises
    ------
    NaturelmError
        If there is no such model, or its checkpoint is gated, damaged or of other shapes than it says; or if `llm` or
        `merging_alpha` is given for a classifier, which has no language model.
    """
    from naturelm.models.base import LanguageModel
    from naturelm.models.parts.weights import as_stored

    stored, dtype = as_stored(weights, dtype)
    model_class = presets.family_of(presets.resolve(name)).load()
    if issubclass(model_class, LanguageModel):
        return model_class.from_pretrained(name, llm, device, dtype, merging_alpha, stored, **part_files)
    given = [
        *(["llm"] if llm is not None else []),
        *(["merging_alpha"] if merging_alpha != 1.0 else []),
        *(["weights"] if stored not in (None, "plain") else []),
        *part_files,
    ]
    _refuse(given, name)
    return model_class.from_pretrained(name, device, dtype)


def load_encoder(
    name: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **part_files: str | Path,
) -> LanguageModel | Classifier:
    """Load what turns sound into vectors: of a language model the audio branch alone, or a classifier.

    Parameters and errors as of `load_model`.
    """
    from naturelm.models.base import LanguageModel

    model_class = presets.family_of(presets.resolve(name)).load()
    if issubclass(model_class, LanguageModel):
        return model_class.read_encoder(name, device, dtype, **part_files)
    _refuse(part_files, name)
    return model_class.from_pretrained(name, device, dtype)


def _refuse(given: Iterable[str], name: str | Path) -> None:
    """Refuse what only a language model has."""
    if given := list(given):
        raise NaturelmError(f"{name} is a classifier; leave out {', '.join(given)}, which it does not have")


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return presets.FAMILIES[_CLASSES[name]].load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
