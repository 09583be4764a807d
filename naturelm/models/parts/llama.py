"""Base language models from a local directory: a Llama and its tokenizer, or one sentence about why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from naturelm.errors import NaturelmError, first_line
from naturelm.models.parts.finite import check_finite


def load_llama(directory: Path, dtype: torch.dtype) -> LlamaForCausalLM:
    """Load a Llama on the CPU.

    Raises
    ------
    NaturelmError
        If the directory holds none, or tensors are missing, of another shape or not finite.
    """
    config = load_llama_config(directory)
    try:
        with quiet():
            llama, report = LlamaForCausalLM.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                # Reported below, by name.
                ignore_mismatched_sizes=True,
            )
    except Exception as error:  # transformers raises many kinds of errors for a damaged directory
        raise NaturelmError(
            f"{directory}: holds no readable base LLM ({first_line(error)}); give --llm"
        ) from error
    wrong = sorted({*report["missing_keys"], *(str(entry[0]) for entry in report["mismatched_keys"])})
    if wrong:
        raise NaturelmError(
            f"{directory}: {len(wrong)} tensors of the base LLM are missing or of another shape than "
            f"config.json says ({', '.join(wrong[:5])}); fetch it again"
        )
    check_finite(llama.named_parameters(), str(directory))
    return llama


def new_llama(
    config: LlamaConfig, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> LlamaForCausalLM:
    """A Llama with random weights, made directly on a device and in a type."""
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def load_llama_config(directory: Path) -> LlamaConfig:
    """The shape of a Llama.

    Raises
    ------
    NaturelmError
        If the directory holds none.
    """
    try:
        config = LlamaConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # as in `load_llama`
        raise NaturelmError(
            f"{directory}: holds no readable base LLM ({first_line(error)}); give --llm"
        ) from error
    kind = (config.architectures or ["LlamaForCausalLM"])[0]
    if kind != "LlamaForCausalLM":
        raise NaturelmError(f"{directory}: holds a {kind}; give a Llama as the base LLM")
    return config


def save_llama(llama: LlamaForCausalLM, tokenizer: Any, directory: Path) -> None:
    """Write a Llama and its tokenizer so that :func:`load_llama` and any other program reads them.

    Embeddings beyond the vocabulary are left out: the base LLM has none.
    """
    tensors = llama.state_dict()
    embedding = "model.embed_tokens.weight"
    tensors[embedding] = tensors[embedding][: llama.config.vocab_size].contiguous()
    with quiet():
        llama.save_pretrained(directory, state_dict=tensors)
        tokenizer.save_pretrained(directory)


def load_tokenizer(directory: Path) -> Any:
    """Load a tokenizer.

    Raises
    ------
    NaturelmError
        If the directory holds none that can be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # as above
        raise NaturelmError(
            f"{directory}: holds no readable tokenizer ({first_line(error)}); give --llm"
        ) from error
    if not tokenizer.is_fast:
        raise NaturelmError(
            f"{directory}: {type(tokenizer).__name__} is a tokenizer written in Python, which is not supported; "
            "give a base LLM with a tokenizer.json"
        )
    return tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and reports from running across our own output."""
    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()
