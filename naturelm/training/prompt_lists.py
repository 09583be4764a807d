"""Lists of prompts for kinds of questions, of which training draws one each time: JSON, task -> prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from naturelm.errors import NaturelmError
from naturelm.storage import Location

PromptLists = Mapping[str, tuple[str, ...]]

PLACE = "{}"
"""What a row's own text (`Q`) replaces in a prompt of a list."""


def read_prompt_lists(path: Location) -> PromptLists:
    """Read lists of prompts.

    Raises
    ------
    NaturelmError
        The file cannot be read, or holds something else than lists of texts.
    """
    try:
        with path.open("rb") as file:
            values = json.loads(file.read().decode("utf-8"))
    except OSError as error:
        raise NaturelmError(f"{path}: cannot be read ({error.strerror or error}); check its path") from None
    except ValueError as error:
        raise NaturelmError(f"{path}: not valid JSON ({error}); fix the file") from None
    if not isinstance(values, dict) or not values:
        raise NaturelmError(f"{path}: holds no table of prompts; give lists of prompts, by task")
    for task, prompts in values.items():
        valid = isinstance(prompts, list) and all(isinstance(text, str) and text.strip() for text in prompts)
        if not valid or not prompts:
            raise NaturelmError(f"{path}: task {task!r} has no list of prompts; give at least one, with text")
    return {task: tuple(prompts) for task, prompts in values.items()}


def drawn_prompt(prompts: tuple[str, ...], own_text: str, rng: np.random.Generator) -> str:
    """One of several prompts, a row's own text in it."""
    return prompts[rng.integers(len(prompts))].replace(PLACE, own_text)
