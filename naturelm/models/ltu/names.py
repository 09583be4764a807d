"""Names of an LTU checkpoint's tensors: as published -> in our module."""

from __future__ import annotations

from naturelm.models.checkpoint import NameTable
from naturelm.models.parts.lora import BASE_NAMES, LORA_NAMES

_MODEL = "base_model.model.model"
ENCODER = f"{_MODEL}.audio_encoder"
"""How the names of the audio encoder's tensors begin."""
_LAYER: dict[str, str | None] = {
    "attn.qkv": "qkv",
    "attn.proj": "out_proj",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    # Norms of video frames, which the encoder was trained with beside sound.
    "norm1_v": None,
    "norm2_v": None,
}

NAMES = NameTable(
    released={
        f"{_MODEL}.audio_encoder.modality_a": "encoder.modality",
        f"{_MODEL}.audio_encoder.pos_embed_a": "encoder.position",
        f"{_MODEL}.audio_encoder.patch_embed_a.proj.weight": "encoder.patch_embedding.weight",
        f"{_MODEL}.audio_encoder.patch_embed_a.proj.bias": "encoder.patch_embedding.bias",
        **{
            f"{_MODEL}.audio_encoder.{blocks}.{{}}.{published}.{kind}": (
                ours and f"encoder.{layers}.{{}}.{ours}.{kind}"
            )
            for blocks, layers, own in (
                # Layers of sound alone use the plain norms, shared layers those for sound.
                (
                    "blocks_a",
                    "audio_layers",
                    {"norm1": "attention_norm", "norm2": "mlp_norm", "norm1_a": None, "norm2_a": None},
                ),
                (
                    "blocks_u",
                    "shared_layers",
                    {"norm1_a": "attention_norm", "norm2_a": "mlp_norm", "norm1": None, "norm2": None},
                ),
            )
            for published, ours in {**_LAYER, **own}.items()
            for kind in ("weight", "bias")
        },
        f"{_MODEL}.audio_encoder.norm_a.weight": "encoder.norm.weight",
        f"{_MODEL}.audio_encoder.norm_a.bias": "encoder.norm.bias",
        f"{_MODEL}.audio_proj.1.weight": "audio_projection.weight",
        f"{_MODEL}.audio_proj.1.bias": "audio_projection.bias",
        **{name: f"llama.{name}" for name in LORA_NAMES},
        f"{_MODEL}.layers.{{}}.self_attn.rotary_emb.inv_freq": None,
    },
    base_llm={name: f"llama.{name}" for name in BASE_NAMES},
)
