"""Names of the tensors of parts that several families have: as published -> in our module, None for unused ones."""

from __future__ import annotations

from collections.abc import Mapping

BEATS_NAMES: dict[str, str | None] = {
    "patch_embedding.weight": "patch_embedding.weight",
    "layer_norm.weight": "patch_norm.weight",
    "layer_norm.bias": "patch_norm.bias",
    "post_extract_proj.weight": "patch_projection.weight",
    "post_extract_proj.bias": "patch_projection.bias",
    "encoder.pos_conv.0.weight_g": "position_conv.weight_g",
    "encoder.pos_conv.0.weight_v": "position_conv.weight_v",
    "encoder.pos_conv.0.bias": "position_conv.bias",
    "encoder.layer_norm.weight": "norm.weight",
    "encoder.layer_norm.bias": "norm.bias",
    "encoder.layers.{}.self_attn.relative_attention_bias.weight": "relative_bias.weight",
    "encoder.layers.{}.self_attn.q_proj.weight": "layers.{}.attention.q_proj.weight",
    "encoder.layers.{}.self_attn.q_proj.bias": "layers.{}.attention.q_proj.bias",
    "encoder.layers.{}.self_attn.k_proj.weight": "layers.{}.attention.k_proj.weight",
    "encoder.layers.{}.self_attn.k_proj.bias": "layers.{}.attention.k_proj.bias",
    "encoder.layers.{}.self_attn.v_proj.weight": "layers.{}.attention.v_proj.weight",
    "encoder.layers.{}.self_attn.v_proj.bias": "layers.{}.attention.v_proj.bias",
    "encoder.layers.{}.self_attn.out_proj.weight": "layers.{}.attention.out_proj.weight",
    "encoder.layers.{}.self_attn.out_proj.bias": "layers.{}.attention.out_proj.bias",
    "encoder.layers.{}.self_attn.grep_linear.weight": "layers.{}.attention.gate_linear.weight",
    "encoder.layers.{}.self_attn.grep_linear.bias": "layers.{}.attention.gate_linear.bias",
    "encoder.layers.{}.self_attn.grep_a": "layers.{}.attention.gate_scale",
    "encoder.layers.{}.self_attn_layer_norm.weight": "layers.{}.attention_norm.weight",
    "encoder.layers.{}.self_attn_layer_norm.bias": "layers.{}.attention_norm.bias",
    "encoder.layers.{}.fc1.weight": "layers.{}.fc1.weight",
    "encoder.layers.{}.fc1.bias": "layers.{}.fc1.bias",
    "encoder.layers.{}.fc2.weight": "layers.{}.fc2.weight",
    "encoder.layers.{}.fc2.bias": "layers.{}.fc2.bias",
    "encoder.layers.{}.final_layer_norm.weight": "layers.{}.final_norm.weight",
    "encoder.layers.{}.final_layer_norm.bias": "layers.{}.final_norm.bias",
    "predictor.weight": None,
    "predictor.bias": None,
}

QFORMER_NAMES: dict[str, str | None] = {
    "bert.embeddings.position_ids": None,
    "bert.embeddings.LayerNorm.weight": "bert.layernorm.weight",
    "bert.embeddings.LayerNorm.bias": "bert.layernorm.bias",
    **{
        f"bert.encoder.layer.{{}}.{published}.{kind}": f"bert.encoder.layer.{{}}.{ours}.{kind}"
        for published, ours in {
            "attention.self.query": "attention.attention.query",
            "attention.self.key": "attention.attention.key",
            "attention.self.value": "attention.attention.value",
            "attention.output.dense": "attention.output.dense",
            "attention.output.LayerNorm": "attention.output.LayerNorm",
            "crossattention.self.query": "crossattention.attention.query",
            "crossattention.self.key": "crossattention.attention.key",
            "crossattention.self.value": "crossattention.attention.value",
            "crossattention.output.dense": "crossattention.output.dense",
            "crossattention.output.LayerNorm": "crossattention.output.LayerNorm",
            "intermediate_query.dense": "intermediate_query.dense",
            "output_query.dense": "output_query.dense",
            "output_query.LayerNorm": "output_query.LayerNorm",
        }.items()
        for kind in ("weight", "bias")
    },
}


def under(published: str, ours: str, names: Mapping[str, str | None]) -> dict[str, str | None]:
    """A part's names where a model has it: each behind the prefix `published`, and `ours` in our module."""
    return {f"{published}{name}": value and f"{ours}{value}" for name, value in names.items()}
