"""FSDP2: each worker stores a part of every weight, for models that do not fit one GPU."""

from __future__ import annotations

from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from naturelm.training.objective import Objective


def shard(objective: Objective) -> None:
    """Distribute the weights over all workers, in place; the LLM's layers are gathered one after the other."""
    objective.in_step = True
    for layer in objective.model.layers()["llm"]:
        fully_shard(layer)
    fully_shard(objective)
    register_fsdp_forward_method(objective, "generate")
