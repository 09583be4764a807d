"""NatureLM-audio over archives of field recordings: from recordings to tables of detections and captions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from naturelm.embeddings.similar import search
    from naturelm.engine import Engine, EngineQuery
    from naturelm.errors import NaturelmError
    from naturelm.infer import Pipeline
    from naturelm.models import NatureLM, load_model
    from naturelm.tables.query import open_tables

__version__ = "0.2.0"
__all__ = [
    "Engine",
    "EngineQuery",
    "NatureLM",
    "NaturelmError",
    "Pipeline",
    "__version__",
    "load_model",
    "open_tables",
    "search",
]

# Names are imported when they are first used: `import naturelm` needs neither torch nor ray.
_HOME = {
    "Engine": "naturelm.engine",
    "EngineQuery": "naturelm.engine",
    "NatureLM": "naturelm.models",
    "NaturelmError": "naturelm.errors",
    "Pipeline": "naturelm.infer",
    "load_model": "naturelm.models",
    "open_tables": "naturelm.tables.query",
    "search": "naturelm.embeddings.similar",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'naturelm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
