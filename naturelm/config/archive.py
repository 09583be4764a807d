"""One YAML file -> frozen, checked settings; loaded once at the edge and threaded down by section."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from naturelm.config.defaults import MIN_SAMPLE_RATE_HZ
from naturelm.config.name_pattern import GivenPattern
from naturelm.config.spans import parse_dates, parse_hours
from naturelm.config.station_rule import parse_station_rule
from naturelm.ids import settings_hash
from naturelm.text import composed, printable
from naturelm.windows import MIN_NEW_S, check_window

QueryKind = Literal["detection", "caption", "classification"]


class Section(BaseModel):
    """Settings that belong together: unknown ones are refused, and none changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _text_has_no_nul(cls, value: Any) -> Any:
        # The operating system takes no path with one.
        if isinstance(value, str) and "\0" in value:
            raise ValueError("contains a NUL character; remove it")
        return value


class StationLabels(Section):
    """The closed list of one station.

    Attributes
    ----------
    station : str
        As in the tables.
    labels : tuple of str
        Its labels.
    """

    station: str
    labels: tuple[str, ...] = Field(min_length=1)


class ExampleSound(Section):
    """A sound whose right answer is known, put before a query.

    Attributes
    ----------
    path : str
        The recording, relative to the settings file.
    start_s, end_s : float
        The part of it, at most a window; by default from its start, as long as a window.
    answer : str
        The right answer.
    identity : str, optional
        What identifies the file, filled in when the settings are loaded.
    """

    path: str = Field(min_length=1)
    start_s: float = Field(default=0.0, ge=0)
    end_s: float | None = Field(default=None, gt=0)
    answer: str = Field(pattern=r"\S")
    identity: str | None = None

    @model_validator(mode="after")
    def _part_has_a_length(self) -> ExampleSound:
        if self.end_s is not None and self.end_s - self.start_s < MIN_NEW_S:
            raise ValueError(
                f"an example starts at {self.start_s:g} s and ends at {self.end_s:g} s; give at least {MIN_NEW_S:g} s"
            )
        return self


