"""The decoding kernel is plain attention, run here by Triton's interpreter in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.paths import REPO

PROGRAM = """
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from naturelm.engine.attention import attend_newest
from naturelm.engine.buffer import DecodeBuffer
from naturelm.engine.decoder import Decoder

torch.manual_seed(0)
SHAPES = ((3, 2, 4, 96, 32, 0), (2, 1, 1, 40, 16, 31), (1, 2, 3, 70, 64, 69), (2, 2, 4, 64, 16, 32))
for rows, heads, group, slots, width, slot in SHAPES:
    kv = torch.randn(2, rows + 1, heads, slots, width)
    kv[:, :, :, slot + 1 :] = torch.nan  # what comes later has never been written
    keys, values = kv[:, :rows]
    mask = torch.rand(rows, slots) < 0.6
    mask[:, 0] = True
    kv[:, :rows][(~mask)[None, :, None, :].expand(2, -1, heads, -1)] = torch.nan  # nor what a row does not see
    # As the decoder has them: a part of a larger tensor, beside the keys.
    q = torch.randn(rows, heads * group + heads, width)[:, : heads * group].view(rows, heads, group, width)
    ours = attend_newest(q, keys, values, mask, torch.tensor([slot]))
    seen = mask[:, None, None, : slot + 1]
    plain = F.scaled_dot_product_attention(
        q, keys[:, :, : slot + 1].nan_to_num(), values[:, :, : slot + 1].nan_to_num(), attn_mask=seen
    )
    torch.testing.assert_close(ours, plain, atol=2e-6, rtol=1e-5)


# A whole step of a decode buffer, with the kernel and without.
llm = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=40,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
).eval()
decoder = Decoder(llm)
logits = []
with torch.inference_mode():
    for with_kernel in (False, True):
        buffer = DecodeBuffer(decoder, 5, 32)
        buffer.kv.copy_(torch.linspace(-1, 1, buffer.kv.numel()).view(buffer.kv.shape))
        buffer.mask_RS[:] = torch.arange(32) < torch.arange(1, 6)[:, None]
        buffer.mask_RS[:, 20] = True
        slot = torch.tensor([20])
        attend = lambda q, keys, values: attend_newest(q, keys, values, buffer.mask_RS, slot)
        tokens = torch.arange(5)
        logits.append(buffer._step(tokens, tokens + 1, slot, 21, attend if with_kernel else None))
torch.testing.assert_close(logits[1], logits[0], atol=2e-6, rtol=1e-5)
print("equal")
"""


@pytest.mark.slow
def test_the_kernel_reads_what_a_row_sees_and_nothing_else() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPO,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
