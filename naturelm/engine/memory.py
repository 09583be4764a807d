"""What a batch needs of a GPU's memory, what is free, and waiting for memory that another program holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from naturelm.engine.buffer import SLOT_STEP, graph_rows
from naturelm.engine.trie import LOGITS_AT_ONCE
from naturelm.errors import NaturelmError

_LOG = logging.getLogger(__name__)

# What no tensor shows: cuBLAS' workspaces, recorded graphs, gaps between tensors.
OVERHEAD_BYTES = 384 << 20
# Tokens of prompts that go through the language model at once: more gains nothing, and their activations are large.
PREFILL_TOKENS = 16384
# Another program's memory is waited for at most so long.
WAIT_S = 60.0
_LOOK_EVERY_S = 1.0
# Bytes for each number of a row's logits: as computed, in float32, a copy that is normalised, the graph's own two.
_LOGIT_BYTES = 16
# The same for closed lists: as computed, in float32, and the exponentials of their sum.
_LIST_LOGIT_BYTES = 10


@dataclass(frozen=True)
class BatchNeeds:
    """What the batches of one engine take, apart from the weights.

    Attributes
    ----------
    encode_bytes : int
        Of encoding one part of a batch.
    window_bytes : int
        Of one window's sound and audio tokens, of this batch and the next.
    rows_per_window : int
        Rows that decode together: free queries times beams.
    slots : int
        Tokens of the longest prompt and its answer.
    kv_bytes : int
        Keys and values of one token.
    vocabulary : int
        Numbers in a row's logits.
    prompt_tokens : int
        Tokens of a window's longest prompt that are read at once.
    token_bytes : int
        Activations of one token at the widest point of a layer.
    list_window_bytes : int
        Of one window's closed list, the largest; 0 without closed lists.
    """

    encode_bytes: int
    window_bytes: int
    rows_per_window: int
    slots: int
    kv_bytes: int
    vocabulary: int
    prompt_tokens: int
    token_bytes: int
    list_window_bytes: int = 0

    def bytes_of(self, windows: int) -> int:
        """What a batch of so many windows takes."""
        rows = graph_rows(windows * self.rows_per_window) if self.rows_per_window else 0
        slots = -(-self.slots // SLOT_STEP) * SLOT_STEP
        decode = rows * (slots * self.kv_bytes + self.vocabulary * _LOGIT_BYTES)
        read = min(windows * self.prompt_tokens, PREFILL_TOKENS) * self.token_bytes
        lists = 0
        if self.list_window_bytes:
            lists = windows * self.list_window_bytes + LOGITS_AT_ONCE * _LIST_LOGIT_BYTES
        return OVERHEAD_BYTES + self.encode_bytes + windows * self.window_bytes + decode + read + lists


def plan_batch(free_bytes: int, needs: BatchNeeds, most: int) -> int:
    """The largest batch, at most `most`, that so much free memory holds; 0 where not even one window fits."""
    fitting = (windows for windows in range(most, 0, -1) if needs.bytes_of(windows) <= free_bytes)
    return next(fitting, 0)


def free_bytes(device: torch.device) -> int:
    """Bytes of a GPU's memory that this process may still take.

    What PyTorch keeps between its tensors does not count: it is in pieces, too small for what a batch needs.
    """
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def wait_for_memory(
    needed_bytes: int,
    free: Callable[[], int],
    wait_s: float = WAIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until so much memory is free; whether it is.

    Parameters
    ----------
    needed_bytes : int
        What is needed.
    free : callable
        Bytes that are free now.
    wait_s : float
        At most so long.
    sleep : callable
        Waits for so many seconds.
    """
    waited = 0.0
    while (now := free()) < needed_bytes:
        if waited >= wait_s:
            return False
        if waited == 0.0:
            _LOG.warning(
                "the GPU has %.1f GB free and %.1f GB are needed; waiting up to %.0f s for other programs",
                now / 1e9,
                needed_bytes / 1e9,
                wait_s,
            )
        sleep(_LOOK_EVERY_S)
        waited += _LOOK_EVERY_S
    return True


class OutOfMemory(NaturelmError):
    """Not even one window fits the GPU's free memory."""


def too_little(needed_bytes: int, free: int) -> OutOfMemory:
    """The error about a GPU that holds the weights and not one window."""
    needed_gb, free_gb = needed_bytes / 1e9, free / 1e9
    return OutOfMemory(
        f"one window needs {needed_gb:.1f} GB of GPU memory beside the model's weights and {free_gb:.1f} GB are free; "
        "end other programs on the GPU or use a larger one"
    )
