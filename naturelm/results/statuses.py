"""What became of a recording, in one word: the column `status` of `recordings`."""

from __future__ import annotations

STATUSES = ("ok", "too_short", "partial", "corrupt", "unsupported", "timeout", "crashed")
"""Worst last: the status of a recording is the worst of its segments'."""

NOT_FAILED = ("ok", "too_short")
"""Statuses of recordings for which another attempt changes nothing."""

UNREACHABLE = "unreachable"
"""The place where the recording is stored failed: nothing is known about the recording, no row is written, and a later
run tries again."""
