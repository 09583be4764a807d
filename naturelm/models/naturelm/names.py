"""Names of a NatureLM-audio checkpoint's tensors: as published -> in our module."""

from __future__ import annotations

from naturelm.models.checkpoint import NameTable
from naturelm.models.parts.lora import BASE_NAMES, EMBEDDING, LORA_NAMES
from naturelm.models.parts.names import BEATS_NAMES, QFORMER_NAMES, under

NAMES = NameTable(
    released={
        **under("beats.", "beats.", BEATS_NAMES),
        "ln_audio.weight": "audio_norm.weight",
        "ln_audio.bias": "audio_norm.bias",
        "audio_query_tokens": "qformer.queries",
        **under("audio_Qformer.", "qformer.", QFORMER_NAMES),
        "audio_llama_proj.weight": "audio_projection.weight",
        "audio_llama_proj.bias": "audio_projection.bias",
        # Language model: adapters, and the embedding of a vocabulary that may have one token more than the base's
        "llama_embed_tokens.weight": f"llama.{EMBEDDING}",
        **{f"llama_model.{name}": f"llama.{name}" for name in LORA_NAMES},
    },
    base_llm={f"llama_model.{name}": f"llama.{name}" for name in BASE_NAMES},
)
