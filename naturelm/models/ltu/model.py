"""LTU: an audio-language model that listens, thinks and understands (Gong et al. 2023, arXiv 2305.10790).

Sound -> CAV-MAE's audio encoder -> means over frequency and pairs of steps -> projection -> tokens before a prompt's
words -> Vicuna with LoRA. LTU-AS, which adds speech, and the model of 13B are not here.

Axes: B batch · S samples · T frames · M mel bins · P patches · D the encoder's width
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, cast

from torch import Tensor, nn
from torch.nn import functional as F

from naturelm.models import checkpoint
from naturelm.models.audio_llama import AudioLlama
from naturelm.models.base import Generation
from naturelm.models.ltu.config import LtuConfig
from naturelm.models.ltu.names import ENCODER, NAMES
from naturelm.models.parts.ast import MEL_BINS, AudioEncoder
from naturelm.models.parts.fbank import fbank
from naturelm.models.prompts import SoundFirstLayout

# Mean and standard deviation of log-mel energies over the published training data.
_MEAN, _STD = -5.081, 4.4849
_FEATURE_SCALE = 50.0
_NORM_EPS = 1e-5


class LTU(AudioLlama):
    """A spectrogram transformer before a Vicuna; sound stands before the prompt, and may be absent.

    ``LTU.from_pretrained(path, llm=...)`` loads a published ``.bin`` file, or a directory or hub id that holds one.
    """

    config: LtuConfig
    config_class = LtuConfig
    names = NAMES
    answers_without_sound = True
    published_generation = Generation(
        max_new_tokens=400, do_sample=True, temperature=0.1, top_p=0.95, top_k=500, repetition_penalty=1.1
    )
    audio_parts: ClassVar = {"encoder": ("encoder",), "projection": ("audio_projection",)}
    audio_layers: ClassVar = {"encoder": "encoder.audio_layers"}

    def make_audio_branch(self, token_width: int) -> None:
        self.layout = SoundFirstLayout(self.config.prompt_template)
        self.encoder = AudioEncoder(self.config.audio_encoder)
        self.audio_projection = nn.Linear(self.config.audio_encoder.embed_dim, token_width)

    def features(self, waveforms_BS: Tensor) -> Tensor:
        """Log-mel energies ``[windows, audio_length, 128]`` as the encoder takes them."""
        waveforms_BS = self.check_waveforms(waveforms_BS)
        energies_BTM = fbank(
            waveforms_BS - waveforms_BS.mean(dim=1, keepdim=True),
            self.sample_rate_hz,
            MEL_BINS,
            scale=1.0,
            window="hanning",
        )
        # Frames of zeros, not of silence: they follow before the normalisation, as in the published code.
        missing = self.config.audio_encoder.audio_length - energies_BTM.shape[1]
        return (F.pad(energies_BTM, (0, 0, 0, missing)) - _MEAN) / _STD

    def encode_features(self, waveforms_BS: Tensor, pad_to_window: bool = True) -> Tensor:
        return self.encoder(self.features(waveforms_BS))

    def project_features(self, features_BPE: Tensor) -> Tensor:
        sizes = self.config.audio_encoder
        steps_BTD = features_BPE.unflatten(1, (sizes.frequency_patches, sizes.time_patches)).mean(dim=1)
        pairs_BPD = steps_BTD.unflatten(1, (-1, 2)).mean(dim=2) / _FEATURE_SCALE
        return self.audio_projection(F.layer_norm(pairs_BPD, pairs_BPD.shape[-1:], eps=_NORM_EPS))

    def encode_audio(self, waveforms_BS: Tensor, pad_to_window: bool = True) -> Tensor:
        if waveforms_BS.shape[-1] == 0:
            # A question without sound: nothing stands before it.
            return self.audio_projection.weight.new_zeros(len(waveforms_BS), 0, self.token_width)
        return super().encode_audio(waveforms_BS, pad_to_window)

    def audio_token_count(self, samples: int, pad_to_window: bool = True) -> int:
        return self.config.audio_encoder.time_patches // 2 if samples else 0

    def load_part(self, part: str, path: Path) -> None:
        if part != "encoder":
            super().load_part(part, path)
            return
        # CAV-MAE's own file also holds its decoder and its branch of images.
        tensors = {
            f"{ENCODER}.{name.removeprefix('module.')}": tensor
            for name, tensor in checkpoint.read_tensors(path).items()
        }
        known = {name: tensor for name, tensor in tensors.items() if self.names.knows(name)}
        checkpoint.load_published(nn.ModuleDict({"encoder": self.encoder}), known, self.names, str(path))

    @property
    def feature_width(self) -> int:
        return self.config.audio_encoder.embed_dim

    @property
    def patch_filters(self) -> nn.Parameter:
        return cast(nn.Parameter, self.encoder.patch_embedding.weight)
