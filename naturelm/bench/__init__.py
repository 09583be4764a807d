"""Measuring speed: the engine, its baselines, the archive job, decoding, training."""
