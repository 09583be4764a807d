"""The settings of the training data: manifests, the window, and augmentation. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from naturelm.config.archive import Section


class DataSettings(Section):
    """Manifests, the window, and augmentation. Probabilities are per example and drawn again in each epoch.

    Attributes
    ----------
    manifests : tuple of str
        Files of examples (see `naturelm.training.manifest`).
    shards : tuple of str
        Training sets with the sound inside, in the layout of the hub: Parquet files or directories of them. They are
        read in order and shuffled over 8 shards at once and a buffer, so memory does not depend on their size.
    shards_share : float
        Share of the examples that are from shards, where there are manifests too.
    shuffle_rows : int
        Rows of shards in the buffer; 512 of 10 s take 0.3 GB in each process that loads.
    window_s : float
        Length of the model's input in seconds; a shorter recording is padded.
    crop : {"random", "start"}
        Which part of a longer recording is used.
    questions_per_example : int
        How many questions about one sound are answered at once, where the manifests contain several about a
        recording; its sound is then encoded once for all of them.
    pad_to_window : bool
        Pad shorter sound with silence; otherwise the model takes it at its own length, as SALMONN and LTU were trained,
        without noise or other sounds.
    prompt_lists : str, optional
        JSON file with a list of prompts for each task: a row without a prompt gets one of its task's, drawn anew each
        time, in which the row's `Q` replaces `{}`.
    prefix : str
        Put before the prompts of `prefix_manifests`, which are among `manifests`.
    prefix_manifests : tuple of str
        Whose prompts get the prefix.
    prefix_probability : float
        How often.
    noise_folders : tuple of str
        Directories of noise: every sound file in and below them.
    noise_probability : float
        How often noise is added.
    noise_snr_db : (float, float)
        Lowest and highest signal-to-noise ratio in decibels at which noise is added.
    noise_only_probability : float
        How often noise replaces the sound of a detection example, whose answer becomes None.
    mixup_probability : float
        How often the sound of other examples is added to a detection example.
    mixup_partners : int
        Most examples that are added to one.
    time_scale_probability : float
        How often a sound is played at another speed.
    time_scale : float
        Largest factor by which it is played faster or slower.
    gain_db : (float, float)
        Lowest and highest gain in decibels; every sound gets one, after all other changes.
    """

    manifests: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    shards_share: float = Field(default=0.5, gt=0, lt=1)
    shuffle_rows: int = Field(default=512, ge=8)
    window_s: float = Field(default=10.0, gt=0, le=600)
    crop: Literal["random", "start"] = "random"
    questions_per_example: int = Field(default=1, ge=1)
    pad_to_window: bool = True
    prompt_lists: str | None = None
    prefix: str = ""
    prefix_manifests: tuple[str, ...] = ()
    prefix_probability: float = Field(default=0.5, ge=0, le=1)
    noise_folders: tuple[str, ...] = ()
    noise_probability: float = Field(default=0.0, ge=0, le=1)
    noise_snr_db: tuple[float, float] = (-10.0, 25.0)
    noise_only_probability: float = Field(default=0.0, ge=0, le=1)
    mixup_probability: float = Field(default=0.0, ge=0, le=1)
    mixup_partners: int = Field(default=2, ge=1)
    time_scale_probability: float = Field(default=0.0, ge=0, le=1)
    time_scale: float = Field(default=1.2, ge=1, le=4)
    gain_db: tuple[float, float] = (0.0, 0.0)

    @model_validator(mode="after")
    def _settings_are_consistent(self) -> DataSettings:
        if not self.manifests and not self.shards:
            raise ValueError("there is nothing to train on; give manifests or shards")
        if (self.noise_probability or self.noise_only_probability) and not self.noise_folders:
            raise ValueError("noise_probability and noise_only_probability need noise_folders; give some")
        if not self.pad_to_window and (
            self.noise_probability or self.noise_only_probability or self.mixup_probability
        ):
            raise ValueError("noise and mixup need sounds of one length; set pad_to_window: true")
        unknown = [name for name in self.prefix_manifests if name not in self.manifests]
        if unknown:
            raise ValueError(f"prefix_manifests names {unknown[0]}, which is not among manifests")
        if bool(self.prefix) != bool(self.prefix_manifests):
            raise ValueError("prefix and prefix_manifests need each other; give both")
        for name, (low, high) in (("noise_snr_db", self.noise_snr_db), ("gain_db", self.gain_db)):
            if low > high:
                raise ValueError(f"{name} is {[low, high]}; give the lower number first")
        return self

    def without_augmentation(self) -> DataSettings:
        """The same window and questions, of the unchanged sound, from its start."""
        off = {"crop": "start", "noise_folders": (), "noise_probability": 0.0, "noise_only_probability": 0.0}
        off |= {"mixup_probability": 0.0, "time_scale_probability": 0.0, "gain_db": (0.0, 0.0)}
        return self.model_copy(update=off)
