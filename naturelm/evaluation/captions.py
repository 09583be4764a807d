"""Scores of captions: CIDEr, SPICE and their mean, SPIDEr, by the library that the official tool uses.

Captions are split into words at white space, and a word's weight comes from the captions scored together.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CIDER_ONLY = "SPIDEr was not computed, only CIDEr: {}"
"""The note about captions where SPICE cannot run; takes what is missing."""

_JAVA = "8"
_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_JAVA_TIMEOUT_S = 60


def cider_scores(answers: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """CIDEr of each answer, 0 to 10, beside its one reference."""
    from pycocoevalcap.cider.cider import Cider

    references = {number: [label] for number, label in enumerate(labels)}
    _, scores = Cider().compute_score(references, {number: [text] for number, text in enumerate(answers)})
    return np.asarray(scores, dtype=np.float64)


def missing_for_spice(scorings: Iterable[str]) -> str | None:
    """What SPICE needs and this machine lacks, as the end of a sentence; None where it can run or is not needed."""
    if "captioning" not in scorings:
        return None
    java = shutil.which("java")
    if java is None:
        return f"Java is not installed; SPICE needs Java {_JAVA}"
    version = _java_version(java)
    if version != _JAVA:
        return f"java is version {version or 'unknown'}; SPICE needs Java {_JAVA}"
    package = importlib.util.find_spec("pycocoevalcap")
    assert package is not None
    assert package.origin is not None
    directory = Path(package.origin).parent / "spice" / "lib"
    missing = [name for name in _MODELS if not (directory / name).is_file()]
    return f"SPICE's models are missing: put {' and '.join(missing)} into {directory}" if missing else None


def spice_scores(answers: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """SPICE of each answer, 0 to 1, by the Java program of its authors; see `missing_for_spice`."""
    from pycocoevalcap.spice.spice import Spice

    # Numbers of one width, as the library sorts them as text.
    names = [f"{number:09d}" for number in range(len(labels))]
    _, scores = Spice().compute_score(
        {name: [label] for name, label in zip(names, labels, strict=True)},
        {name: [text] for name, text in zip(names, answers, strict=True)},
    )
    return np.array([score["All"]["f"] for score in scores], dtype=np.float64)


def _java_version(java: str) -> str | None:
    """The major version: 8 for `1.8.0_402`, 17 for `17.0.15`."""
    try:
        done = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=_JAVA_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return found[1] if found else None
