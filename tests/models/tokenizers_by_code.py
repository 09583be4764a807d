"""Tokenizers of every kind that base LLMs come with, trained by code on a few lines."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

LLAMA_3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA_2_SPECIAL = ("<unk>", "<s>", "</s>", "[PAD]")
LINES = [
    "What is the common name for the focal species in the audio? Green Treefrog, Barred Owl, None",
    "USER: <Speech></Speech> Caption the audio.\nASSISTANT: Birds sing </s> <|eot_id|> <|eot_id|> </s>",
    "### Instruction:\nIs there a bat?\n\n### Response:\n<Audio></Audio> [PAD] [PAD] <unk> <s>",
]


def byte_level() -> Any:
    """As Llama 3's: bytes, cut by a regular expression before they are merged."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in LLAMA_3_SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )


def byte_level_with_names() -> Any:
    """Byte-level, with tokens' names in its vocabulary and merges that lead to them, and one that is not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    lines = [name for name in (*LLAMA_3_SPECIAL, "<Audio>") for _ in range(20)]
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    assert all(name in tokenizer.get_vocab() for name in (*LLAMA_3_SPECIAL, "<Audio>"))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in LLAMA_3_SPECIAL])
    tokenizer.add_tokens([AddedToken("<Audio>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )


def sentencepiece_style(metaspace: bool = False) -> Any:
    """As Llama 2's: spaces written as ``▁``, one before all; unknown characters as bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=[*LLAMA_2_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
        ),
    )
    # The trainer adds the bytes' tokens as special ones, which Llama 2's are not.
    state = tokenizer.to_str()
    tokenizer = Tokenizer.from_str(_without_byte_specials(state))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="[PAD]"
    )


def _without_byte_specials(state: str) -> str:
    import json

    values = json.loads(state)
    values["added_tokens"] = [
        token for token in values["added_tokens"] if not token["content"].startswith("<0x")
    ]
    return json.dumps(values)


KINDS = {
    "byte-level": byte_level(),
    "byte-level with names in its vocabulary": byte_level_with_names(),
    "SentencePiece-style": sentencepiece_style(),
    "SentencePiece-style with Metaspace": sentencepiece_style(metaspace=True),
}
