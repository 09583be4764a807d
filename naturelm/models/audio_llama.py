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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from naturelm.errors import NaturelmError, first_line, is_out_of_memory
from naturelm.models import checkpoint, presets
from naturelm.models.answer import Answer, AnswerDecoder
from naturelm.models.base import AnswerScores, LanguageModel
from naturelm.models.checkpoint import NameTable
from naturelm.models.config import LanguageModelConfig
from naturelm.models.parts import lora
from naturelm.models.parts.linear import has_bfloat16
from naturelm.models.parts.llama import load_llama, load_llama_config, load_tokenizer, new_llama, save_llama
from naturelm.models.parts.quantized import WithoutAdapters, kind_of, quantized_llama
from naturelm.models.parts.weights import WEIGHT_KINDS, WeightKind, weight_kind
from naturelm.models.prompts import PromptLayout, PromptTokens, SoundFirstLayout
from naturelm.models.quantizing import MergedTensors, Quantized, StoredTensors, write_quantized
from naturelm.models.sampling import penalise
from naturelm.models.tokens import TextTokenizer

_NO_TARGET = -100


@dataclass(frozen=True)
class _Found:
    """What there is of a checkpoint before its language model is read."""

    source: presets.ModelSource
    directory: Path
    weights: Path
    config: Any
    tensors: dict[str, Tensor]
    tokenizer: Any
    llm_directory: Path
    llm_config: LlamaConfig
    holds_llm: bool


def _ours(names: NameTable, published: str) -> str | None:
    """Our name of a published tensor; None where there is none."""
    try:
        return names.ours(published)
    except KeyError:
        return None


