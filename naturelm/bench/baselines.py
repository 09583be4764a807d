"""What the engine is measured against: the plain path, each label by itself, the published encoder's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.models.parts.beats import EncoderLayer
from naturelm.models.parts.fbank import beats_features

if TYPE_CHECKING:
    from naturelm.engine.queries import EngineQuery
    from naturelm.models.answer import Answer
    from naturelm.models.naturelm.model import NatureLM


def answer_plainly(
    model: NatureLM, queries: Sequence[EngineQuery], num_beams: int, waveforms_BS: np.ndarray
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


def best_label_one_by_one(model: NatureLM, query: EngineQuery, window_1S: Tensor) -> Answer:
    """A closed list without any sharing: for each label one pass over the prompt and the label."""
    labels = query.labels if "None" in query.labels else (*query.labels, "None")
    ends = list(model.end_token_ids)
    scored = []
    with torch.inference_mode():
        audio_1AD = model.encode_audio(window_1S)
        for label in labels:
            ids = model.tokenizer(label, add_special_tokens=False).input_ids
            embeds_1TD, mask_1T = model.embed_prompts(audio_1AD, [query.prompt], [ids])
            logits_TV = model.llama(
                inputs_embeds=embeds_1TD, attention_mask=mask_1T, logits_to_keep=len(ids) + 1
            ).logits[0]
            log_probs_TV = logits_TV.float().log_softmax(-1)
            tokens = [log_probs_TV[i, token].item() for i, token in enumerate(ids)]
            scored.append((sum(tokens) + log_probs_TV[-1, ends].logsumexp(-1).item(), label, ids, tokens))
    total = float(np.logaddexp.reduce([score for score, *_ in scored]))
    scored.sort(key=lambda entry: -entry[0])
    _, _, ids, tokens = scored[0]
    candidates = tuple((label, float(np.exp(score - total))) for score, label, *_ in scored[: query.top_k])
    return replace(model.make_answer(ids, tokens), candidates=candidates)


def encode_as_published(model: NatureLM, waveforms_BS: Tensor) -> Tensor:
    """The audio branch with the published code's layout: the baseline of `bench_encode`.

    Filterbanks of one waveform after the other; the position bias of all rows in memory, gated into another tensor of
    that size in every layer; attention weights in memory, their softmax kept in range by the published 1/32 and 32.
    """
    beats = model.beats
    features_BTM = torch.cat([beats_features(row_S[None]) for row_S in model.fit_window(waveforms_BS)])
    x_BPD = beats.patch_embedding(features_BTM.to(model.audio_projection.weight.dtype).unsqueeze(1))
    x_BPD = beats.patch_projection(beats.patch_norm(x_BPD.flatten(2).transpose(1, 2)))
    x_BPD = beats.norm(x_BPD + beats.position_conv(x_BPD))
    rows, patches, width = x_BPD.shape
    heads = beats.config.encoder_attention_heads
    bias_NPP = beats.relative_bias(patches).unsqueeze(0).repeat(rows, 1, 1, 1).view(-1, patches, patches)
    for layer in beats.layers:
        layer = cast(EncoderLayer, layer)
        attention = layer.attention
        q_NPK, k_NPK, v_NPK = (
            projection(x_BPD)
            .view(rows, patches, heads, -1)
            .transpose(1, 2)
            .reshape(rows * heads, patches, -1)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        scaled_NPK = q_NPK * (q_NPK.shape[-1] ** -0.5 / 32)
        weights_NPP = torch.bmm(scaled_NPK, k_NPK.transpose(1, 2))
        weights_NPP = (weights_NPP - weights_NPP.max(dim=-1, keepdim=True)[0]) * 32
        gates_BHP8 = attention.gate_linear(q_NPK.view(rows, heads, patches, -1))
        update, reset = gates_BHP8.unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        gate_NP1 = (update * (reset * attention.gate_scale - 1.0) + 2.0).view(-1, patches, 1)
        weights_NPP = weights_NPP + gate_NP1 * bias_NPP
        y_NPK = torch.bmm(F.softmax(weights_NPP.float(), dim=-1).to(x_BPD.dtype), v_NPK)
        y_BPD = y_NPK.view(rows, heads, patches, -1).transpose(1, 2).reshape(rows, patches, width)
        x_BPD = layer.attention_norm(x_BPD * layer.residual_scale + attention.out_proj(y_BPD))
        x_BPD = layer.final_norm(x_BPD * layer.residual_scale + layer.fc2(F.gelu(layer.fc1(x_BPD))))
    return model.audio_projection(model.qformer(model.audio_norm(x_BPD)))
