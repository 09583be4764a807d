"""Audio-language models: architectures, checkpoints and answers; torch comes only with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from naturelm.models.answer import Answer

if TYPE_CHECKING:
    from naturelm.models.naturelm.model import NatureLM

__all__ = ["Answer", "NatureLM"]


def __getattr__(name: str) -> Any:
    if name == "NatureLM":
        from naturelm.models.naturelm.model import NatureLM

        return NatureLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
