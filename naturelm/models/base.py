"""The model boundary: everything that the engine, training and the measurements know of a model.

A model is a `LanguageModel`, which answers queries about sound in words, or a `Classifier`, which scores fixed labels.
A family is one folder beside this file, and nothing outside it depends on what is inside
(docs/contributing/adding-a-model.md). What must be known before a model is loaded, such as its licence, its memory and
the kinds of query it answers, is in `naturelm.models.presets`.

Axes: B windows of sound · S samples · P positions of the encoder's output · E their width · A audio tokens ·
D width of the language model · R rows, one for each question · T tokens of the longest answer · V vocabulary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from naturelm.errors import NaturelmError

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

    from naturelm.models.answer import Answer
    from naturelm.models.config import LanguageModelConfig
    from naturelm.models.prompts import PromptTokens


class AudioModel(ABC):
    """What every model has.

    Attributes
    ----------
    sample_rate_hz : int
        Samples per second that the model takes.
    window_s : float
        Longest sound that the model takes at once.
    natural_window_s : float
        Length that the model was trained with.
    """

    sample_rate_hz: int
    window_s: float
    natural_window_s: float

    @property
    def window_samples(self) -> int:
        """Samples of the longest sound that the model takes at once."""
        return round(self.window_s * self.sample_rate_hz)

    @property
    def natural_window_samples(self) -> int:
        """Samples of a window of the natural length."""
        return round(self.natural_window_s * self.sample_rate_hz)

    @abstractmethod
    def embed_audio(self, waveforms_BS: Tensor) -> Tensor:
        """One vector for each window, float32 ``[windows, width]``, from the encoder's output.

        Parameters
        ----------
        waveforms_BS
            float32 ``[windows, samples]`` in [-1, 1] at `sample_rate_hz`.
        """


@dataclass(frozen=True)
class ClassLabel:
    """One label of a classifier.

    Attributes
    ----------
    common_name
        As people call it.
    scientific_name
        Of the species; None where the label is not a species.
    """

    common_name: str
    scientific_name: str | None = None


class Classifier(AudioModel):
    """A model with a fixed list of labels, each of which it scores in every window.

    Attributes
    ----------
    labels : tuple of ClassLabel
        In the order of the scores.
    """

    labels: tuple[ClassLabel, ...]

    @classmethod
    @abstractmethod
    def from_pretrained(
        cls, path: str | Path, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Load a preset, directory or hub id; parameters and errors as of `naturelm.models.load_model`."""

    @abstractmethod
    def score(self, waveforms_BS: Tensor) -> Tensor:
        """Probability of each label in each window, float32 ``[windows, labels]``.

        Parameters
        ----------
        waveforms_BS
            As for `embed_audio`.
        """


class AnswerScores(NamedTuple):
    """How likely given answers are, token by token; rows are aligned at their last token.

    Attributes
    ----------
    log_probs_RT : Tensor
        float32 log-probability of each token given what is before it; 0 before a row's first token.
    is_likeliest_RT : Tensor
        bool, whether greedy search would have chosen the token; false before a row's first token.
    """

    log_probs_RT: Tensor
    is_likeliest_RT: Tensor