class Query(Section):
    """A query to the model about every window.

    Attributes
    ----------
    id : str
        Short name, written to the column `query`: letters, digits, `_` and `-`.
    prompt : str
        The question, in words.
    kind : {"detection", "caption", "classification"}
        `detection`: the answer lists labels, or is None. `caption`: the answer is a sentence.
        `classification`: the answer is one of `labels`, each with an exact score.
    labels : tuple of str
        The closed list of a `classification` query. A settings file may give `labels_file` instead: the path of a list
        (see `naturelm.config.label_lists`), relative to the settings file. The labels themselves become part of the
        analysis, not the file's name.
    station_labels : tuple of StationLabels
        Lists that replace `labels` at single stations; a `labels_file` with a column `station` fills them.
    top_k : int
        How many of the best labels of a `classification` query become detections ("None" never does).
    max_new_tokens : int, optional
        Longest answer in tokens; by default `generation.max_new_tokens`.
    examples : tuple of ExampleSound
        Sounds with their right answers, which the model reads before each window, once for all of them. For models
        that take several sounds.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    prompt: str
    kind: QueryKind = "detection"
    labels: tuple[str, ...] = ()
    station_labels: tuple[StationLabels, ...] = ()
    top_k: int = Field(default=1, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    examples: tuple[ExampleSound, ...] = ()

    @field_validator("prompt")
    @classmethod
    def _prompt_has_text(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("a query needs a prompt with text")
        if not prompt.isascii() and any("\ud800" <= character <= "\udfff" for character in prompt):
            raise ValueError("the prompt contains half of a surrogate pair, which is not text")
        return prompt.strip()

    @model_validator(mode="after")
    def _labels_fit_kind(self) -> Query:
        lists = [self.labels, *(station.labels for station in self.station_labels)]
        if self.kind == "classification" and not any(lists):
            raise ValueError("a classification query needs labels or a labels_file")
        if self.kind != "classification" and any(lists):
            raise ValueError(f"labels belong to kind classification, not {self.kind}")
        if any(not label.strip() for labels in lists for label in labels):
            raise ValueError("a label is empty")
        if any(len(set(labels)) != len(labels) for labels in lists):
            raise ValueError("duplicate label")
        return self

    def analysis(self) -> dict[str, Any]:
        """What determines the answers; an example that has moved is the same, and without any there is no entry."""
        exclude: dict[str, Any] = {"id": True, "examples": {"__all__": {"path"}} if self.examples else True}
        return self.model_dump(mode="json", exclude=exclude, exclude_none=True)

    def labels_at(self, station: str) -> tuple[str, ...]:
        """The closed list that applies at a station."""
        own = (entry.labels for entry in self.station_labels if composed(entry.station) == composed(station))
        return next(own, self.labels)


class ModelSettings(Section):
    """Which model answers, and how it is loaded.

    Attributes
    ----------
    name : str
        A name from `naturelm models`, a checkpoint directory or a hub id.
    llm : str, optional
        Base language model, a directory or hub id; by default the one that the checkpoint names.
    parts : table of str to str
        Where other parts of the model are that its authors publish in files of their own, such as `whisper` and `beats`
        of SALMONN.
    merging_alpha : float
        Weight of the LoRA: 1 names species best, 0.4 to 0.6 follows instructions better.
    dtype : {"auto", "float32", "bfloat16"}
        Precision; `auto` is bfloat16 on GPUs and float32 on CPUs, and what `weights` needs.
    weights : {"auto", "bf16", "fp8", "int8"}
        How the matrices of the language model are stored: in bfloat16, or in 8 bits, numbers with an exponent (newer
        NVIDIA GPUs) or whole ones (any device). `auto`: as in the checkpoint, in the type that `dtype` says.
    """

    name: str = "pocket"
    llm: str | None = None
    parts: tuple[tuple[str, str], ...] = ()
    merging_alpha: float = Field(default=1.0, ge=0.0, le=1.0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    weights: Literal["auto", "bf16", "fp8", "int8"] = "auto"

    @field_validator("parts", mode="before")
    @classmethod
    def _parts_are_pairs(cls, parts: Any) -> Any:
        # Pairs, as settings are hashed.
        return tuple(sorted(parts.items())) if isinstance(parts, dict) else parts

    @property
    def part_files(self) -> dict[str, str]:
        """`parts`, by name."""
        return dict(self.parts)

    @model_validator(mode="after")
    def _bf16_is_bfloat16(self) -> ModelSettings:
        if self.weights == "bf16" and self.dtype == "float32":
            raise ValueError("weights are bf16 and dtype is float32; leave out one of them")
        return self


class WindowSettings(Section):
    """How recordings are cut into windows.

    Attributes
    ----------
    length_s : float
        Length of a window in seconds, at most what the model takes.
    hop_s : float
        Seconds between window starts; windows overlap where it is less than `length_s`.
    """

    length_s: float = 10.0
    hop_s: float = 10.0

    @model_validator(mode="after")
    def _cover_all_sound(self) -> WindowSettings:
        check_window(self.length_s, self.hop_s)
        return self


class RecordingSettings(Section):
    """How files are read before they are decoded.

    Attributes
    ----------
    min_sample_rate_hz : float
        A header with a lower rate is taken for damaged: its recording is `unsupported`.
    name_pattern : str, optional
        How file names give start and station, see `naturelm.config.name_pattern`.
    station : str
        Where a recording's station is written: `auto`, `name`, `folder`, `folder:N` or a pattern, see
        `naturelm.config.station_rule`.
    """

    name_pattern: str | None = None
    station: str = "auto"
    min_sample_rate_hz: float = Field(default=MIN_SAMPLE_RATE_HZ, gt=0, le=100_000, allow_inf_nan=False)

    @field_validator("name_pattern")
    @classmethod
    def _pattern_is_valid(cls, name_pattern: str | None) -> str | None:
        if name_pattern is not None:
            GivenPattern(name_pattern)
        return name_pattern

    @field_validator("station")
    @classmethod
    def _station_is_valid(cls, station: str) -> str:
        parse_station_rule(station)
        return station


class AudioSettings(Section):
    """How recordings are decoded.

    Attributes
    ----------
    channel : int, optional
        Channel to use, from 0; by default the mean of all channels.
    decode_timeout_s : float
        Seconds without progress after which decoding a recording is abandoned.
    """

    channel: int | None = Field(default=None, ge=0)
    decode_timeout_s: float = Field(default=60.0, gt=0)


class GateSettings(Section):
    """Windows that are not shown to the model.

    Attributes
    ----------
    threshold_db : float, optional
        Skip windows in which nothing rises this many decibels above the background; by default no window is skipped.
    """

    threshold_db: float | None = Field(default=None, gt=0, le=100)


Pooling = Literal["mean", "max"]


class EmbeddingSettings(Section):
    """The vectors that are kept of the model's encoder, one for each window.

    Attributes
    ----------
    pooling : {"mean", "max"}, optional
        How the encoder's output becomes one vector: its mean, or its largest values, over the window. By default no
        vectors are kept.
    """

    pooling: Pooling | None = None


class GenerationSettings(Section):
    """How answers are generated.

    Attributes
    ----------
    max_new_tokens : int
        Longest answer in tokens, for queries that do not set their own.
    num_beams : int
        Beams of the search; 1 is greedy.
    do_sample : bool
        Draw tokens by chance; what is drawn for a window depends on its sound, the query and `seed` alone.
    temperature, top_k, top_p : float, int, float
        A draw is from the `top_k` likeliest tokens (0: all), of these from the likeliest that hold `top_p` of the
        probability, the logits divided by `temperature`.
    repetition_penalty : float
        Makes tokens of the query and of the answer so far less likely; 1 is none.
    seed : int
        Of the draws.
    """

    max_new_tokens: int = Field(default=64, ge=1, le=4096)
    num_beams: int = Field(default=1, ge=1, le=16)
    do_sample: bool = False
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sampling_has_one_beam(self) -> GenerationSettings:
        if self.do_sample and self.num_beams > 1:
            raise ValueError(f"do_sample has one beam, not {self.num_beams}; set num_beams: 1")
        return self

    def search(self) -> dict[str, Any]:
        """How tokens are chosen: keyword arguments of the engine."""
        return self.model_dump(exclude={"max_new_tokens"})

    def analysis(self) -> dict[str, Any]:
        """What determines the answers: the length and beams, and of the others what is not the default."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams, **values}


