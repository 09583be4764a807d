"""What a SALMONN checkpoint's settings are: the defaults serve, as published checkpoints have no ``config.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from naturelm.errors import NaturelmError
from naturelm.models.config import LanguageModelConfig, settings_from
from naturelm.models.parts.beats import BeatsConfig
from naturelm.models.parts.qformer import QFormerConfig
from naturelm.models.parts.whisper import WhisperSizes


@dataclass(frozen=True, kw_only=True)
class SalmonnConfig(LanguageModelConfig):
    """Sizes and settings of one SALMONN model, beside those of every language model.

    Attributes
    ----------
    family
        Name of the family, by which a checkpoint is recognised.
    whisper_path, beats_path
        Where Whisper and BEATs come from, as `llama_path` says for the base LLM; "" where the checkpoint holds them.
    whisper, beats, qformer
        Sizes of both encoders and of the Q-Former.
    num_speech_query_token
        Q-Former queries per Q-Former window.
    second_per_window, second_stride
        Length and distance of Q-Former windows in seconds.
    """

    family: str = "salmonn"
    llama_path: str = "lmsys/vicuna-13b-v1.1"
    whisper_path: str = "openai/whisper-large-v2"
    beats_path: str = ""
    lora_alpha: int = 32
    prompt_template: str = "USER: {}\nASSISTANT:"
    max_txt_len: int = 300
    window_s: float = 30.0
    whisper: WhisperSizes = field(default_factory=WhisperSizes)
    beats: BeatsConfig = field(default_factory=BeatsConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    num_speech_query_token: int = 1
    second_per_window: float = 0.333333
    second_stride: float = 0.333333

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1.0 <= self.window_s <= 30.0:
            raise NaturelmError(
                f"window_s is {self.window_s:g}; expected 1 to 30 seconds, which is what Whisper takes"
            )
        for name in ("second_per_window", "second_stride"):
            if self._frames(getattr(self, name)) < 1:
                raise NaturelmError(f"{name} is {getattr(self, name)}; expected at least 0.02 seconds")

    @property
    def window_frames(self) -> int:
        """Frames of one Q-Former window."""
        return self._frames(self.second_per_window)

    @property
    def stride_frames(self) -> int:
        """Frames from one Q-Former window to the next."""
        return self._frames(self.second_stride)

    def _frames(self, seconds: float) -> int:
        return round(self.whisper.max_source_positions * seconds / 30.0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> SalmonnConfig:
        """Read the content of a ``config.json``, which has BEATs' sizes under ``beats_cfg``.

        Raises
        ------
        NaturelmError
            If a value has another type than its setting, or is out of range.
        """
        given = {name: value for name, value in values.items() if name not in ("beats", "other")}
        read = settings_from(cls(), given, where)
        beats = settings_from(BeatsConfig(), values.get("beats_cfg") or {}, f"{where}: beats_cfg")
        return dataclasses.replace(read, beats=beats, other=dict(values))

    def to_dict(self) -> dict[str, Any]:
        """The content of ``config.json``, BEATs' sizes under their published name."""
        values = super().to_dict()
        values["beats_cfg"] = {**(values.get("beats_cfg") or {}), **values.pop("beats")}
        return values
