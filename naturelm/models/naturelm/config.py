"""What a NatureLM-audio checkpoint's ``config.json`` says; sizes it leaves out are the released model's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from naturelm.errors import NaturelmError
from naturelm.models.config import LORA_TARGETS, LanguageModelConfig, settings_from
from naturelm.models.parts.beats import BeatsConfig
from naturelm.models.parts.qformer import QFormerConfig

LLAMA3_TEMPLATE = (
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
# Settings of the published family that this program has in one form only: name -> the value it takes.
_FIXED: dict[str, Any] = {
    "use_audio_Qformer": True,
    "window_level_Qformer": True,
    "max_pooling": False,
    "lora": True,
}
# The same for BEATs. The published BEATs code reads all of these from `beats_cfg`.
_FIXED_BEATS: dict[str, Any] = {
    "conv_bias": False,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
}


@dataclass(frozen=True, kw_only=True)
class NatureLMConfig(LanguageModelConfig):
    """Sizes and settings of one NatureLM-audio model, beside those of every language model.

    Attributes
    ----------
    beats, qformer
        Sizes of the audio encoder and of the Q-Former.
    num_audio_query_token
        Q-Former queries per Q-Former window.
    second_per_window, second_stride
        Length and distance of Q-Former windows in seconds.
    """

    llama_path: str = "meta-llama/Meta-Llama-3.1-8B-Instruct"
    lora_rank: int = 32
    lora_alpha: int = 32
    lora_targets: tuple[str, ...] = LORA_TARGETS
    prompt_template: str = LLAMA3_TEMPLATE
    end_sym: str = "<|end_of_text|>"
    beats: BeatsConfig = field(default_factory=BeatsConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    num_audio_query_token: int = 1
    second_per_window: float = 0.333333
    second_stride: float = 0.333333

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window_s", "second_per_window", "second_stride"):
            # A patch is 20 ms in the published reckoning; less than half of one rounds to nothing.
            if not getattr(self, name) > 0.01:
                raise NaturelmError(
                    f"{name} is {getattr(self, name)}; expected a number of seconds above 0.01"
                )

    @property
    def window_patches(self) -> int:
        """Patches of one Q-Former window (BEATs gives 1500 per 30 s by the published code's reckoning)."""
        return round(1500 * self.second_per_window / 30.0)

    @property
    def stride_patches(self) -> int:
        """Patches from one Q-Former window to the next."""
        return round(1500 * self.second_stride / 30.0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> NatureLMConfig:
        """Read the content of a published ``config.json``, which has BEATs' sizes under ``beats_cfg``.

        Raises
        ------
        NaturelmError
            If a setting is for a variant that this program does not have, or has another type than its default.
        """
        beats_values = values.get("beats_cfg") or {}
        for fixed, given in ((_FIXED, values), (_FIXED_BEATS, beats_values)):
            for name, value in fixed.items():
                if given.get(name, value) != value:
                    raise NaturelmError(
                        f"{where}: {name} is {given[name]!r}; only models with {value!r} can be read"
                    )
        read = settings_from(
            cls(), {name: v for name, v in values.items() if name not in ("beats", "other")}, where
        )
        beats = settings_from(BeatsConfig(), beats_values, f"{where}: beats_cfg")
        return dataclasses.replace(read, beats=beats, other=dict(values))

    def to_dict(self) -> dict[str, Any]:
        """The content of ``config.json`` as published; entries of this program only where they differ from that."""
        published = {
            **_FIXED,
            "beats_path": None,
            "ckpt": None,
            "freeze_beats": True,
            "downsample_factor": 8,
            "freeze_audio_QFormer": False,
            "audio_llama_proj_model": None,
            "freeze_audio_llama_proj": False,
            "device": "cpu",
            "flash_attn": "eager",
            **self.other,
        }
        plain = NatureLMConfig()
        for entry in dataclasses.fields(self):
            name = entry.name
            if name not in ("beats", "qformer", "other"):
                published[name] = getattr(self, name)
        for name in ("window_s", "sample_rate_hz", "lora_targets"):
            if getattr(self, name) == getattr(plain, name):
                del published[name]
        beats = dict(self.other.get("beats_cfg") or {})
        published["beats_cfg"] = {**_FIXED_BEATS, **beats, **dataclasses.asdict(self.beats)}
        if self.qformer != plain.qformer:
            published["qformer"] = dataclasses.asdict(self.qformer)
        return published