@dataclass(frozen=True)
class Generation:
    """How a family's published code finds answers: the defaults of its models.

    Attributes
    ----------
    max_new_tokens, num_beams
        Longest answer in tokens; 1 beam is greedy search, or sampling.
    do_sample
        Draw tokens by chance, from the likeliest `top_k` of those that hold `top_p` of the probability, the logits
        divided by `temperature`; `top_k` 0 and `top_p` 1 leave none out.
    repetition_penalty
        Makes tokens of the prompt's text and of the answer so far less likely (arXiv 1909.05858); 1 is none.
    """

    max_new_tokens: int = 300
    num_beams: int = 2
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class LanguageModel(AudioModel, nn.Module):
    """A model that reads sound as tokens among the words of a prompt, and answers in words.

    Attributes
    ----------
    config : LanguageModelConfig
        The content of the checkpoint's ``config.json``.
    end_token_ids : tuple of int
        Tokens that end an answer.
    merging_alpha : float
        Share of the adapters in the language model: 1 as trained, 0 the base LLM (arXiv 2511.05171). May be set.
    part_files : tuple of str
        Names of the parts beside the base LLM that `from_pretrained` takes from files of their own.
    published_generation : Generation
        How the published code finds answers.
    answers_without_sound : bool
        Whether prompts without sound are answered: windows of no samples, which become no tokens.
    """

    answers_without_sound: ClassVar[bool] = False
    part_files: ClassVar[tuple[str, ...]] = ()
    published_generation: ClassVar[Generation] = Generation()
    config: LanguageModelConfig
    end_token_ids: tuple[int, ...]
    merging_alpha: float

    # -- loading and saving ----------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
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
        """Load a preset, directory or hub id; parameters and errors as of `naturelm.models.load_model`."""

    @classmethod
    @abstractmethod
    def read(
        cls,
        path: str | Path,
        llm: str | Path | None = None,
        llm_dtype: torch.dtype = torch.float32,
        **part_files: str | Path,
    ) -> Self:
        """As `from_pretrained`, on the CPU: the base LLM in `llm_dtype`, all that is trained in float32."""

    @classmethod
    @abstractmethod
    def read_encoder(
        cls,
        path: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **part_files: str | Path,
    ) -> Self:
        """The audio branch alone, for `encode_features` and `embed_audio`; parameters as of `from_pretrained`.

        No language model is read or fetched: what needs one fails.
        """

    @classmethod
    @abstractmethod
    def config_from(cls, values: Mapping[str, object], where: str) -> LanguageModelConfig:
        """Check the content of a ``config.json``; `where` names it in errors.

        Raises
        ------
        NaturelmError
            If a setting is out of range, or asks for a variant that the family does not have.
        """

    @classmethod
    @abstractmethod
    def from_config(
        cls,
        config: LanguageModelConfig,
        llm: LlamaForCausalLM | LlamaConfig,
        tokenizer: object,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """A model with random weights around a given LLM, or a random one of the given shape.

        It is made directly on `device` (``"meta"`` for names and shapes only) and cast to `dtype`.
        """

    @classmethod
    @abstractmethod
    def quantize(
        cls,
        path: str | Path,
        out: Path,
        weights: str,
        llm: str | Path | None = None,
        merging_alpha: float = 1.0,
    ) -> None:
        """Write a checkpoint with its language model merged and quantised, all of it or nothing.

        Parameters
        ----------
        path, llm, merging_alpha
            As of `from_pretrained`.
        out
            Directory to write, missing or empty; `from_pretrained` reads it.
        weights
            Name of the kind, of `naturelm.models.parts.weights.WEIGHT_KINDS`.

        Raises
        ------
        NaturelmError
            As of `from_pretrained`; or if `out` is not empty or cannot be written.
        """

    @abstractmethod
    def save_pretrained(
        self, directory: str | Path, with_llm: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        """Write the weights and ``config.json`` so that `read` reads them.

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

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the audio tokens, and of the weights that give them."""

    # -- sound -----------------------------------------------------------------------------------------------

    @property
    def audio_tokens(self) -> int:
        """Tokens that a window of the natural length becomes."""
        return self.audio_token_count(self.natural_window_samples)

    @abstractmethod
    def audio_token_count(self, samples: int, pad_to_window: bool = True) -> int:
        """Tokens that so much sound becomes; `pad_to_window` as of `encode_audio`."""

    @property
    @abstractmethod
    def feature_width(self) -> int:
        """Width E of the encoder's output."""

    @property
    @abstractmethod
    def token_width(self) -> int:
        """Width D of the audio tokens."""

    @abstractmethod
    def encode_features(self, waveforms_BS: Tensor, pad_to_window: bool = True) -> Tensor:
        """The encoder's output ``[windows, P, E]`` for sound as `embed_audio` takes it.

        Parameters
        ----------
        waveforms_BS
            As for `embed_audio`.
        pad_to_window
            Pad shorter sound with silence to the natural window, and cut longer sound; otherwise it is encoded at its
            own length. Families that were trained to take sound of any length in one way only do so either way.

        Raises
        ------
        NaturelmError
            If the sound has another shape than ``[windows, samples]``, or is too short to become a token.
        """

    @abstractmethod
    def project_features(self, features_BPE: Tensor) -> Tensor:
        """Audio tokens ``[windows, A, D]`` of the encoder's output."""

    def encode_audio(self, waveforms_BS: Tensor, pad_to_window: bool = True) -> Tensor:
        """Audio tokens ``[windows, A, D]``; parameters and errors as of `encode_features`."""
        return self.project_features(self.encode_features(waveforms_BS, pad_to_window))

    def embed_audio(self, waveforms_BS: Tensor) -> Tensor:
        """The mean of the encoder's output over a window, float32 ``[windows, E]``."""
        return self.encode_features(waveforms_BS).float().mean(dim=1)

    def encode_as_published(self, waveforms_BS: Tensor) -> Tensor:
        """As `encode_audio`, computed the way the family's published code does: what its speed is compared with."""
        return self.encode_audio(waveforms_BS)

    @abstractmethod
    def audio_modules(self) -> Sequence[nn.Module]:
        """The modules from sound to audio tokens: all but the language model."""

    # -- words -----------------------------------------------------------------------------------------------

    @abstractmethod
    def prompt_tokens(self, query: str, answers: Sequence[str] = ()) -> PromptTokens:
        """Token ids before the sound, of which there may be none, and after it.

        Parameters
        ----------
        query
            The question.
        answers
            Of examples, whose sounds come before the one that the question is about.

        Raises
        ------
        NaturelmError
            If the query is empty, names more than one place for the sound, or the model takes no examples.
        """

    @abstractmethod
    def text_tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of a user's text, as an answer may hold it; a special token's name in it is only text."""

    @abstractmethod
    def make_answer(self, token_ids: Sequence[int], log_probs: Sequence[float]) -> Answer:
        """An answer of generated tokens and their log-probabilities; an end token may close them or not."""

    @abstractmethod
    def merged_language_model(self, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
        """A plain Llama for inference, the adapters added at the current `merging_alpha`.

        The sum is formed in float32 and then cast, by default to the base's type. This model stays as it is;
        parameters without adapters are shared with it.
        """

    @abstractmethod
    def merge_adapters(self) -> None:
        """Add the adapters to the base for good at the current `merging_alpha`, which then stays as it is.

        The sum is that of `merged_language_model`, which after this shares all its tensors with this model.
        """

    @abstractmethod
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
        """Answer one prompt about each window, the plain way that the engine is checked against.

        Parameters
        ----------
        waveforms_BS
            As for `embed_audio`; None for prompts without sound, which few families answer.
        prompts
            One for each window.
        max_new_tokens, num_beams
            Longest answer in tokens; 1 beam is greedy search. By default as published; no sampling.
        together
            Continue until every process of the group is done: needed where weights are sharded over them.
        pad_to_window
            As for `encode_features`.
        repetition_penalty
            As in `Generation`.
        """

    # -- training --------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def language_model(self) -> LlamaForCausalLM:
        """The base LLM, its adapters in place."""

    @classmethod
    @abstractmethod
    def part_names(cls) -> tuple[str, ...]:
        """Names of `parts`, known before a model is made."""

    @abstractmethod
    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """The parts that training may train or leave as they are, by name: the modules of each.

        Together they hold all parameters. A part may hold the modules of a later one, which then belong to the later
        one: ``llm`` is the whole language model, ``lora`` the adapters in it.
        """

    @abstractmethod
    def layers(self) -> Mapping[str, Sequence[nn.Module]]:
        """Transformer layers, by the name of their part."""

    @property
    def drops_layers(self) -> bool:
        """Whether training leaves out layers at random, whose weights then have no gradient."""
        return False

    @property
    def patch_filters(self) -> nn.Parameter | None:
        """Filters ``[filters, 1, size, size]`` that a spectrogram's patches go through; None without any."""
        return None

    @abstractmethod
    def load_part(self, part: str, path: Path) -> None:
        """Load a part's weights from the file in which its own authors publish them.

        Raises
        ------
        NaturelmError
            If the file cannot be read, or does not fit the part.
        """

    @abstractmethod
    def answer_tokens(self, text: str, longest: int | None = None) -> tuple[int, ...]:
        """Token ids of a text to be learnt, end token included; `longest` tokens at most, by default the config's."""

    @abstractmethod
    def answer_logits(
        self,
        audio_BAD: Tensor,
        prompts: Sequence[PromptTokens],
        answers: Sequence[Sequence[int]],
        windows: Sequence[int] | None = None,
    ) -> Tensor:
        """Logits ``[R, T + 1, V]`` from which each token of each answer is chosen, and what would follow it.

        Parameters
        ----------
        audio_BAD
            Audio tokens of the windows.
        prompts, answers
            One of each per row. Rows are aligned at the answers' ends: position ``-1 - n`` is after all but the last n
            tokens.
        windows
            For each row its window in `audio_BAD`; row i is about window i by default.
        """

    @abstractmethod
    def score_answers(
        self,
        audio_BAD: Tensor,
        prompts: Sequence[PromptTokens],
        answers: Sequence[Sequence[int]],
        windows: Sequence[int] | None = None,
    ) -> AnswerScores:
        """How likely the model thinks each token of given answers; parameters as of `answer_logits`."""


def require_language_model(model: LanguageModel | Classifier) -> LanguageModel:
    """The model, where queries are to be answered.

    Raises
    ------
    NaturelmError
        If it is a classifier.
    """
    if isinstance(model, Classifier):
        raise NaturelmError(
            f"{type(model).__name__} is a classifier, which scores its own labels and answers no queries; "
            "give a language model"
        )
    return model
