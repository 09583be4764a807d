"""Defaults of settings that modules use without a configuration, too."""

from __future__ import annotations

MIN_SAMPLE_RATE_HZ = 100.0
"""`recordings.min_sample_rate_hz`: a header with a lower rate is taken for damaged."""
