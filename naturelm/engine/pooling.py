"""From the encoder's output to one vector for each window, and the encoder without its language model.

Axes: B windows · S samples · P positions of the encoder's output · E their width
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from naturelm.models.base import AudioModel, LanguageModel
from naturelm.models.parts.linear import quicken

# What a CPU's caches hold, and what a GPU is full with.
_AT_ONCE = {"cpu": 16, "cuda": 64}


def _mean(features_BPE: Tensor) -> Tensor:
    return features_BPE.float().mean(dim=1)


def _max(features_BPE: Tensor) -> Tensor:
    return features_BPE.float().amax(dim=1)


POOLINGS: Mapping[str, Callable[[Tensor], Tensor]] = {"mean": _mean, "max": _max}
"""By name: from ``[B, P, E]`` to float32 ``[B, E]``, over the positions."""


class Encoder:
    """Vectors of windows by a model's encoder alone.

    Parameters
    ----------
    model : AudioModel
        As `naturelm.models.load_encoder` gives it; a classifier pools its output in its own way.
    pooling : str
        One of `POOLINGS`.
    batch_size : int, optional
        Windows encoded at once.
    """

    def __init__(self, model: AudioModel, pooling: str, batch_size: int | None = None) -> None:
        self.model = model
        self._pool = POOLINGS[pooling]
        self._device = model.device if isinstance(model, LanguageModel) else torch.device("cpu")
        self.batch_size = batch_size or _AT_ONCE.get(self._device.type, 16)
        if isinstance(model, LanguageModel):
            for module in model.audio_modules():
                quicken(module)

    @torch.inference_mode()
    def embed(self, waveforms: np.ndarray) -> np.ndarray:
        """Vectors of windows, float32 ``[windows, E]``.

        Parameters
        ----------
        waveforms : ndarray
            float32 ``[windows, samples]`` in [-1, 1], mono, at the model's sample rate.
        """
        parts = torch.from_numpy(waveforms).split(self.batch_size)
        return torch.cat([self._embed(part) for part in parts]).float().cpu().numpy()

    def _embed(self, waveforms_BS: Tensor) -> Tensor:
        if not isinstance(self.model, LanguageModel):
            return self.model.embed_audio(waveforms_BS)
        windows = len(waveforms_BS)
        if self._device.type == "cuda":  # always so many: one compilation serves all
            waveforms_BS = F.pad(waveforms_BS, (0, 0, 0, self.batch_size - windows))
        return self._pool(self.model.encode_features(waveforms_BS))[:windows]
