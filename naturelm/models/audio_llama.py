"""An audio branch before a Llama with LoRA: what the families of language models share.

Sound -> encoder (features) -> projection -> audio tokens among a prompt's words -> Llama. A family brings the audio
branch, its settings, its names of tensors and its way of writing prompts; see docs/contributing/adding-a-model.md.

Axes: B windows of sound · S samples · P positions of the encoder's output · E their width · A audio tokens ·
D width of the language model · R rows, one for each question · T tokens · V vocabulary
"""

from __future__ import annotations

import json
import math
import stat
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from naturelm.errors import NaturelmError
from naturelm.models import checkpoint, presets
from naturelm.models.answer import Answer, AnswerDecoder
from naturelm.models.base import AnswerScores, LanguageModel
from naturelm.models.checkpoint import NameTable
from naturelm.models.config import LanguageModelConfig
from naturelm.models.parts import lora
from naturelm.models.parts.llama import load_llama, load_tokenizer, new_llama, save_llama
from naturelm.models.prompts import PromptLayout, PromptTokens
from naturelm.models.tokens import TextTokenizer

_NO_TARGET = -100


class AudioLlama(LanguageModel):
    """A language model around a Llama; a family adds the audio branch.

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
    layout : PromptLayout
        How prompts are written. A family may set another.
    config_class, names
        The family's settings, and its names of published tensors.
    audio_parts
        Parts of the audio branch, in the order in which sound goes through them: name -> its modules' names.
    audio_layers
        Part -> name of the list of its transformer layers.
    """

    config_class: ClassVar[type[LanguageModelConfig]]
    names: ClassVar[NameTable]
    audio_parts: ClassVar[Mapping[str, tuple[str, ...]]]
    audio_layers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: LanguageModelConfig, llama: LlamaForCausalLM, tokenizer: Any) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.window_s = self.natural_window_s = config.window_s
        self.sample_rate_hz = config.sample_rate_hz
        self.layout = PromptLayout(config.prompt_template)
        self._merging_alpha = 1.0
        self._text = TextTokenizer(tokenizer)
        self._decoder = AnswerDecoder(tokenizer)
        self.make_audio_branch(llama.config.hidden_size)
        self.llama = lora.add_lora(
            llama, config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_targets
        )
        self.end_token_ids = _end_token_ids(llama, tokenizer, config.end_sym)
        self.eval()

    @abstractmethod
    def make_audio_branch(self, token_width: int) -> None:
        """Make the modules that `audio_parts` names; audio tokens are `token_width` wide."""

    # -- loading and saving ----------------------------------------------------------------------------------

    @classmethod
    def config_from(cls, values: Mapping[str, Any], where: str) -> LanguageModelConfig:
        return cls.config_class.from_dict(values, where)

    @classmethod
    def from_config(
        cls,
        config: LanguageModelConfig,
        llm: LlamaForCausalLM | LlamaConfig,
        tokenizer: Any,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        if isinstance(llm, LlamaConfig):
            llm = new_llama(llm, dtype, device)
        with torch.device(device):
            return cls(config, llm, tokenizer).to_dtype(dtype)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        llm: str | Path | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        merging_alpha: float = 1.0,
    ) -> Self:
        device = _device(device)
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        model = cls.read(path, llm, dtype)
        model.merging_alpha = merging_alpha
        return model.to_dtype(dtype).to(device)

    @classmethod
    def read(
        cls, path: str | Path, llm: str | Path | None = None, llm_dtype: torch.dtype = torch.float32
    ) -> Self:
        directory = presets.fetch(presets.resolve(path))
        values = presets.read_config(directory / "config.json")
        family = presets.family_in(values, str(directory / "config.json"))
        if not issubclass(cls, family.load()):
            raise NaturelmError(
                f"{directory}: holds a model of the family {family.name}, not {cls.__name__}; load it with "
                "naturelm.load_model"
            )
        config = cls.config_from(values, str(directory / "config.json"))
        llm_directory = presets.fetch_llm(llm if llm is not None else config.llama_path, directory)
        model = cls(config, load_llama(llm_directory, llm_dtype), load_tokenizer(llm_directory))
        tensors = checkpoint.read_tensors(directory / "model.safetensors")
        model._fit_embedding(tensors)
        checkpoint.load_published(model, tensors, cls.names, str(directory / "model.safetensors"))
        return model

    def save_pretrained(
        self, directory: str | Path, with_llm: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        from safetensors.torch import save_file

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        values = self.config.to_dict()
        if with_llm:
            values["llama_path"] = "llm"
            save_llama(lora.plain_llama(self.language_model, dtype=dtype), self.tokenizer, directory / "llm")
        (directory / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        tensors = checkpoint.published_tensors(self, self.names)
        if dtype is not None:
            tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        # safetensors lets only the owner read its files; these are as readable as the others.
        mode = stat.S_IMODE((directory / "config.json").stat().st_mode)
        llm_files = (directory / "llm").glob("*.safetensors") if with_llm else ()
        for path in (directory / "model.safetensors", *llm_files):
            path.chmod(mode)

    def to_dtype(self, dtype: torch.dtype) -> Self:
        """Cast all weights but the adapters, whose product with the base is formed in float32."""
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(torch.float32 if "lora_" in name else dtype)
        return self

    @property
    def device(self) -> torch.device:
        return self._audio_weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._audio_weight.dtype

    @property
    def _audio_weight(self) -> Tensor:
        """The last weight of the audio branch."""
        return list(self.audio_modules()[-1].parameters())[-1]

    # -- sound -----------------------------------------------------------------------------------------------

    @property
    def token_width(self) -> int:
        return self.language_model.config.hidden_size

    def audio_modules(self) -> list[nn.Module]:
        return [self.get_submodule(name) for names in self.audio_parts.values() for name in names]

    def check_waveforms(self, waveforms_BS: Tensor) -> Tensor:
        """Sound as float32 on the model's device.

        Raises
        ------
        NaturelmError
            If it has another shape than ``[windows, samples]``.
        """
        waveforms_BS = torch.as_tensor(waveforms_BS, device=self.device, dtype=torch.float32)
        if waveforms_BS.ndim != 2:
            raise NaturelmError(
                f"waveforms have shape {list(waveforms_BS.shape)}; give [windows, samples], one channel each"
            )
        return waveforms_BS

    def fit_window(self, waveforms_BS: Tensor) -> Tensor:
        """Clamp sound to [-1, 1] and pad it with silence, or cut it, to the natural window."""
        waveforms_BS = self.check_waveforms(waveforms_BS)
        missing = self.natural_window_samples - waveforms_BS.shape[1]
        return F.pad(waveforms_BS, (0, missing)).clamp(-1.0, 1.0)

    # -- words -----------------------------------------------------------------------------------------------

    def prompt_tokens(self, query: str) -> PromptTokens:
        return self.layout.tokens(query, self._text, begin=(self.tokenizer.bos_token_id,))

    def text_tokens(self, text: str) -> tuple[int, ...]:
        return self._text.text_tokens(text)

    def make_answer(self, token_ids: Sequence[int], log_probs: Sequence[float]) -> Answer:
        if token_ids and token_ids[-1] in self.end_token_ids:
            return self._decoder.answer(token_ids[:-1], log_probs[:-1], end_log_prob=log_probs[-1])
        return self._decoder.answer(token_ids, log_probs)

    def embed_tokens(self, token_ids: Sequence[int] | Tensor) -> Tensor:
        """Embeddings ``[tokens, D]`` of token ids."""
        ids = torch.as_tensor(token_ids, dtype=torch.long, device=self.device)
        return self.language_model.get_input_embeddings()(ids)

    def embed_prompts(
        self, audio_BAD: Tensor, prompts: Sequence[str], answers: Sequence[Sequence[int]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rows of prompt and sound (and an answer's tokens), padded on the left.

        Padding on the right, as published, puts it between query and answer and changes what is answered.

        Returns
        -------
        tuple of Tensor
            ``inputs_embeds [rows, tokens, D]`` and ``attention_mask [rows, tokens]``.
        """
        if len(prompts) != audio_BAD.shape[0]:
            raise NaturelmError(f"{len(prompts)} prompts for {audio_BAD.shape[0]} windows; give one for each")
        tokens = [self.prompt_tokens(prompt) for prompt in prompts]
        return self._embed(audio_BAD, tokens, answers or [()] * len(tokens), range(len(tokens)))

    def _embed(
        self,
        audio_BAD: Tensor,
        prompts: Sequence[PromptTokens],
        answers: Sequence[Sequence[int]],
        windows: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        audio_tokens = audio_BAD.shape[1]
        lengths = [
            len(prompt.head) + audio_tokens + len(prompt.tail) + len(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        longest = max(lengths)
        ids_RT = np.zeros((len(lengths), longest), np.int64)
        audio_start_R = np.empty(len(lengths), np.int64)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            begin = longest - lengths[row]
            audio_start_R[row] = begin + len(prompt.head)
            ids_RT[row, begin : audio_start_R[row]] = prompt.head
            ids_RT[row, audio_start_R[row] + audio_tokens :] = (*prompt.tail, *answer)
        embeds_RTD = self.embed_tokens(torch.from_numpy(ids_RT))
        places_RA1 = torch.from_numpy(audio_start_R[:, None] + np.arange(audio_tokens)).unsqueeze(-1)
        audio_RAD = audio_BAD[list(windows)].to(embeds_RTD.dtype)
        embeds_RTD = embeds_RTD.scatter(1, places_RA1.to(self.device).expand_as(audio_RAD), audio_RAD)
        begins_R1 = torch.tensor([[longest - length] for length in lengths], device=self.device)
        return embeds_RTD, (torch.arange(longest, device=self.device) >= begins_R1).long()

    def answer_logits(
        self,
        audio_BAD: Tensor,
        prompts: Sequence[PromptTokens],
        answers: Sequence[Sequence[int]],
        windows: Sequence[int] | None = None,
    ) -> Tensor:
        embeds_RTD, mask_RT = self._embed(
            audio_BAD, prompts, answers, range(len(prompts)) if windows is None else windows
        )
        return self.llama(
            inputs_embeds=embeds_RTD,
            attention_mask=mask_RT,
            position_ids=(mask_RT.cumsum(-1) - 1).clamp(min=0),
            # Rows end together, so the last positions hold every answer.
            logits_to_keep=max(map(len, answers)) + 1,
            use_cache=False,
        ).logits

    def score_answers(
        self,
        audio_BAD: Tensor,
        prompts: Sequence[PromptTokens],
        answers: Sequence[Sequence[int]],
        windows: Sequence[int] | None = None,
    ) -> AnswerScores:
        logits_RTV = self.answer_logits(audio_BAD, prompts, answers, windows)[:, :-1]
        targets_RT = np.full(logits_RTV.shape[:2], _NO_TARGET)
        for row, answer in enumerate(answers):
            targets_RT[row, targets_RT.shape[1] - len(answer) :] = answer
        targets = torch.from_numpy(targets_RT).to(logits_RTV.device)
        losses_RT = F.cross_entropy(
            logits_RTV.float().transpose(1, 2), targets, ignore_index=_NO_TARGET, reduction="none"
        )
        return AnswerScores(-losses_RT, logits_RTV.detach().argmax(-1) == targets)

    # -- training --------------------------------------------------------------------------------------------

    @classmethod
    def part_names(cls) -> tuple[str, ...]:
        return (*cls.audio_parts, "llm", "lora")

    def parts(self) -> dict[str, list[nn.Module]]:
        audio = {
            part: [self.get_submodule(name) for name in names] for part, names in self.audio_parts.items()
        }
        return {**audio, "llm": [self.llama], "lora": lora.adapter_modules(self.llama)}

    def layers(self) -> dict[str, list[nn.Module]]:
        audio = {
            part: list(cast(nn.ModuleList, self.get_submodule(name)))
            for part, name in self.audio_layers.items()
        }
        return {**audio, "llm": list(self.language_model.model.layers)}

    def load_part(self, part: str, path: Path) -> None:
        modules = nn.ModuleDict({name: self.get_submodule(name) for name in self.audio_parts[part]})
        tensors = {f"{part}.{name}": tensor for name, tensor in checkpoint.read_tensors(path).items()}
        checkpoint.load_published(modules, tensors, self.names, str(path))

    def answer_tokens(self, text: str, longest: int | None = None) -> tuple[int, ...]:
        longest = self.config.max_txt_len if longest is None else longest
        return (*self.text_tokens(text)[: longest - 1], self.end_token_ids[0])

    def loss(self, waveforms_BS: Tensor, prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
        """Cross-entropy of the answers, end token included: the mean over all their tokens."""
        loss_R, tokens_R = self._losses(waveforms_BS, prompts, texts)
        return loss_R.sum() / tokens_R.sum()

    def per_example_loss(self, waveforms_BS: Tensor, prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
        """As `loss`, the mean over each answer's tokens: ``[windows]``."""
        loss_R, tokens_R = self._losses(waveforms_BS, prompts, texts)
        return loss_R / tokens_R

    def _losses(
        self, waveforms_BS: Tensor, prompts: Sequence[str], texts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each answer, summed over its tokens, and how many these are."""
        answers = [self.answer_tokens(text) for text in texts]
        scores = self.score_answers(
            self.encode_audio(waveforms_BS), [self.prompt_tokens(prompt) for prompt in prompts], answers
        )
        return -scores.log_probs_RT.sum(dim=1), torch.tensor([len(a) for a in answers], device=self.device)

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
        if max_new_tokens < 1 or num_beams < 1:
            raise NaturelmError(
                f"max_new_tokens is {max_new_tokens} and num_beams {num_beams}; both must be at least 1"
            )
        audio_BAD = self.encode_audio(waveforms_BS)
        embeds_RTD, mask_RT = self.embed_prompts(audio_BAD, prompts)
        generated_RT = self.llama.generate(
            inputs_embeds=embeds_RTD,
            attention_mask=mask_RT,
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
        rows = [self._until_end(row) for row in generated_RT.tolist()]
        tokens = [self.prompt_tokens(prompt) for prompt in prompts]
        log_probs_RT = self.score_answers(audio_BAD, tokens, rows).log_probs_RT.tolist()
        return [
            self.make_answer(row, log_probs_T[len(log_probs_T) - len(row) :])
            for row, log_probs_T in zip(rows, log_probs_RT, strict=True)
        ]

    def _until_end(self, token_ids: list[int]) -> list[int]:
        ends = (i for i, token_id in enumerate(token_ids) if token_id in self.end_token_ids)
        return token_ids[: next(ends, len(token_ids)) + 1]

    # -- the language model ----------------------------------------------------------------------------------

    @property
    def language_model(self) -> LlamaForCausalLM:
        return cast(LlamaForCausalLM, self.llama.get_base_model())

    @property
    def merging_alpha(self) -> float:
        """Share of the adapters in the language model: 1 as trained, 0 the base LLM (arXiv 2511.05171).

        NatureLM-audio follows instructions better at 0.4 to 0.6 and names species best at 1.0. May be set at any time.
        """
        return self._merging_alpha

    @merging_alpha.setter
    def merging_alpha(self, value: float) -> None:
        if not (math.isfinite(value) and 0.0 <= value <= 1.0):
            raise NaturelmError(
                f"merging_alpha is {value}; give a number from 0 (base LLM) to 1 (as trained)"
            )
        lora.set_share(self.llama, value, self.config.lora_alpha, self.config.lora_rank)
        self._merging_alpha = float(value)

    def merged_language_model(self, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
        scale = self.merging_alpha * self.config.lora_alpha / self.config.lora_rank
        return lora.plain_llama(self.language_model, scale, dtype)

    def _fit_embedding(self, tensors: Mapping[str, Tensor]) -> None:
        """Releases may embed one token ([PAD]) more than the base LLM; it is kept, and never generated."""
        embedding = self.language_model.get_input_embeddings()
        released = tensors.get(self.names.published(f"llama.{lora.EMBEDDING}"))
        if released is not None and released.shape == (embedding.num_embeddings + 1, embedding.embedding_dim):
            larger = nn.Embedding(
                *released.shape, dtype=embedding.weight.dtype, device=embedding.weight.device
            )
            larger.weight.requires_grad_(embedding.weight.requires_grad)
            self.language_model.set_input_embeddings(larger)


def _device(wanted: torch.device | str | None) -> torch.device:
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        usable = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise NaturelmError(
            f"device {str(wanted)!r} cannot be used here; give {' or '.join(usable)}"
        ) from None
    return device


def _end_token_ids(llama: LlamaForCausalLM, tokenizer: Any, end_sym: str) -> tuple[int, ...]:
    """What ends an answer: the token of training first, the tokenizer's, and the base LLM's own end tokens."""
    generation = llama.generation_config.eos_token_id if llama.generation_config else None
    own = generation if isinstance(generation, list) else [generation]
    trained = tokenizer.convert_tokens_to_ids(end_sym)
    if trained is None or trained == tokenizer.unk_token_id:
        raise NaturelmError(
            f"the tokenizer has no token {end_sym!r}, which ends answers; give the LLM of this checkpoint"
        )
    ends = [trained, tokenizer.eos_token_id, *own]
    return tuple(dict.fromkeys(int(i) for i in ends if i is not None))
