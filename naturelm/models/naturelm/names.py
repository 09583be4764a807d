"""Names of a NatureLM-audio checkpoint's tensors: as published -> in our module."""

from __future__ import annotations

from naturelm.models.checkpoint import NameTable
from naturelm.models.parts.lora import BASE_NAMES, EMBEDDING, LORA_NAMES

NAMES = NameTable(
    released={
        # BEATs
        "beats.patch_embedding.weight": "beats.patch_embedding.weight",
        "beats.layer_norm.weight": "beats.patch_norm.weight",
        "beats.layer_norm.bias": "beats.patch_norm.bias",
        "beats.post_extract_proj.weight": "beats.patch_projection.weight",
        "beats.post_extract_proj.bias": "beats.patch_projection.bias",
        "beats.encoder.pos_conv.0.weight_g": "beats.position_conv.weight_g",
        "beats.encoder.pos_conv.0.weight_v": "beats.position_conv.weight_v",
        "beats.encoder.pos_conv.0.bias": "beats.position_conv.bias",
        "beats.encoder.layer_norm.weight": "beats.norm.weight",
        "beats.encoder.layer_norm.bias": "beats.norm.bias",
        "beats.encoder.layers.{}.self_attn.relative_attention_bias.weight": "beats.relative_bias.weight",
        "beats.encoder.layers.{}.self_attn.q_proj.weight": "beats.layers.{}.attention.q_proj.weight",
        "beats.encoder.layers.{}.self_attn.q_proj.bias": "beats.layers.{}.attention.q_proj.bias",
        "beats.encoder.layers.{}.self_attn.k_proj.weight": "beats.layers.{}.attention.k_proj.weight",
        "beats.encoder.layers.{}.self_attn.k_proj.bias": "beats.layers.{}.attention.k_proj.bias",
        "beats.encoder.layers.{}.self_attn.v_proj.weight": "beats.layers.{}.attention.v_proj.weight",
        "beats.encoder.layers.{}.self_attn.v_proj.bias": "beats.layers.{}.attention.v_proj.bias",
        "beats.encoder.layers.{}.self_attn.out_proj.weight": "beats.layers.{}.attention.out_proj.weight",
        "beats.encoder.layers.{}.self_attn.out_proj.bias": "beats.layers.{}.attention.out_proj.bias",
        "beats.encoder.layers.{}.self_attn.grep_linear.weight": "beats.layers.{}.attention.gate_linear.weight",
        "beats.encoder.layers.{}.self_attn.grep_linear.bias": "beats.layers.{}.attention.gate_linear.bias",
        "beats.encoder.layers.{}.self_attn.grep_a": "beats.layers.{}.attention.gate_scale",
        "beats.encoder.layers.{}.self_attn_layer_norm.weight": "beats.layers.{}.attention_norm.weight",
        "beats.encoder.layers.{}.self_attn_layer_norm.bias": "beats.layers.{}.attention_norm.bias",
        "beats.encoder.layers.{}.fc1.weight": "beats.layers.{}.fc1.weight",
        "beats.encoder.layers.{}.fc1.bias": "beats.layers.{}.fc1.bias",
        "beats.encoder.layers.{}.fc2.weight": "beats.layers.{}.fc2.weight",
        "beats.encoder.layers.{}.fc2.bias": "beats.layers.{}.fc2.bias",
        "beats.encoder.layers.{}.final_layer_norm.weight": "beats.layers.{}.final_norm.weight",
        "beats.encoder.layers.{}.final_layer_norm.bias": "beats.layers.{}.final_norm.bias",
        "beats.predictor.weight": None,
        "beats.predictor.bias": None,
        "ln_audio.weight": "audio_norm.weight",
        "ln_audio.bias": "audio_norm.bias",
        # Q-Former
        "audio_query_tokens": "qformer.queries",
        "audio_Qformer.bert.embeddings.position_ids": None,
        "audio_Qformer.bert.embeddings.LayerNorm.weight": "qformer.bert.layernorm.weight",
        "audio_Qformer.bert.embeddings.LayerNorm.bias": "qformer.bert.layernorm.bias",
        **{
            f"audio_Qformer.bert.encoder.layer.{{}}.{published}.{kind}": (
                f"qformer.bert.encoder.layer.{{}}.{ours}.{kind}"
            )
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
        "audio_llama_proj.weight": "audio_projection.weight",
        "audio_llama_proj.bias": "audio_projection.bias",
        # Language model: adapters, and the embedding of a vocabulary that may have one token more than the base's
        "llama_embed_tokens.weight": f"llama.{EMBEDDING}",
        **{f"llama_model.{name}": f"llama.{name}" for name in LORA_NAMES},
    },
    base_llm={f"llama_model.{name}": f"llama.{name}" for name in BASE_NAMES},
)
