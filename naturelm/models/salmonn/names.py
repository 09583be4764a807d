"""Names of a SALMONN checkpoint's tensors: as published -> in our module."""

from __future__ import annotations

from naturelm.models.checkpoint import NameTable
from naturelm.models.parts.lora import BASE_NAMES, LORA_NAMES
from naturelm.models.parts.names import BEATS_NAMES, QFORMER_NAMES, under

NAMES = NameTable(
    released={
        "speech_encoder.conv1.weight": "whisper.encoder.conv1.weight",
        "speech_encoder.conv1.bias": "whisper.encoder.conv1.bias",
        "speech_encoder.conv2.weight": "whisper.encoder.conv2.weight",
        "speech_encoder.conv2.bias": "whisper.encoder.conv2.bias",
        "speech_encoder.embed_positions.weight": "whisper.encoder.embed_positions.weight",
        **{
            f"speech_encoder.layers.{{}}.{name}": f"whisper.encoder.layers.{{}}.{name}"
            for name in (
                "self_attn.q_proj.weight",
                "self_attn.q_proj.bias",
                "self_attn.k_proj.weight",
                "self_attn.v_proj.weight",
                "self_attn.v_proj.bias",
                "self_attn.out_proj.weight",
                "self_attn.out_proj.bias",
                "self_attn_layer_norm.weight",
                "self_attn_layer_norm.bias",
                "fc1.weight",
                "fc1.bias",
                "fc2.weight",
                "fc2.bias",
                "final_layer_norm.weight",
                "final_layer_norm.bias",
            )
        },
        "speech_encoder.layer_norm.weight": "whisper.encoder.layer_norm.weight",
        "speech_encoder.layer_norm.bias": "whisper.encoder.layer_norm.bias",
        **under("beats.", "beats.", BEATS_NAMES),
        "ln_speech.weight": "speech_norm.weight",
        "ln_speech.bias": "speech_norm.bias",
        "ln_audio.weight": "audio_norm.weight",
        "ln_audio.bias": "audio_norm.bias",
        "speech_query_tokens": "qformer.queries",
        **under("speech_Qformer.", "qformer.", QFORMER_NAMES),
        "speech_llama_proj.weight": "audio_projection.weight",
        "speech_llama_proj.bias": "audio_projection.bias",
        **{f"llama_model.{name}": f"llama.{name}" for name in LORA_NAMES},
        # Tables of rotations, which older versions of transformers stored.
        "llama_model.base_model.model.model.layers.{}.self_attn.rotary_emb.inv_freq": None,
    },
    base_llm={f"llama_model.{name}": f"llama.{name}" for name in BASE_NAMES},
)
