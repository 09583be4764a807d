"""Making untrusted text fit for one line, a spreadsheet cell and a file name."""

from __future__ import annotations

import hashlib
import unicodedata

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def one_line(text: str, limit: int = 120) -> str:
    """Fold white space, drop control and other invisible characters, and cut to `limit` characters."""
    visible = "".join(" " if char.isspace() else char for char in text)
    visible = "".join(char for char in visible if unicodedata.category(char)[0] != "C")
    folded = " ".join(visible.split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"


def safe_cell(text: str) -> str:
    """Keep a spreadsheet from reading text as a formula: an apostrophe goes before `=`, `+`, `-` and `@`."""
    return "'" + text if text.lstrip(" ").startswith(_FORMULA_STARTS) else text


def file_name(text: str, limit: int = 60) -> str:
    """Turn untrusted text into a file name that every common file system takes.

    Letters and digits of any script and `-` within the name stay; everything else becomes `_`. A name that had to
    be cut, or of which nothing is left, ends with a hash of the whole text.
    """
    plain = unicodedata.normalize("NFC", text)
    kept = "".join(char if char.isalnum() or char == "-" else "_" for char in plain)
    name = "_".join(part for part in kept.split("_") if part).strip("-")
    cut = name
    while len(cut.encode("utf-8", "replace")) > limit:
        cut = cut[:-1]
    # Windows keeps these names for devices.
    reserved = cut.upper() in {"CON", "PRN", "AUX", "NUL"} | {
        f"{device}{number}" for device in ("COM", "LPT") for number in range(1, 10)
    }
    if cut and cut == name and not reserved:
        return cut
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{cut}-{digest}" if cut else f"label-{digest}"
