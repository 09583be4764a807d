"""NatureLM-audio: an audio-language model for bioacoustics (Robinson et al. 2024, arXiv 2411.07186).

Sound -> BEATs -> window-level Q-Former -> projection -> tokens among a prompt's words -> Llama with LoRA.

Axes: B batch · S samples · P patches · A audio tokens · T tokens · D the LLM's width · V vocabulary
"""

from __future__ import annotations

import json
import math
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from naturelm.errors import NaturelmError
from naturelm.models import checkpoint as weights
from naturelm.models import presets
from naturelm.models.answer import Answer, AnswerDecoder
from naturelm.models.naturelm.config import NatureLMConfig
from naturelm.models.parts.beats import Beats
from naturelm.models.parts.llama import load_llama, load_tokenizer, save_llama
from naturelm.models.parts.qformer import WindowQFormer
from naturelm.models.prompts import PromptTokens, tokenize


class NatureLM(nn.Module):
    """An audio branch, and a language model that reads its tokens.

    Parameters
    ----------
    config
        Sizes and settings.
    llama
        The base language model; LoRA layers are put into it.
    tokenizer
        The language model's tokenizer.

    Attributes
    ----------
    llama : PeftModel
        The language model with LoRA.
    window_s, sample_rate_hz : float, int
        Sound heard at once; shorter sound is padded with silence, longer sound cut.
    end_token_ids : tuple of int
        Tokens that end an answer.
    """

    def __init__(self, config: NatureLMConfig, llama: LlamaForCausalLM, tokenizer: Any) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.window_s, self.sample_rate_hz = config.window_s, config.sample_rate_hz
        self.beats = Beats(config.beats)
        self.audio_norm = nn.LayerNorm(config.beats.encoder_embed_dim)
        self.qformer = WindowQFormer(
            config.qformer,
            config.beats.encoder_embed_dim,
            config.num_audio_query_token,
            config.window_patches,
            config.stride_patches,
        )
        if self.audio_tokens < 1:
            raise NaturelmError(
                f"a window of {config.window_s:g} s gives no audio tokens; give a longer window_s"
            )
        self.audio_projection = nn.Linear(config.qformer.hidden_size, llama.config.hidden_size)
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=list(config.lora_targets),
        )
        with warnings.catch_warnings():
            # peft asks transformers for a property that is on its way out.
            warnings.simplefilter("ignore", FutureWarning)
            self.llama = cast(PeftModel, get_peft_model(llama, lora))
        self._merging_alpha = 1.0
        self.end_token_ids = _end_token_ids(llama, tokenizer, config.end_sym)
        self._decoder = AnswerDecoder(tokenizer)
        self.eval()

    # -- making, loading, saving -----------------------------------------------------------------------------

    @classmethod
    def from_config(
        cls,
        config: NatureLMConfig,
        llm_config: LlamaConfig,
        tokenizer: Any,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> NatureLM:
        """A model with random weights, made directly on a device (``"meta"`` for names and shapes only)."""
        with torch.device(device):
            llama = LlamaForCausalLM._from_config(llm_config, dtype=dtype)
            return cls(config, llama, tokenizer).to_dtype(dtype)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        llm: str | Path | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        merging_alpha: float = 1.0,
    ) -> NatureLM:
        """Load a checkpoint in the published layout.

        Parameters
        ----------
        path
            Preset name (``"pocket"``), local directory, or hub id.
        llm
            Base language model, directory or hub id; by default what ``config.json`` names, resolved against
            the checkpoint's directory where that is a relative path.
        device
            By default the GPU where there is one.
        dtype
            Of the weights; by default bfloat16 on a GPU and float32 elsewhere. Adapters stay float32.
        merging_alpha
            See :attr:`merging_alpha`.

        Raises
        ------
        NaturelmError
            If the checkpoint is not there, gated, damaged or of other shapes than it says.
        """
        device = _device(device)
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        model = cls.read(path, llm, dtype)
        model.merging_alpha = merging_alpha
        return model.to_dtype(dtype).to(device)

    @classmethod
    def read(
        cls, path: str | Path, llm: str | Path | None = None, llm_dtype: torch.dtype = torch.float32
    ) -> NatureLM:
        """As :meth:`from_pretrained`, on the CPU: the base LLM in `llm_dtype`, all that is trained in float32."""
        directory = presets.fetch(presets.resolve(path))
        config = NatureLMConfig.from_file(directory / "config.json")
        llm_directory = presets.fetch_llm(llm if llm is not None else config.llama_path, directory)
        model = cls(config, load_llama(llm_directory, llm_dtype), load_tokenizer(llm_directory))
        tensors = weights.read_tensors(directory / "model.safetensors")
        model._fit_embedding(tensors)
        weights.load_published(model, tensors, str(directory / "model.safetensors"))
        return model

    def save_pretrained(
        self, directory: str | Path, with_llm: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        """Write ``model.safetensors`` and ``config.json`` in the published layout.

        Parameters
        ----------
        directory
            Made where it is missing.
        with_llm
            Also write the base LLM and its tokenizer to ``directory/llm``, named in ``config.json``;
            otherwise ``config.json`` names what it named before.
        dtype
            Of the written weights; by default as they are. float16 halves the files at next to no loss.
        """
        from safetensors.torch import save_file

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        values = self.config.to_dict()
        if with_llm:
            values["llama_path"] = "llm"
            save_llama(self._plain_llama(merged=False, dtype=dtype), self.tokenizer, directory / "llm")
        (directory / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        tensors = weights.published_tensors(self)
        if dtype is not None:
            tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        # safetensors lets only the owner read its files; these are as readable as the others.
        mode = stat.S_IMODE((directory / "config.json").stat().st_mode)
        llm_files = (directory / "llm").glob("*.safetensors") if with_llm else ()
        for path in (directory / "model.safetensors", *llm_files):
            path.chmod(mode)

    def to_dtype(self, dtype: torch.dtype) -> NatureLM:
        """Cast all weights but the adapters, whose product with the base is formed in float32."""
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(torch.float32 if "lora_" in name else dtype)
        return self

    # -- sound -----------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.audio_projection.weight.device

    @property
    def audio_tokens(self) -> int:
        """Tokens that a window becomes (29 for 10 s)."""
        return self.qformer.token_count(self.config.beats.patch_count(self.config.window_samples))

    def fit_window(self, waveforms_BS: Tensor) -> Tensor:
        """Clamp to [-1, 1] and pad with silence, or cut, to the window; float32 on the model's device."""
        waveforms_BS = torch.as_tensor(waveforms_BS, device=self.device, dtype=torch.float32)
        if waveforms_BS.ndim != 2:
            raise NaturelmError(
                f"waveforms have shape {list(waveforms_BS.shape)}; give [windows, samples], one channel each"
            )
        missing = self.config.window_samples - waveforms_BS.shape[1]
        return F.pad(waveforms_BS, (0, missing)).clamp(-1.0, 1.0)

    def encode_audio(self, waveforms_BS: Tensor) -> Tensor:
        """Audio tokens of sound.

        Parameters
        ----------
        waveforms_BS
            float32 ``[batch, samples]`` at 16 kHz; padded or cut to the window.

        Returns
        -------
        Tensor
            ``[batch, audio tokens, width of the language model]``.
        """
        features_BPD = self.audio_norm(self.beats(self.fit_window(waveforms_BS)))
        return self.audio_projection(self.qformer(features_BPD))

    # -- prompts ---------------------------------------------------------------------------------------------

    def prompt_tokens(self, query: str) -> PromptTokens:
        """Token ids before and after the sound."""
        return tokenize(query, self.tokenizer, self.config.prompt_template)

    def embed_tokens(self, token_ids: Sequence[int] | Tensor) -> Tensor:
        """Embeddings ``[tokens, width]`` of token ids."""
        ids = torch.as_tensor(token_ids, dtype=torch.long, device=self.device)
        return self.language_model.get_input_embeddings()(ids)

    def embed_prompts(
        self, audio_BAD: Tensor, prompts: Sequence[str], answers: Sequence[Sequence[int]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rows of BOS, header, sound and query (and an answer's tokens), padded on the left.

        Padding on the right, as published, puts it between query and answer and changes what is answered.

        Returns
        -------
        tuple of Tensor
            ``inputs_embeds [batch, tokens, width]`` and ``attention_mask [batch, tokens]``.
        """
        if len(prompts) != audio_BAD.shape[0]:
            raise NaturelmError(f"{len(prompts)} prompts for {audio_BAD.shape[0]} windows; give one for each")
        rows = []
        for i, prompt in enumerate(prompts):
            tokens = self.prompt_tokens(prompt)
            after = [*tokens.tail, *(answers[i] if answers else ())]
            rows.append(torch.cat([self.embed_tokens(tokens.head), audio_BAD[i], self.embed_tokens(after)]))
        longest = max(len(row) for row in rows)
        embeds_BTD = torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask_BT = torch.arange(longest, device=self.device) >= (longest - lengths).unsqueeze(1)
        return embeds_BTD, mask_BT.long()

    # -- training --------------------------------------------------------------------------------------------

    def loss(self, waveforms_BS: Tensor, prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
        """Cross-entropy of the answers, end token included: the mean over all their tokens."""
        log_probs = self._answer_log_probs(self.encode_audio(waveforms_BS), prompts, self._targets(texts))
        return -torch.cat(log_probs).mean()

    def per_example_loss(self, waveforms_BS: Tensor, prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
        """As :meth:`loss`, the mean over each answer's tokens: ``[batch]``."""
        log_probs = self._answer_log_probs(self.encode_audio(waveforms_BS), prompts, self._targets(texts))
        return -torch.stack([row.mean() for row in log_probs])

    def _targets(self, texts: Sequence[str]) -> list[list[int]]:
        end = self.tokenizer.convert_tokens_to_ids(self.config.end_sym)
        limit = self.config.max_txt_len
        encoded = self.tokenizer(list(texts), add_special_tokens=False).input_ids
        return [[*ids[: limit - 1], end] for ids in encoded]

    def _answer_log_probs(
        self, audio_BAD: Tensor, prompts: Sequence[str], answers: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Log-probability of each token of each answer, float32, given what stands before it."""
        embeds_BTD, mask_BT = self.embed_prompts(audio_BAD, prompts, answers)
        longest = max(len(answer) for answer in answers)
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        # Rows end together, so the last positions hold every answer; a token is scored one before it.
        logits_BTV = self.llama(
            inputs_embeds=embeds_BTD,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            logits_to_keep=longest + 1,
        ).logits[:, :-1]
        out = []
        for logits_TV, answer in zip(logits_BTV, answers, strict=True):
            ids_T = torch.tensor(answer, device=logits_TV.device)
            logits_TV = logits_TV[longest - len(answer) :].float()
            chosen_T = logits_TV.gather(1, ids_T.unsqueeze(1)).squeeze(1)
            out.append(chosen_T - logits_TV.logsumexp(-1))
        return out

    # -- answering -------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(
        self,
        waveforms_BS: Tensor,
        prompts: Sequence[str],
        max_new_tokens: int = 300,
        num_beams: int = 2,
        together: bool = False,
    ) -> list[Answer]:
        """Answer one prompt about each window; a batch answers as each window would alone.

        The plain way, through transformers: what :mod:`naturelm.engine.engine` is checked against.

        Parameters
        ----------
        waveforms_BS
            float32 ``[batch, samples]`` at 16 kHz.
        prompts
            One for each window.
        max_new_tokens, num_beams
            Longest answer in tokens; 1 beam is greedy search. No sampling.
        together
            Go on until every process of the group is done: needed where weights are sharded over them.
        """
        if max_new_tokens < 1 or num_beams < 1:
            raise NaturelmError(
                f"max_new_tokens is {max_new_tokens} and num_beams {num_beams}; both must be at least 1"
            )
        audio_BAD = self.encode_audio(waveforms_BS)
        embeds_BTD, mask_BT = self.embed_prompts(audio_BAD, prompts)
        generated_BT = self.llama.generate(
            inputs_embeds=embeds_BTD,
            attention_mask=mask_BT,
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            do_sample=False,
            temperature=None,
            top_p=None,
            eos_token_id=list(self.end_token_ids),
            pad_token_id=self.end_token_ids[0],
            synced_gpus=together,
        )
        # With the end token, where the answer has one: its probability scores an answer without any other.
        rows = [self._until_end(row) for row in generated_BT.tolist()]
        log_probs = self._answer_log_probs(audio_BAD, prompts, rows)
        return [self.make_answer(row, scores.tolist()) for row, scores in zip(rows, log_probs, strict=True)]

    def make_answer(self, token_ids: Sequence[int], log_probs: Sequence[float]) -> Answer:
        """An answer of generated tokens and their log-probabilities; the end token may close them or not."""
        if token_ids and token_ids[-1] in self.end_token_ids:
            return self._decoder.answer(token_ids[:-1], log_probs[:-1], end_log_prob=log_probs[-1])
        return self._decoder.answer(token_ids, log_probs)

    def _until_end(self, token_ids: list[int]) -> list[int]:
        ends = (i for i, token_id in enumerate(token_ids) if token_id in self.end_token_ids)
        return token_ids[: next(ends, len(token_ids)) + 1]

    # -- the language model ----------------------------------------------------------------------------------

    @property
    def language_model(self) -> LlamaForCausalLM:
        """The Llama inside, its LoRA layers in place."""
        return cast(LlamaForCausalLM, self.llama.get_base_model())

    @property
    def merging_alpha(self) -> float:
        """Share of the adapters in the language model: 1 as trained, 0 the base LLM (arXiv 2511.05171).

        0.4 to 0.6 follows instructions better, 1.0 names species best. May be set again at any time.
        """
        return self._merging_alpha

    @merging_alpha.setter
    def merging_alpha(self, value: float) -> None:
        if not (math.isfinite(value) and 0.0 <= value <= 1.0):
            raise NaturelmError(
                f"merging_alpha is {value}; give a number from 0 (base LLM) to 1 (as trained)"
            )
        for layer in self.llama.modules():
            if isinstance(layer, LoraLayer):
                # From the settings each time, so that no rounding or earlier value stays behind.
                layer.scaling["default"] = value * self.config.lora_alpha / self.config.lora_rank
        self._merging_alpha = float(value)

    @torch.no_grad()
    def merged_language_model(self, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
        """A plain Llama for inference, the adapters added at the present ``merging_alpha``.

        The sum is formed in float32 and then cast, by default to the base's type. This model stays as it is;
        tensors without adapters are shared with it.
        """
        return self._plain_llama(merged=True, dtype=dtype)

    @torch.no_grad()
    def _plain_llama(self, merged: bool, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
        source = self.language_model
        dtype = dtype or source.dtype
        tensors: dict[str, Tensor] = {}
        for name, tensor in source.state_dict().items():
            if "lora_" in name:
                continue
            layer = source.get_submodule(name.rsplit(".", 2)[0]) if ".base_layer." in name else None
            if merged and isinstance(layer, LoraLayer):
                tensor = tensor.float() + layer.get_delta_weight("default").float()
            tensors[name.replace(".base_layer.", ".")] = tensor.to(dtype)
        with torch.device("meta"):
            plain = LlamaForCausalLM._from_config(source.config, dtype=dtype)
            plain.model.embed_tokens = nn.Embedding(*tensors["model.embed_tokens.weight"].shape)
        plain.load_state_dict(tensors, strict=True, assign=True)
        # Made on the meta device, so its table of rotations is empty; the source's is the same.
        plain.model.rotary_emb = source.model.rotary_emb
        plain.generation_config = source.generation_config
        return plain.eval()

    def _fit_embedding(self, tensors: dict[str, Tensor]) -> None:
        """Releases may embed one token ([PAD]) more than the base LLM; it is kept, and never generated."""
        embedding = self.language_model.get_input_embeddings()
        released = tensors.get("llama_embed_tokens.weight")
        if released is not None and released.shape == (embedding.num_embeddings + 1, embedding.embedding_dim):
            larger = nn.Embedding(
                *released.shape, dtype=embedding.weight.dtype, device=embedding.weight.device
            )
            larger.weight.requires_grad_(embedding.weight.requires_grad)
            self.language_model.set_input_embeddings(larger)


def _device(asked: torch.device | str | None) -> torch.device:
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        usable = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise NaturelmError(
            f"device {str(asked)!r} cannot be used here; give {' or '.join(usable)}"
        ) from None
    return device


def _end_token_ids(llama: LlamaForCausalLM, tokenizer: Any, end_sym: str) -> tuple[int, ...]:
    """What ends an answer: the base LLM's own end tokens, the tokenizer's, and the one of training."""
    generation = llama.generation_config.eos_token_id if llama.generation_config else None
    own = generation if isinstance(generation, list) else [generation]
    trained = tokenizer.convert_tokens_to_ids(end_sym)
    if trained is None or trained == tokenizer.unk_token_id:
        raise NaturelmError(
            f"the tokenizer has no token {end_sym!r}, which ends answers; give the LLM of this checkpoint"
        )
    ends = [trained, tokenizer.eos_token_id, *own]
    return tuple(dict.fromkeys(int(i) for i in ends if i is not None))