class JobSettings(Section):
    """How the work is distributed; nothing here changes an answer.

    Attributes
    ----------
    workers : int, optional
        Model workers on Ray; 0 runs everything in this process, without Ray. By default this process begins, and Ray
        continues with one worker for each GPU, or for each CPU core where there is no GPU, if that ends sooner.
    max_workers : int, optional
        As nodes join the cluster, more workers are started, up to this number.
    gpus_per_worker : float, optional
        Share of a GPU for each worker: 0.5 puts two on each. By default GPUs divided by workers, at most one.
    batch_size : int, optional
        Windows that the model processes at once; by default found from free memory.
    segment_minutes : float
        Minutes of a recording that are processed and committed together. An output directory keeps the value of its
        first run: resampling that starts elsewhere changes scores in their last decimal.
    address : str, optional
        Ray cluster to join; by default a local one is started.
    """

    workers: int | None = Field(default=None, ge=0)
    max_workers: int | None = Field(default=None, ge=1)
    gpus_per_worker: float | None = Field(default=None, gt=0, le=1)
    batch_size: int | None = Field(default=None, ge=1)
    segment_minutes: float = Field(default=10.0, gt=0, le=60)
    address: str | None = None


Order = Literal["longest-first", "oldest", "newest", "dawn-first", "spread"]


class SelectionSettings(Section):
    """Which sound is processed, and which first; nothing here changes a row.

    Attributes
    ----------
    dates : str, optional
        Local dates: one date, a span `2019-05-20..2019-05-22`, or several with commas between.
    hours : str, optional
        Local hours of the day: a span `04:00-08:00`, also over midnight, or several with commas between.
    include_undated : bool
        With dates or hours, also process recordings without a known start time, which are otherwise left out.
    stations : tuple of str
        Only these stations; by default all.
    sample : float
        Share of each station's segments in each hour of the day.
    order : str
        What is processed first. `spread`: whatever is done by morning is an even sample of stations, hours and
        dates. `dawn-first`: what is nearest to sunrise.
    """

    dates: str | None = None
    hours: str | None = None
    include_undated: bool = False
    stations: tuple[str, ...] = ()
    sample: float = Field(default=1.0, gt=0, le=1)
    order: Order = "longest-first"

    @field_validator("dates", mode="before")
    @classmethod
    def _dates_are_dates(cls, dates: Any) -> Any:
        # YAML reads 2019-05-20 as a date.
        text = dates.isoformat() if isinstance(dates, dt.date) else dates
        if isinstance(text, str):
            parse_dates(text)
        return text

    @field_validator("hours")
    @classmethod
    def _hours_are_hours(cls, hours: str | None) -> str | None:
        if hours is not None:
            parse_hours(hours)
        return hours


