"""Making untrusted text fit for a terminal, one line, a spreadsheet cell and a file name.

File names, metadata and what the model says may hold anything.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable

# A spreadsheet takes a cell that starts so for a formula; the wide forms are read alike in some locales.
_TRIGGERS = "=+\\-@\t\r\n＝＋－＠"
# Some readers drop these before they look at a cell: blanks, soft hyphens, zero-width and direction marks, and
# byte-order marks.
_DROPPED = r"\s\x00-\x1f\x7f-\xa0\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff"
_GUARDED = re.compile(rf"'*[{_DROPPED}]*[{_TRIGGERS}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def printable(text: str) -> str:
    """Escape what could steer a terminal or reorder a line: control and format characters, as `\\x1b`.

    What the model says is untrusted text.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character == " " or unicodedata.category(character)[0] not in "CZ" or character.isprintable()
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC): macOS writes `ö` in file names as two characters, others as one."""
    return unicodedata.normalize("NFC", text)


def suggestion(name: str, known: Iterable[str], shown: int = 5) -> str:
    """What to try in place of a name that matches nothing: the nearest spelling, or else what there is.

    Returns
    -------
    str
        Such as `did you mean 'Höhle'?`, `there are 'A', 'B' and 7 more`, or `there are none`.
    """
    names = sorted(set(known))
    plain: dict[str, str] = {}
    for other in names:
        plain.setdefault(_plain(other), other)
    nearest = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {printable(plain[nearest[0]])!r}?"
    if not names:
        return "there are none"
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"there are {', '.join(repr(printable(other)) for other in names[:shown])}{more}"


def _plain(text: str) -> str:
    """Letters without case and accents, for finding the nearest spelling."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def counted(number: int, what: str, plural: str | None = None) -> str:
    """A number and what it counts: `1 window`, `1,200 windows`.

    Parameters
    ----------
    number : int
    what : str
        In the singular.
    plural : str, optional
        Where it is not the singular with an `s`.
    """
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def one_line(text: str, limit: int = 120) -> str:
    """Fold white space, drop control and other invisible characters, and cut to `limit` characters."""
    visible = "".join(" " if char.isspace() else char for char in text)
    visible = "".join(char for char in visible if unicodedata.category(char)[0] != "C")
    folded = " ".join(visible.split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"


def guard(text: str | None) -> str:
    """Make a cell text and nothing else: an apostrophe before what a spreadsheet would calculate.

    Text that already starts with apostrophes and such a character gets one more, so that `unguard` is exact.
    """
    if not text:
        return ""
    return f"'{text}" if _GUARDED.match(text) else text


def guard_path(path: str) -> str:
    """Keep a path from being a formula where its reader is not a spreadsheet: `./` before it names the same file."""
    return f"./{path}" if _GUARDED.match(path) else path


def unguard_path(path: str) -> str:
    """What `guard_path` was given."""
    return path[2:] if path.startswith("./") and _GUARDED.match(path[2:]) else path


def unguard(text: str) -> str:
    """What `guard` was given."""
    return text[1:] if text.startswith("'") and _GUARDED.match(text) else text


def duration(seconds: float) -> str:
    """A duration in the unit that reads best: `42 s`, `12.5 min` or `3.1 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def position(seconds: float) -> str:
    """A position within a recording: `m:ss`, or `h:mm:ss` from an hour on; tenths where it is not a whole second."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{clock}:{rest // 10:02d}.{rest % 10}" if rest % 10 else f"{clock}:{rest // 10:02d}"


def flat(text: str | None) -> str:
    """Text for formats without quoting: runs of control characters, tabs and line ends become one space."""
    return _CONTROL.sub(" ", text or "")


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


def file_size(size_bytes: float) -> str:
    """A size with its unit, such as ``36 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
