"""What a training step of the released model's size keeps in memory, computed without any of it.

python -m tests.measure.training_memory

Weights, activations and sound are shapes only (`FakeTensorMode`), so it runs anywhere in about a minute. Activations
are what the forward pass saves for the backward pass; what kernels need in passing is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from naturelm.models.base import LanguageModel
from naturelm.synthetic.stand_ins import QUESTIONS, random_full_size
from naturelm.training.data import Loaded
from naturelm.training.initial_model import checkpoint_activations, set_parts
from naturelm.training.objective import Objective, Preparer

PARTS = ("beats", "qformer", "projection", "lora")
ANSWER = "Green Treefrog and some other words of an answer"


def shape_only(mode: FakeTensorMode) -> LanguageModel:
    """The released model, trained parts in float32, the rest in bfloat16, no memory behind any of it."""
    model = random_full_size("meta", torch.bfloat16)
    set_parts(model, PARTS)
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            dtype = torch.float32 if weight.requires_grad else torch.bfloat16
            empty = torch.empty(weight.shape, dtype=dtype, device="meta")
            fake = FakeTensor(mode, empty, torch.device("cpu"))
            setattr(module, name, nn.Parameter(fake, requires_grad=weight.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype))
    # Not in training: layerdrop would ask for a random number. Dropout's masks are not counted.
    return model.eval()


def measure(examples: int, checkpointing: bool) -> dict[str, Any]:
    """Gigabytes of weights, of their optimizer state, and of saved activations."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        model = shape_only(mode)
        if checkpointing:
            checkpoint_activations(model)
        sound = np.zeros(model.natural_window_samples, np.float32)
        asked = [
            Loaded(str(i), "detection", sound, ((QUESTIONS[i % 2], ANSWER),), ()) for i in range(examples)
        ]
        batch = Preparer(model, 200)(asked)
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        saved: dict[int, Any] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                saved[storage._cdata] = (storage.nbytes(), tensor)
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            Objective(model)(batch)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    return {
        "examples": examples,
        "checkpointing": checkpointing,
        "frozen_gb": round(frozen / 1e9, 2),
        "trained_millions": round(trained / 1e6, 1),
        # float32: weights, gradients, and AdamW's two moments
        "trained_gb": round(16 * trained / 1e9, 2),
        "activations_gb": round(sum(size for size, _ in saved.values()) / 1e9, 2),
    }


if __name__ == "__main__":
    for examples in (1, 8):
        for checkpointing in (False, True):
            print(measure(examples, checkpointing), flush=True)