class AudioLlama(LanguageModel):
    """A language model around a Llama; a family adds the audio branch.

    Parameters
    ----------
    config
        Sizes and settings.
    llama
        The base language model; LoRA layers are put into it unless it is merged.
    tokenizer
        The language model's tokenizer.
    merged
        The language model has its adapters merged for good.

    Attributes
    ----------
    llama : PeftModel or WithoutAdapters
        The language model, with LoRA unless merged.
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

    def __init__(
        self, config: LanguageModelConfig, llama: LlamaForCausalLM, tokenizer: Any, merged: bool = False
    ) -> None:
        self._begin(config, llama.config.hidden_size)
        self.tokenizer = tokenizer
        self._merging_alpha = 1.0
        self._is_merged = merged
        self._text = TextTokenizer(tokenizer)
        self._decoder = AnswerDecoder(tokenizer)
        self.llama: Any = (
            WithoutAdapters(llama)
            if merged
            else lora.add_lora(
                llama, config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_targets
            )
        )
        self.end_token_ids = _end_token_ids(llama, tokenizer, config.end_sym)
        self.eval()

    def _begin(self, config: LanguageModelConfig, token_width: int) -> None:
        """The audio branch, and what is known without a language model."""
        nn.Module.__init__(self)
        self.config = config
        self.window_s = self.natural_window_s = config.window_s
        self.sample_rate_hz = config.sample_rate_hz
        # Before the audio branch, with which a family sets another.
        self.layout: PromptLayout | SoundFirstLayout = PromptLayout(config.prompt_template)
        self.make_audio_branch(token_width)

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
        weights: str | None = None,
        **part_files: str | Path,
    ) -> Self:
        device = _device(device)
        found = cls._gather(path, llm, part_files)
        quantized = Quantized.of(found.config, str(found.directory))
        if quantized is not None or weights not in (None, "plain"):
            return cls._read_quantized(found, quantized, weights, device, dtype, merging_alpha)
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        model = cls._build(found, dtype)
        model.merging_alpha = merging_alpha
        return model.to_dtype(dtype).to(device)

    @classmethod
    def read(
        cls,
        path: str | Path,
        llm: str | Path | None = None,
        llm_dtype: torch.dtype = torch.float32,
        **part_files: str | Path,
    ) -> Self:
        found = cls._gather(path, llm, part_files)
        if Quantized.of(found.config, str(found.directory)) is not None:
            raise NaturelmError(
                f"{found.directory}: its weights are quantised, to answer queries only; give the checkpoint that it "
                "was made of"
            )
        return cls._build(found, llm_dtype)

    @classmethod
    def _gather(
        cls, path: str | Path, llm: str | Path | None, part_files: Mapping[str, str | Path]
    ) -> _Found:
        """All of a checkpoint but the base LLM's weights."""
        unknown = part_files.keys() - set(cls.part_files)
        if unknown:
            raise NaturelmError(
                f"{cls.__name__} has no part {' or '.join(sorted(unknown))} in a separate file; leave it out"
            )
        source, directory, weights, config, tensors = cls._open(path, part_files)
        if llm is not None and Quantized.of(config, str(directory)) is not None:
            raise NaturelmError(f"{directory}: is quantised with its base LLM; leave out --llm")
        llm_directory = presets.fetch_llm(
            next(name for name in (llm, source.llm, config.llama_path) if name is not None), directory
        )
        tokenizer, llm_config = load_tokenizer(llm_directory), load_llama_config(llm_directory)
        cls._check_width(llm_config, tensors, llm_directory)
        tensors.update(cls.read_parts(config, tensors, directory, part_files))
        head = tensors.get(cls.names.published("llama.base_model.model.lm_head.weight"))
        if head is not None:
            # The checkpoint holds the base LLM. Training may have added a token, such as [PAD], to its vocabulary.
            llm_config.vocab_size = len(head)
        return _Found(
            source,
            directory,
            weights,
            config,
            tensors,
            tokenizer,
            llm_directory,
            llm_config,
            head is not None,
        )

    @classmethod
    def _open(
        cls, path: str | Path, part_files: Mapping[str, str | Path]
    ) -> tuple[presets.ModelSource, Path, Path, Any, dict[str, Tensor]]:
        """Source, directory, weights file, config and tensors of a checkpoint itself."""
        source = presets.resolve(path)
        directory = presets.fetch(source)
        weights = presets.weights_file(source, directory)
        config = cls._read_config(directory, weights)
        tensors = checkpoint.read_tensors(weights)
        cls._check_family(presets.family_with(tensors), str(weights))
        return source, directory, weights, cls.fit_parts(config, tensors, directory, part_files), tensors

    @classmethod
    def _build(cls, found: _Found, llm_dtype: torch.dtype) -> Self:
        if found.holds_llm:
            llama = new_llama(found.llm_config, llm_dtype)
        else:
            llama = load_llama(found.llm_directory, llm_dtype)
        model = cls._new(found, llama)
        model._fit_embedding(found.tensors)
        checkpoint.load_published(
            model, found.tensors, cls.names, str(found.weights), with_base=found.holds_llm
        )
        return model

    @classmethod
    def _new(cls, found: _Found, llama: LlamaForCausalLM, merged: bool = False) -> Self:
        try:
            return cls(found.config, llama, found.tokenizer, merged)
        except (RuntimeError, MemoryError) as error:
            reason = str(error).split("\n", 1)[0][:120]
            raise NaturelmError(
                f"{found.directory}: no model of the sizes in its config.json can be built ({reason}); "
                "fetch the checkpoint again"
            ) from error

    @classmethod
    def _read_quantized(
        cls,
        found: _Found,
        quantized: Quantized | None,
        weights: str | None,
        device: torch.device,
        dtype: torch.dtype | None,
        merging_alpha: float,
    ) -> Self:
        """A model whose language model is quantised, on disk or while it is read."""
        where = str(found.directory)
        given = "bf16" if weights == "plain" else weights
        if quantized is not None and weights not in (None, quantized.weights):
            raise NaturelmError(
                f"{where}: its weights are {quantized.weights}, not {given}; leave out --weights, or quantise the "
                "checkpoint that it was made of"
            )
        if quantized is not None and merging_alpha not in (1.0, quantized.merging_alpha):
            raise NaturelmError(
                f"{where}: its adapters were merged at {quantized.merging_alpha:g}, not {merging_alpha:g}; quantise "
                "the checkpoint that it was made of again"
            )
        kind = weight_kind(quantized.weights if quantized is not None else str(weights), device)
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" or has_bfloat16() else torch.float32)
        read: StoredTensors | MergedTensors
        if quantized is not None:
            read = StoredTensors(found.llm_directory)
        else:
            read = cls._merged_tensors(found, merging_alpha, kind)
        try:
            llama = quantized_llama(found.llm_config, kind, dtype, device, read.plain, read.stored)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise NaturelmError(
                f"{where}: the tensors of its language model do not fit its config.json ({first_line(error)}); "
                "quantise the model again"
            ) from error
        model = cls._new(found, llama, merged=True)
        model._merging_alpha = quantized.merging_alpha if quantized is not None else merging_alpha
        branch = nn.ModuleDict({name: part for name, part in model.named_children() if name != "llama"})
        checkpoint.load_published(branch, cls._audio_tensors(found), cls.names, str(found.weights))
        return model.to_dtype(dtype).to(device)

    @classmethod
    def _merged_tensors(cls, found: _Found, merging_alpha: float, kind: WeightKind) -> MergedTensors:
        return MergedTensors(found.config, cls.names, found.tensors, found.llm_directory, merging_alpha, kind)

    @classmethod
    def _audio_tensors(cls, found: _Found) -> dict[str, Tensor]:
        """What the checkpoint holds beside the language model."""
        return {
            name: tensor
            for name, tensor in found.tensors.items()
            if not (_ours(cls.names, name) or "").startswith("llama.")
        }

    @classmethod
    def quantize(
        cls,
        path: str | Path,
        out: Path,
        weights: str,
        llm: str | Path | None = None,
        merging_alpha: float = 1.0,
    ) -> None:
        found = cls._gather(path, llm, {})
        if Quantized.of(found.config, str(found.directory)) is not None:
            raise NaturelmError(
                f"{found.directory}: is quantised already; give the checkpoint that it was made of"
            )
        if weights not in WEIGHT_KINDS or weights == "plain":
            raise NaturelmError(
                f"weights are {weights!r}; give {', '.join(name for name in WEIGHT_KINDS if name != 'plain')}"
            )
        if not 0.0 <= merging_alpha <= 1.0:
            raise NaturelmError(f"merging_alpha is {merging_alpha}; give a number from 0 to 1")
        read = cls._merged_tensors(found, merging_alpha, WEIGHT_KINDS[weights])
        write_quantized(
            out,
            found.config,
            cls._audio_tensors(found),
            found.llm_config,
            found.tokenizer,
            read,
            Quantized(weights, merging_alpha, found.source.revision or ""),
        )

    @classmethod
    def read_encoder(
        cls,
        path: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **part_files: str | Path,
    ) -> Self:
        device = _device(device)
        _, directory, weights, config, tensors = cls._open(path, part_files)
        tensors.update(cls.read_parts(config, tensors, directory, part_files))
        projection = f"{list(cls.audio_parts.values())[-1][-1]}.weight"
        trained = tensors.get(cls.names.published(projection))
        model = cls.__new__(cls)
        model._begin(config, 1 if trained is None else len(trained))
        targets = model.state_dict().keys()
        checkpoint.load_published(
            model,
            {name: tensor for name, tensor in tensors.items() if _ours(cls.names, name) in targets},
            cls.names,
            str(weights),
        )
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        return model.eval().to(device=device, dtype=dtype)

    @classmethod
    def _read_config(cls, directory: Path, weights: Path) -> Any:
        file = directory / "config.json"
        if not file.is_file() and weights.suffix != ".safetensors":
            return cls.config_class()  # publications as a torch file have none
        values = presets.read_config(file)
        cls._check_family(presets.family_in(values, str(file)), str(directory))
        return cls.config_from(values, str(file))

    @classmethod
    def _check_family(cls, family: presets.Family | None, where: str) -> None:
        if family is not None and not issubclass(cls, family.load()):
            raise NaturelmError(
                f"{where}: holds a model of the family {family.name}, not {cls.__name__}; load it with "
                "naturelm.load_model"
            )

    @classmethod
    def _check_width(cls, llm: LlamaConfig, tensors: Mapping[str, Tensor], where: Path) -> None:
        projection = f"{list(cls.audio_parts.values())[-1][-1]}.weight"
        trained = tensors.get(cls.names.published(projection))
        if trained is not None and len(trained) != llm.hidden_size:
            raise NaturelmError(
                f"{where}: is a base LLM of width {llm.hidden_size}, and the checkpoint was trained with one of "
                f"width {len(trained)}; give that one with --llm"
            )

    @classmethod
    def fit_parts(
        cls, config: Any, tensors: Mapping[str, Tensor], directory: Path, files: Mapping[str, str | Path]
    ) -> Any:
        """The settings of a checkpoint with the sizes of its `part_files`, before anything large is read.

        Parameters
        ----------
        config
            The checkpoint's settings.
        tensors
            What the checkpoint holds, by published name.
        directory
            The checkpoint's, against which relative paths are resolved.
        files
            The part files that were given: name -> directory, file or hub id.

        Raises
        ------
        NaturelmError
            If a part is missing, or does not fit the checkpoint.
        """
        return config

    @classmethod
    def read_parts(
        cls, config: Any, tensors: Mapping[str, Tensor], directory: Path, files: Mapping[str, str | Path]
    ) -> dict[str, Tensor]:
        """Tensors of the `part_files`, by published name; parameters and errors as of `fit_parts`."""
        return {}

    def save_pretrained(
        self, directory: str | Path, with_llm: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        from safetensors.torch import save_file

        if self._is_merged:
            raise NaturelmError(
                f"{directory}: the adapters have been merged for good and cannot be saved; load the model again"
            )
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
        if waveforms_BS.shape[1] == 0:
            raise NaturelmError(
                f"a window has no sound; {type(self).__name__} answers prompts about sound only"
            )
        return waveforms_BS

    def fit_window(self, waveforms_BS: Tensor, pad_to_window: bool = True) -> Tensor:
        """Clamp sound to [-1, 1] and pad it with silence, or cut it, to the natural window; or keep its length.

        Raises
        ------
        NaturelmError
            If sound that keeps its length is too short to become a token.
        """
        waveforms_BS = self.check_waveforms(waveforms_BS)
        samples = waveforms_BS.shape[1]
        if pad_to_window:
            waveforms_BS = F.pad(waveforms_BS, (0, self.natural_window_samples - samples))
        elif self.audio_token_count(samples, pad_to_window) < 1:
            raise NaturelmError(
                f"a window of {samples / self.sample_rate_hz:g} s gives no audio tokens; give at least 0.5 s, or "
                "pad_to_window=True"
            )
        return waveforms_BS.clamp(-1.0, 1.0)

    # -- words -----------------------------------------------------------------------------------------------

    def prompt_tokens(self, query: str, answers: Sequence[str] = ()) -> PromptTokens:
        return self.layout.tokens(query, self._text, (self.tokenizer.bos_token_id,), answers)

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
        waveforms_BS: Tensor | None,
        prompts: Sequence[str],
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        together: bool = False,
        pad_to_window: bool = True,
        repetition_penalty: float = 1.0,
    ) -> list[Answer]:
        published = self.published_generation
        max_new_tokens = published.max_new_tokens if max_new_tokens is None else max_new_tokens
        num_beams = published.num_beams if num_beams is None else num_beams
        if max_new_tokens < 1 or num_beams < 1:
            raise NaturelmError(
                f"max_new_tokens is {max_new_tokens} and num_beams {num_beams}; both must be at least 1"
            )
        if waveforms_BS is None:
            waveforms_BS = torch.zeros(len(prompts), 0)
        audio_BAD = self.encode_audio(waveforms_BS, pad_to_window)
        tokens = [self.prompt_tokens(prompt) for prompt in prompts]
        embeds_RTD, mask_RT = self.embed_prompts(audio_BAD, prompts)
        penalty = _RepetitionPenalty(repetition_penalty, tokens, num_beams)
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
            logits_processor=LogitsProcessorList([] if repetition_penalty == 1.0 else [penalty]),
        )
        # With the end token, where the answer has one: its probability scores an answer without any other.
        rows = [self._until_end(row) for row in generated_RT.tolist()]
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
        if self._is_merged and value != self._merging_alpha:
            raise NaturelmError(
                f"merging_alpha is {value}, and the adapters have been merged for good at {self._merging_alpha:g}; "
                "load the model again"
            )
        if not self._is_merged:
            lora.set_share(self.llama, value, self.config.lora_alpha, self.config.lora_rank)
        self._merging_alpha = float(value)

    def merged_language_model(self, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
        if kind_of(self.language_model) is not None:
            return self.language_model
        scale = self.merging_alpha * self.config.lora_alpha / self.config.lora_rank
        return lora.plain_llama(self.language_model, None if self._is_merged else scale, dtype)

    def merge_adapters(self) -> None:
        if not self._is_merged:
            lora.merge(
                self.language_model, self.merging_alpha * self.config.lora_alpha / self.config.lora_rank
            )
            self._is_merged = True

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


class _RepetitionPenalty(LogitsProcessor):
    """Makes the tokens of a prompt's text, and of the answer so far, less likely.

    What transformers has for this knows of no prompt where it is given as embeddings.
    """

    def __init__(self, penalty: float, prompts: Sequence[PromptTokens], beams: int) -> None:
        self._penalty = penalty
        self._prompt_ids = [[*prompt.head, *prompt.tail] for prompt in prompts for _ in range(beams)]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        seen_RV = torch.zeros_like(scores, dtype=torch.bool)
        for row, ids in enumerate(self._prompt_ids):
            seen_RV[row, ids] = True
        return penalise(scores, seen_RV.scatter(1, input_ids, True), self._penalty)


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
