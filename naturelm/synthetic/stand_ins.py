"""Stand-ins for benchmarks without real data: a model of full size, sound and lists of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from naturelm.errors import NaturelmError

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from naturelm.models.base import LanguageModel
    from naturelm.models.parts.weights import Stored

QUESTIONS = (
    "What are the common names for the species in the audio, if any?",
    "Caption the audio.",
    "What is the common name for the focal species in the audio? Answer:",
    "Describe the sounds in the recording.",
    "What is the life stage of the focal species in the audio?",
    "What type of vocalization is heard from the focal species in the audio?",
    "How many species are heard in the recording?",
    "Is there an anthropogenic sound in the recording?",
)
FULL_SIZE = "naturelm-8b"

# An 8B Llama 3.1, as its config.json has it.
_LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


def random_full_size(
    device: str, dtype: torch.dtype, llm_layers: int = 32, weights: str = "auto"
) -> LanguageModel:
    """The released model's shapes with random weights, made directly on a device: nothing to download.

    Its tokenizer is a stand-in that knows the words of `QUESTIONS` and of `made_up_labels` as one token each, so
    prompts are about as long as the real one makes them, and labels have 4 to 6 tokens. Random weights hardly
    ever end an answer: every answer has `max_new_tokens` tokens.

    Parameters
    ----------
    device : str
        Where to make it.
    dtype : torch.dtype
        Of the weights.
    llm_layers : int
        Layers of the language model; fewer than 32 where the memory is small.
    weights : str
        As of `naturelm.load_model`. Matrices in 8 bits are made one after the other.
    """
    import torch
    from transformers import LlamaConfig

    from naturelm.models.presets import family_of, resolve

    model_class = family_of(resolve(FULL_SIZE)).load()
    tokenizer = _stand_in_tokenizer()
    config = LlamaConfig(
        **{**_LLAMA_8B, "num_hidden_layers": llm_layers},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    settings = model_class.config_from({}, FULL_SIZE)
    if weights in ("auto", "bf16"):
        return model_class.from_config(settings, config, tokenizer, device=device, dtype=dtype)
    llama = _random_quantized(config, weights, torch.device(device), dtype)
    with torch.device(device):
        return model_class(settings, llama, tokenizer, merged=True).to_dtype(dtype)


def _random_quantized(
    config: LlamaConfig, weights: str, device: torch.device, dtype: torch.dtype
) -> LlamaForCausalLM:
    import torch

    from naturelm.models.parts.llama import new_llama
    from naturelm.models.parts.quantized import quantized_llama
    from naturelm.models.parts.weights import weight_kind

    kind = weight_kind(weights, device)
    shapes = {
        name: parameter.shape for name, parameter in new_llama(config, dtype, "meta").named_parameters()
    }

    def plain(name: str) -> torch.Tensor:
        if len(shapes[name]) == 1:
            return torch.ones(shapes[name])
        return torch.empty(shapes[name], device=device, dtype=dtype).normal_(std=config.initializer_range)

    def stored(layer: str) -> Stored:
        return kind.store(plain(f"{layer}.weight"))

    return quantized_llama(config, kind, dtype, device, plain, stored)


def made_up_windows(model: LanguageModel, count: int) -> np.ndarray:
    """Windows ``[count, samples]`` with each of the sounds made by code, quiet and loud, and with none."""
    from naturelm.synthetic.sounds import SOUNDS, background

    rng = np.random.default_rng(0)
    rate, samples = model.sample_rate_hz, model.natural_window_samples
    kinds = [*SOUNDS.values(), background]
    distinct = [
        kinds[i % len(kinds)](rng, rate, model.natural_window_s)[:samples] * rng.uniform(0.2, 1)
        for i in range(min(count, 33))
    ]
    return np.stack([distinct[i % len(distinct)] for i in range(count)]).astype(np.float32)


def made_up_labels(count: int) -> tuple[str, ...]:
    """Names that share words as lists of species do."""
    colours = ("Green", "Grey", "Great", "Red", "Black", "Brown", "White", "Golden", "Spotted", "Common")
    parts = (
        "throated",
        "headed",
        "backed",
        "tailed",
        "eared",
        "winged",
        "bellied",
        "crowned",
        "billed",
        "eyed",
    )
    animals = (
        "Treefrog", "Owl", "Bat", "Bunting", "Gibbon", "Whale", "Warbler", "Wren", "Cricket", "Toad",
        "Thrush", "Plover", "Sparrow", "Dolphin", "Lemur", "Cicada", "Heron", "Petrel", "Tern", "Kinglet",
    )  # fmt: skip
    names = [f"{c}-{p} {a}" for a in animals for c in colours for p in parts]
    if count > len(names):
        raise NaturelmError(f"{count} labels are more than the {len(names)} that can be made up; give fewer")
    return tuple(names[:count])


def _stand_in_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|end_of_text|>",
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*QUESTIONS, *made_up_labels(2000), "user assistant \n\n <Audio> </Audio>"]
    tokenizer.train_from_iterator(texts * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1])
