"""What a language model's ``config.json`` says: the settings that all families share, and how they are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from naturelm.errors import NaturelmError
from naturelm.models import presets
from naturelm.models.parts.fbank import SAMPLE_RATE_HZ

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")

# Far beyond any model that exists: larger values would exhaust memory or time while the model is built.
_LARGEST_SIZE = 10_000_000
_MOST_LAYERS = 1000

_Settings = TypeVar("_Settings")


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Settings of a language model around a Llama with LoRA; a family adds its own, each with a default.

    Attributes
    ----------
    llama_path
        The base LLM: a directory (relative to the checkpoint's own) or a hub id.
    lora_rank, lora_alpha, lora_dropout, lora_targets
        Low-rank adapters of the LLM; their product is scaled by ``lora_alpha / lora_rank``.
    prompt_template
        Text around a prompt, which replaces ``{}``.
    end_sym
        Token that ends an answer in training.
    max_txt_len
        Longest answer in training, in tokens.
    window_s, sample_rate_hz
        Sound that the model takes at once, and at what rate.
    other
        Remaining entries of ``config.json``, kept for writing it again.
    """

    llama_path: str = ""
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    prompt_template: str = "{}"
    end_sym: str = "</s>"
    max_txt_len: int = 160
    window_s: float = 10.0
    sample_rate_hz: int = SAMPLE_RATE_HZ
    other: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.window_s > 0:
            raise NaturelmError(f"window_s is {self.window_s}; expected a number of seconds above 0")
        if self.prompt_template.count("{}") != 1:
            raise NaturelmError(
                f"prompt_template is {self.prompt_template!r}; expected text with {{}} once, where the prompt goes"
            )
        unknown = set(self.lora_targets) - set(LORA_TARGETS)
        if unknown or not self.lora_targets:
            raise NaturelmError(
                f"lora_targets is {list(self.lora_targets)}; expected some of {', '.join(LORA_TARGETS)}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """Read the content of a ``config.json``; `where` names it in errors.

        Raises
        ------
        NaturelmError
            If a value has another type than its setting, or is out of range.
        """
        read = settings_from(cls(), {name: v for name, v in values.items() if name != "other"}, where)
        return dataclasses.replace(read, other=dict(values))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read ``config.json``; see `from_dict`."""
        return cls.from_dict(presets.read_config(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """The content of ``config.json``: what was read, and every setting."""
        own = dataclasses.asdict(self)
        return {**own.pop("other"), **own}


def settings_from(defaults: _Settings, values: Mapping[str, Any], where: str) -> _Settings:
    """A dataclass of settings with the values that are given; what is missing or null keeps its default.

    Parameters
    ----------
    defaults
        A dataclass instance; a field that is one itself takes a table of values.
    values
        Setting -> value; other entries are left alone.
    where
        What the values are part of, for errors.

    Raises
    ------
    NaturelmError
        If a value has another type than its default, or is a whole number below 1 or of an impossible size.
    """
    changes = {}
    for entry in dataclasses.fields(defaults):  # type: ignore[arg-type]
        value, default = values.get(entry.name), getattr(defaults, entry.name)
        if value is None:
            continue
        place = f"{where}: {entry.name}"
        if dataclasses.is_dataclass(default):
            if not isinstance(value, Mapping):
                raise NaturelmError(f"{place} is {value!r}; expected a table of settings")
            changes[entry.name] = settings_from(default, value, place)
        else:
            changes[entry.name] = _checked(value, default, place)
    return dataclasses.replace(defaults, **changes)  # type: ignore[type-var]


def _checked(value: Any, default: Any, place: str) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise NaturelmError(f"{place} is {value!r}; expected a list such as {list(default)}")
        return tuple(value)
    wanted = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise NaturelmError(f"{place} is {value!r}; expected something like {default!r}")
    if isinstance(default, int) and not isinstance(default, bool):
        if value < 1:
            raise NaturelmError(f"{place} is {value}; expected a positive number")
        largest = _MOST_LAYERS if "layers" in place.rpartition(": ")[2] else _LARGEST_SIZE
        if value > largest:
            raise NaturelmError(f"{place} is {value:.6g}; expected at most {largest}: the file is damaged")
    return value
