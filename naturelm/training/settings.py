"""The settings of `naturelm train`, from one YAML file; `configs/train/stage1.yaml` documents the settings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from naturelm.config.archive import Section
from naturelm.config.loading import first_problem
from naturelm.errors import NaturelmError
from naturelm.training.data_settings import DataSettings

EXAMPLE = "configs/train/stage1.yaml"

MEASURES = ("loss", "token_accuracy", "exact", "f1")
"""Held-out figures over all tasks; ``NAME:TASK`` (not of token_accuracy) is that of one task."""

_LONGEST_WARMUP = 5000
_WARMUP_SHARE = 10


class ModelStart(Section):
    """What training starts from, and which parts of the model train.

    Attributes
    ----------
    checkpoint : str, optional
        Weights to continue from: a preset, a directory or a hub id in the published layout, or the directory of an
        earlier run, whose last checkpoint is taken.
    new : str or dict, optional
        Instead of `checkpoint`: the shape of a model with random weights. A preset or a directory with
        `config.json` (and `llm/`, for the shape of the LLM), or the contents of `config.json`; `{}` is the released
        model's.
    llm : str, optional
        Pretrained base LLM, a directory or a hub id. Required where `new` names no shape of an LLM.
    beats : str, optional
        File with BEATs' own weights (`BEATs_iter3_plus_AS2M.pt`), for a `new` model.
    part_files : dict of str to str
        Parts of the model in files of their own, as their authors publish them: SALMONN's `whisper` and `beats`, and
        LTU's `encoder` (CAV-MAE), for a new model; for a checkpoint without them, those of `naturelm process --part`.
    merging_alpha : float
        Share of the LoRA while training: activation tuning of SALMONN takes a smaller one than 1.
    patch_filters : {"random", "cosine"}
        Initial patch filters of a `new` model without BEATs' weights.
    trainable : tuple of str
        Parts that train. Those of NatureLM-audio are `beats`, `qformer` (with the norm before it), `projection`,
        `lora`, and `llm`, the base LLM itself; those of SALMONN `whisper`, `beats`, `norms`, `qformer`, `projection`,
        `lora` and `llm`, those of LTU `encoder`, `projection`, `lora` and `llm`. The others stay unchanged, without
        dropout and layerdrop.
    """

    checkpoint: str | None = None
    new: str | dict[str, Any] | None = None
    llm: str | None = None
    beats: str | None = None
    part_files: dict[str, str] = Field(default_factory=dict)
    merging_alpha: float = Field(default=1.0, gt=0, le=1)
    patch_filters: Literal["random", "cosine"] = "random"
    trainable: tuple[str, ...] = Field(default=("beats", "qformer", "projection", "lora"), min_length=1)

    @model_validator(mode="after")
    def _one_start(self) -> ModelStart:
        if (self.checkpoint is None) == (self.new is None):
            raise ValueError("give either checkpoint or new, what training begins with")
        if self.new is None and (self.beats is not None or self.patch_filters != "random"):
            raise ValueError("beats and patch_filters belong to a new model, not to a checkpoint")
        if isinstance(self.new, dict) and self.llm is None:
            raise ValueError("a new model without a directory needs llm, the base language model")
        if len(set(self.trainable)) != len(self.trainable):
            raise ValueError("a part appears twice in trainable")
        return self


class Optimisation(Section):
    """AdamW with a linear warm-up, and a decay; the defaults are NatureLM-audio's published values.

    Attributes
    ----------
    steps : int
        Steps in all.
    batch : int
        Examples per step, over all workers.
    peak_lr : float
        Learning rate at the end of the warm-up.
    start_lr : float
        Learning rate from which the warm-up rises.
    end_lr : float
        Learning rate at the last step.
    decay : {"cosine", "linear"}
        How the rate falls from `peak_lr` to `end_lr`.
    warmup_steps : int
        Steps over which the learning rate rises from `start_lr` to `peak_lr`, at most a tenth of `steps`. By default
        5,000, or a tenth of a shorter run.
    betas : (float, float)
        AdamW's decay rates of the moments.
    weight_decay : float
        AdamW's weight decay; norms, biases and relative positions are exempt.
    clip_norm : float
        Gradients with a larger norm are scaled down to it.
    micro_batch : int, optional
        Examples that a worker processes at once; gradients are accumulated until its share of the batch is complete. By
        default all of its share.
    max_text_tokens : int
        Longest answer in tokens, end token included; with the prompt where `loss_on` includes it.
    loss_on : {"answer", "prompt and answer"}
        Which text is learnt: the answer alone, or the prompt after the sound as well, as LTU does.
    """

    steps: int = Field(ge=1)
    batch: int = Field(default=128, ge=1)
    peak_lr: float = Field(default=9e-5, gt=0)
    start_lr: float = Field(default=0.0, ge=0)
    end_lr: float = Field(default=2e-5, ge=0)
    decay: Literal["cosine", "linear"] = "cosine"
    warmup_steps: int = Field(default=_LONGEST_WARMUP, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float = Field(default=2.0, gt=0)
    micro_batch: int | None = Field(default=None, ge=1)
    max_text_tokens: int = Field(default=200, ge=2)
    loss_on: Literal["answer", "prompt and answer"] = "answer"

    @model_validator(mode="before")
    @classmethod
    def _warm_up_fits(cls, values: Any) -> Any:
        steps = values.get("steps") if isinstance(values, dict) else None
        if isinstance(steps, int) and values.get("warmup_steps") is None:
            return values | {"warmup_steps": min(_LONGEST_WARMUP, max(0, steps) // _WARMUP_SHARE)}
        return values

    @model_validator(mode="after")
    def _rates_fit(self) -> Optimisation:
        if self.warmup_steps * _WARMUP_SHARE > self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, more than a tenth of steps {self.steps}; give at most "
                f"{self.steps // _WARMUP_SHARE}, or leave it out"
            )
        for name in ("start_lr", "end_lr"):
            if getattr(self, name) > self.peak_lr:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, above peak_lr {self.peak_lr}; give a smaller one"
                )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; give two numbers from 0 to below 1")
        return self


class Auxiliary(Section):
    """Layers that learn which labels are present, directly from patches and audio tokens; discarded after training.

    A small model with random weights learns to recognise sounds many times faster with them than from words alone.

    Attributes
    ----------
    labels : tuple of str
        Labels to distinguish; an example has those that its answers name, or none.
    weight : float
        Weight of this loss; the loss of the words has weight 1.
    steps : int
        Steps with this loss; after them only the words are trained on.
    alone_steps : int
        The first steps, which train on this loss alone.
    """

    labels: tuple[str, ...] = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0)
    steps: int = Field(ge=1)
    alone_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Auxiliary:
        if self.alone_steps > self.steps:
            raise ValueError(
                f"alone_steps is {self.alone_steps}, above steps {self.steps}; give a smaller one"
            )
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label appears twice")
        return self


class Evaluation(Section):
    """Held-out examples, without augmentation: how often they are evaluated, and whether answers are generated.

    Attributes
    ----------
    manifests : tuple of str
        Files of examples, as in `data`; without manifests there is no evaluation.
    every_steps : int
        Steps between evaluations.
    examples : int
        How many examples are evaluated, from the start of the manifests.
    generate : bool
        Also generate answers, for `exact` (share of answers that equal the text) and `f1` (of labels, over the
        detection tasks).
    max_new_tokens : int
        Longest generated answer in tokens.
    """

    manifests: tuple[str, ...] = ()
    every_steps: int = Field(default=1000, ge=1)
    examples: int = Field(default=256, ge=1)
    generate: bool = True
    max_new_tokens: int = Field(default=40, ge=1)


class RunSettings(Section):
    """Where a run is stored and how its work is distributed; only the number of workers affects the result.

    Attributes
    ----------
    storage : str
        Directory, or URL in an object store (`s3://bucket/run`), that all workers can reach.
    workers : int, optional
        Ray Train workers; by default one per GPU, or one where there is none.
    ray : bool
        Train on Ray; false trains in this process alone.
    address : str, optional
        Ray cluster to join; by default a local one is started.
    shard : bool
        FSDP2: each worker stores a part of the weights. For a model that does not fit one GPU.
    activation_checkpointing : bool
        Compute activations again in the backward pass: less memory, a third more time.
    loaders : int
        Processes that decode recordings where `ray` is false; on Ray, CPU tasks do it.
    checkpoint_every : int
        Steps between checkpoints.
    keep : int
        How many of the latest checkpoints are kept in addition to the best.
    best_by : str
        Held-out figure by which the best checkpoint is chosen: `loss`, `token_accuracy`, `exact` or `f1`, or that of
        one task, such as `f1:common-detection`.
    patience : int, optional
        The run ends early after so many evaluations in a row that were not better by `best_by`.
    log_every : int
        Steps averaged into one row of the metrics.
    max_failures : int
        How often lost workers are replaced before the run ends.
    """

    storage: str = Field(min_length=1)
    workers: int | None = Field(default=None, ge=1)
    ray: bool = True
    address: str | None = None
    shard: bool = False
    activation_checkpointing: bool = False
    loaders: int = Field(default=1, ge=0)
    checkpoint_every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)
    best_by: str = "loss"
    patience: int | None = Field(default=None, ge=1)
    log_every: int = Field(default=10, ge=1)
    max_failures: int = Field(default=3, ge=0)


class TrainConfig(Section):
    """All settings of `naturelm train`.

    Attributes
    ----------
    precision : {"bf16", "float32"}
        `bf16` is autocast; whatever trains, and the losses, stay float32.
    seed : int
        Determines the order of examples, augmentation and dropout.
    """

    model: ModelStart
    data: DataSettings
    optimisation: Optimisation
    evaluation: Evaluation = Evaluation()
    auxiliary: Auxiliary | None = None
    precision: Literal["bf16", "float32"] = "bf16"
    seed: int = Field(default=0, ge=0)
    run: RunSettings

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainConfig:
        name, _, task = self.run.best_by.partition(":")
        if name not in MEASURES or (task and name == "token_accuracy"):
            raise ValueError(
                f"run.best_by is {self.run.best_by!r}; give {', '.join(MEASURES)}, or one with a task, such as "
                "f1:common-detection"
            )
        if name in ("exact", "f1") and not self.evaluation.generate:
            raise ValueError(f"run.best_by is {self.run.best_by!r}, which needs evaluation.generate")
        for name in ("workers", "address", "shard"):
            if getattr(self.run, name) and not self.run.ray:
                raise ValueError(f"run.{name} needs Ray, and run.ray is false; set one of them otherwise")
        if self.run.patience and not self.evaluation.manifests:
            raise ValueError("run.patience needs evaluation.manifests, by which a run is compared")
        return self

    def result(self) -> dict[str, Any]:
        """The settings that determine the weights, JSON-serialisable; a resumed run must have the same."""
        return self.model_dump(mode="json", exclude={"run", "evaluation"})


def parse(raw: dict[str, Any], where: str) -> TrainConfig:
    """Check settings; `where` names their file in errors."""
    try:
        return TrainConfig.model_validate(raw)
    except ValidationError as error:
        raise NaturelmError(f"{where}: {first_problem(error, EXAMPLE)}") from None