DEFAULT_QUERIES = (
    Query(
        id="species",
        prompt="What are the common names for the species in the audio, if any?",
        max_new_tokens=32,
    ),
    Query(id="caption", kind="caption", prompt="Caption the audio.", max_new_tokens=40),
)


class ArchiveConfig(Section):
    """All settings of `naturelm process`; `configs/archive.yaml` documents the defaults.

    Attributes
    ----------
    stations_file : str, optional
        CSV file with positions, time zones, deployments and clock drifts of stations, relative to the settings file.
    """

    model: ModelSettings = ModelSettings()
    queries: tuple[Query, ...] = Field(default=DEFAULT_QUERIES, min_length=1)
    windows: WindowSettings = WindowSettings()
    recordings: RecordingSettings = RecordingSettings()
    audio: AudioSettings = AudioSettings()
    gate: GateSettings = GateSettings()
    embeddings: EmbeddingSettings = EmbeddingSettings()
    generation: GenerationSettings = GenerationSettings()
    stations_file: str | None = None
    selection: SelectionSettings = SelectionSettings()
    job: JobSettings = JobSettings()

    @field_validator("queries")
    @classmethod
    def _ids_are_unique(cls, queries: tuple[Query, ...]) -> tuple[Query, ...]:
        ids = [query.id for query in queries]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"duplicate query id {twice[0]!r}")
        return queries

    @model_validator(mode="after")
    def _examples_fit_the_window(self) -> ArchiveConfig:
        for query in self.queries:
            for example in query.examples:
                length_s = self.windows.length_s if example.end_s is None else example.end_s - example.start_s
                if length_s > self.windows.length_s:
                    raise ValueError(
                        f"query {query.id} has an example of {length_s:g} s, longer than a window of "
                        f"{self.windows.length_s:g} s; give a part of it by start_s and end_s"
                    )
        return self

    def analysis(self, model_revision: str) -> dict[str, Any]:
        """The settings that determine the rows, JSON-serialisable.

        Parameters
        ----------
        model_revision : str
            What identifies the model's weights, whatever name or path they were loaded by.
        """
        weights = {} if self.model.weights == "auto" else {"weights": self.model.weights}
        parts = {"parts": self.model.part_files} if self.model.parts else {}
        return {
            "model": {
                "revision": model_revision,
                "llm": self.model.llm,
                "merging_alpha": self.model.merging_alpha,
                "dtype": self.model.dtype,
                **weights,
                **parts,
            },
            "queries": {query.id: query.analysis() for query in self.queries},
            **self._cut(),
            "generation": self.generation.analysis(),
            **self._gate(),
        }

    def embedding_analysis(self, model_revision: str) -> dict[str, Any]:
        """The settings that determine the embeddings; see `analysis`."""
        return {
            "model": {
                "revision": model_revision,
                "dtype": self.model.dtype,
                **({"parts": self.model.part_files} if self.model.parts else {}),
            },
            "embeddings": self.embeddings.model_dump(mode="json"),
            **self._cut(),
            **self._gate(),
        }

    def _cut(self) -> dict[str, Any]:
        """What determines the sound of a window."""
        return {
            "windows": self.windows.model_dump(mode="json"),
            "audio": {"channel": self.audio.channel},
        }

    def _gate(self) -> dict[str, Any]:
        return {} if self.gate.threshold_db is None else {"gate": self.gate.model_dump(mode="json")}

    def analysis_hash(self, model_revision: str) -> str:
        """Hash of `analysis`: outputs with the same hash hold the same rows for the same recordings."""
        return settings_hash(self.analysis(model_revision))


def closed_lists(config: ArchiveConfig) -> list[str]:
    """One sentence for each closed list, so that a misread file is noticed."""
    lines = []
    for query in config.queries:
        lists = [query.labels, *(station.labels for station in query.station_labels)]
        labels = list(dict.fromkeys(label for labels in lists for label in labels))
        if labels:
            more = f", lists of {len(query.station_labels)} stations" if query.station_labels else ""
            first = ", ".join(printable(label) for label in labels[:3])
            lines.append(f"query {query.id}: {len(labels)} labels{more}, first: {first}")
    return lines
