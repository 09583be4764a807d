"""What the engine is measured against: the plain path, and each label by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from naturelm.engine.queries import EngineQuery
    from naturelm.models.answer import Answer
    from naturelm.models.base import LanguageModel


def answer_plainly(
    model: LanguageModel, queries: Sequence[EngineQuery], num_beams: int, waveforms_BS: np.ndarray
) -> list[list[Answer]]:
    """Each window and query by itself through `generate`; each label of a list by itself."""
    answers = []
    for window_S in waveforms_BS:
        window_1S = torch.from_numpy(window_S)[None]
        answers.append(
            [
                best_label_one_by_one(model, query, window_1S)
                if query.labels
                else model.generate(window_1S, [query.prompt], query.max_new_tokens, num_beams)[0]
                for query in queries
            ]
        )
    return answers


def best_label_one_by_one(model: LanguageModel, query: EngineQuery, window_1S: Tensor) -> Answer:
    """A closed list without any sharing: for each label one pass over the prompt and the label."""
    labels = query.labels if "None" in query.labels else (*query.labels, "None")
    ends = list(model.end_token_ids)
    scored = []
    with torch.inference_mode():
        audio_1AD = model.encode_audio(window_1S)
        prompt = model.prompt_tokens(query.prompt)
        for label in labels:
            ids = model.text_tokens(label)
            log_probs_TV = model.answer_logits(audio_1AD, [prompt], [ids])[0].float().log_softmax(-1)
            tokens = [log_probs_TV[i, token].item() for i, token in enumerate(ids)]
            scored.append((sum(tokens) + log_probs_TV[-1, ends].logsumexp(-1).item(), label, ids, tokens))
    total = float(np.logaddexp.reduce([score for score, *_ in scored]))
    scored.sort(key=lambda entry: -entry[0])
    _, _, ids, tokens = scored[0]
    candidates = tuple((label, float(np.exp(score - total))) for score, label, *_ in scored[: query.top_k])
    return replace(model.make_answer(ids, tokens), candidates=candidates)
