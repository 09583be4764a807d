"""Untrusted text in files that spreadsheets and annotation tools open."""

from __future__ import annotations

import re

# A spreadsheet takes a cell that starts so for a formula; the wide forms are read alike in some locales.
_TRIGGERS = "=+\\-@\t\r\n＝＋－＠"
_GUARDED = re.compile(rf"'*[{_TRIGGERS}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def guard(text: str | None) -> str:
    """Make a cell text and nothing else: an apostrophe before what a spreadsheet would calculate.

    Text that already starts with apostrophes and such a character gets one more, so that `unguard` is exact.
    """
    if not text:
        return ""
    return f"'{text}" if _GUARDED.match(text) else text


def unguard(text: str) -> str:
    """What `guard` was given."""
    return text[1:] if text.startswith("'") and _GUARDED.match(text) else text


def flat(text: str | None) -> str:
    """Text for formats without quoting: runs of control characters, tabs and line ends become one space."""
    return _CONTROL.sub(" ", text or "")
