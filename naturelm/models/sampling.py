"""How logits are changed before a token is chosen, each row for itself.

Axes: R rows · V vocabulary
"""

from __future__ import annotations

import torch
from torch import Tensor


def penalise(logits_RV: Tensor, seen_RV: Tensor, penalty: float) -> Tensor:
    """Logits with those of tokens that were seen moved away from certainty (Keskar et al. 2019, arXiv 1909.05858).

    Parameters
    ----------
    logits_RV
        Float ``[R, V]``.
    seen_RV
        bool ``[R, V]``, true for tokens that the row has seen.
    penalty
        Divides positive logits and multiplies negative ones; 1 changes nothing.
    """
    penalised_RV = torch.where(logits_RV > 0, logits_RV / penalty, logits_RV * penalty)
    return torch.where(seen_RV, penalised_RV, logits_RV)


def keep_likeliest(logits_RV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits with -inf for all but the `top_k` likeliest tokens, of these the likeliest that hold `top_p`.

    Parameters
    ----------
    logits_RV
        Float ``[R, V]``.
    top_k
        How many are kept at most; 0 keeps all. Equally likely ones with the last are kept.
    top_p
        Share of the probability that those kept reach; 1 keeps all (Holtzman et al. 2019, arXiv 1904.09751).
    """
    if top_k:
        least_R1 = logits_RV.topk(min(top_k, logits_RV.shape[-1]), dim=-1)[0][:, -1:]
        logits_RV = logits_RV.masked_fill(logits_RV < least_R1, -torch.inf)
    if top_p < 1.0:
        sorted_RV, order_RV = logits_RV.sort(dim=-1, descending=True)
        probs_RV = sorted_RV.softmax(dim=-1)
        # A token is kept while those before it hold less: the likeliest always is.
        drop_RV = probs_RV.cumsum(dim=-1) - probs_RV >= top_p
        logits_RV = logits_RV.masked_fill(torch.zeros_like(drop_RV).scatter(1, order_RV, drop_RV), -torch.inf)
    return logits_RV
