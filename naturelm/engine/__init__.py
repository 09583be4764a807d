"""Answers of a language model to several queries about many windows, as fast as the device allows."""

from __future__ import annotations

from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery

__all__ = ["Engine", "EngineQuery"]
