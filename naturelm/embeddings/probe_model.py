"""A probe: a logistic regression on embeddings, in one JSON file that says what it was trained on."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naturelm.embeddings.vectors import StoredVectors
from naturelm.errors import NaturelmError

FORMAT = "naturelm probe 1"
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Probe:
    """Weights for one label.

    Attributes
    ----------
    label : str
    revision, pooling, encoder : str
        What made the vectors that it is for.
    weights : tuple of float
        One for each number of a vector of length 1.
    bias : float
    threshold : float
        Score from which `naturelm probe apply` writes a row.
    trained : dict
        On what: numbers of examples, stations, where.
    report : dict
        How good it is, cross-validated.
    """

    label: str
    encoder: str
    revision: str
    pooling: str
    weights: tuple[float, ...]
    bias: float
    threshold: float = 0.5
    trained: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Eight digits that follow from the weights."""
        numbers = np.array([*self.weights, self.bias], np.float64).tobytes()
        return hashlib.blake2b(numbers + self.label.encode(), digest_size=4).hexdigest()

    def scores(self, unit_vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores between 0 and 1 of vectors ``[windows, width]`` of length 1."""
        logits = unit_vectors @ np.array(self.weights, np.float32) + np.float32(self.bias)
        scores: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -500, 500)))
        return scores

    def check_fits(self, stored: StoredVectors, path: Path) -> None:
        """Refuse vectors of another encoder.

        Raises
        ------
        NaturelmError
            They are, or have another length.
        """
        if len(self.weights) != stored.width:
            raise NaturelmError(
                f"{path}: is for vectors of {len(self.weights)} numbers, and those of {stored.directory} have "
                f"{stored.width}; train a probe on this directory"
            )
        own = (self.revision, self.pooling)
        if own != (stored.analysis.revision, stored.pooling):
            raise NaturelmError(
                f"{path}: is for embeddings of {self.encoder} ({self.revision[:12]}, {self.pooling}), and those of "
                f"{stored.directory} are of {stored.encoder}; train a probe on this directory"
            )


def write_probe(probe: Probe, path: Path) -> None:
    """Write the file.

    Raises
    ------
    NaturelmError
        It cannot be written.
    """
    try:
        path.write_text(
            json.dumps({"format": FORMAT} | asdict(probe), ensure_ascii=False, indent=1) + "\n",
            encoding="utf-8",
        )
    except OSError as error:
        raise NaturelmError(f"{path}: cannot be written ({error.strerror}); give another --out") from None


def read_probe(path: Path) -> Probe:
    """Read the file, and check every value in it.

    Raises
    ------
    NaturelmError
        It is missing, or no probe.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise NaturelmError(
            f"{path}: cannot be read ({error.strerror}); give a file of naturelm probe train"
        ) from None
    try:
        values = json.loads(content)
        if values.pop("format") != FORMAT or len(content) > _MOST_BYTES:
            raise ValueError
        values["weights"] = tuple(float(weight) for weight in values["weights"])
        probe = Probe(**values)
        numbers = (*probe.weights, float(probe.bias), float(probe.threshold))
        texts = (probe.label, probe.encoder, probe.revision, probe.pooling)
        if not all(map(math.isfinite, numbers)) or not all(isinstance(text, str) for text in texts):
            raise ValueError
        if not (probe.label.strip() and 0 <= probe.threshold <= 1 and probe.weights):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise NaturelmError(f"{path}: is not a probe; give a file of naturelm probe train") from None
    return probe
