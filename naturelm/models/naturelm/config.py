"""What a NatureLM-audio checkpoint's ``config.json`` says; sizes it leaves out are the released model's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from naturelm.errors import NaturelmError
from naturelm.models.parts.beats import BeatsConfig
from naturelm.models.parts.qformer import QFormerConfig
from naturelm.models.prompts import LLAMA3_TEMPLATE

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")

_Sizes = TypeVar("_Sizes", BeatsConfig, QFormerConfig)

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


@dataclass(frozen=True)
class NatureLMConfig:
    """Sizes and settings of one NatureLM-audio model.

    Attributes
    ----------
    llama_path
        The base LLM: a directory (relative to the checkpoint's own) or a hub id.
    beats, qformer
        Sizes of the audio encoder and of the Q-Former.
    num_audio_query_token
        Q-Former queries per Q-Former window.
    second_per_window, second_stride
        Length and distance of Q-Former windows in seconds.
    lora_rank, lora_alpha, lora_dropout, lora_targets
        Low-rank adapters of the LLM; their product is scaled by ``lora_alpha / lora_rank``.
    prompt_template
        Text around a prompt, which stands where ``{}`` is.
    end_sym
        Token that ends an answer in training.
    max_txt_len
        Longest answer in training, in tokens.
    window_s, sample_rate_hz
        Sound the model hears at once, and at what rate.
    other
        Remaining entries of ``config.json``, kept for writing it again.
    """

    llama_path: str = "meta-llama/Meta-Llama-3.1-8B-Instruct"
    beats: BeatsConfig = field(default_factory=BeatsConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    num_audio_query_token: int = 1
    second_per_window: float = 0.333333
    second_stride: float = 0.333333
    lora_rank: int = 32
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] = LORA_TARGETS
    prompt_template: str = LLAMA3_TEMPLATE
    end_sym: str = "<|end_of_text|>"
    max_txt_len: int = 160
    window_s: float = 10.0
    sample_rate_hz: int = 16000
    other: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("window_s", "second_per_window", "second_stride"):
            # A patch is 20 ms in the published reckoning; less than half of one rounds to nothing.
            if not getattr(self, name) > 0.01:
                raise NaturelmError(
                    f"{name} is {getattr(self, name)}; expected a number of seconds above 0.01"
                )
        unknown = set(self.lora_targets) - set(LORA_TARGETS)
        if unknown or not self.lora_targets:
            raise NaturelmError(
                f"lora_targets is {list(self.lora_targets)}; expected some of {', '.join(LORA_TARGETS)}"
            )

    @property
    def window_samples(self) -> int:
        """Samples the model hears at once."""
        return round(self.window_s * self.sample_rate_hz)

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
        """Read the content of a published ``config.json``.

        Raises
        ------
        NaturelmError
            If a setting asks for a variant that this program does not have, or a size is no number.
        """
        beats_values = values.get("beats_cfg") or {}
        for fixed, given in ((_FIXED, values), (_FIXED_BEATS, beats_values)):
            for name, value in fixed.items():
                if given.get(name, value) != value:
                    raise NaturelmError(
                        f"{where}: {name} is {given[name]!r}; only models with {value!r} can be read"
                    )
        own = {f.name for f in dataclasses.fields(cls)} - {"beats", "qformer", "other", "lora_targets"}
        given = {name: values[name] for name in own if values.get(name) is not None}
        defaults = cls()
        for name, value in given.items():
            given[name] = _checked(value, getattr(defaults, name), f"{where}: {name}")
        return cls(
            beats=_sizes(BeatsConfig(), beats_values, f"{where}: beats_cfg"),
            qformer=_sizes(QFormerConfig(), values.get("qformer") or {}, f"{where}: qformer"),
            lora_targets=tuple(values.get("lora_targets") or LORA_TARGETS),
            other=dict(values),
            **given,
        )

    @classmethod
    def from_file(cls, path: Path) -> NatureLMConfig:
        """Read ``config.json``; see :meth:`from_dict`."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise NaturelmError(
                f"{path}: cannot be read ({error.strerror}); a checkpoint needs it"
            ) from error
        except ValueError as error:
            raise NaturelmError(f"{path}: is not JSON ({error}); fetch the checkpoint again") from error
        if not isinstance(values, dict):
            raise NaturelmError(f"{path}: holds no table of settings; fetch the checkpoint again")
        return cls.from_dict(values, str(path))

    def to_dict(self) -> dict[str, Any]:
        """The content of ``config.json`` as published; our own entries only where they differ from that."""
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


def _sizes(defaults: _Sizes, values: Mapping[str, Any], where: str) -> _Sizes:
    given = {f.name: values[f.name] for f in dataclasses.fields(defaults) if f.name in values}
    checked = {
        name: _checked(value, getattr(defaults, name), f"{where}.{name}") for name, value in given.items()
    }
    return dataclasses.replace(defaults, **checked)


def _checked(value: Any, default: Any, where: str) -> Any:
    """The value, if it is of the default's kind and, where a number, usable."""
    wanted = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise NaturelmError(f"{where} is {value!r}; expected something like {default!r}")
    if isinstance(default, int) and not isinstance(default, bool) and value < 1:
        raise NaturelmError(f"{where} is {value}; expected a positive number")
    return value
