"""What an LTU checkpoint's settings are: the defaults serve, as published checkpoints have no ``config.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from naturelm.models.config import LanguageModelConfig, settings_from
from naturelm.models.parts.ast import AstConfig

# Settings of LoRA as peft names them, in a table of their own.
_LORA = {
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_targets",
}


@dataclass(frozen=True, kw_only=True)
class LtuConfig(LanguageModelConfig):
    """Sizes and settings of one LTU model, beside those of every language model.

    Attributes
    ----------
    family
        Name of the family, by which a checkpoint is recognised.
    audio_encoder
        Sizes of the audio encoder.
    """

    family: str = "ltu"
    llama_path: str = "lmsys/vicuna-7b-v1.1"
    lora_dropout: float = 0.05
    prompt_template: str = "### Instruction:\n{}\n\n### Response:\n"
    max_txt_len: int = 108
    window_s: float = 10.24
    audio_encoder: AstConfig = field(default_factory=AstConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> LtuConfig:
        """Read the content of a ``config.json``, which may have LoRA's settings under ``lora``, as peft names them.

        Raises
        ------
        NaturelmError
            If a value has another type than its setting, or is out of range.
        """
        given = {name: value for name, value in values.items() if name != "other"}
        lora = given.pop("lora", None)
        # Other families have a switch of this name.
        lora = lora if isinstance(lora, Mapping) else {}
        given = {**{ours: lora[theirs] for theirs, ours in _LORA.items() if theirs in lora}, **given}
        return dataclasses.replace(settings_from(cls(), given, where), other=dict(values))

    def to_dict(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        values = super().to_dict()
        values.pop("lora", None)
        return values
