"""When broadcast recorders (Zoom, Sound Devices, Tascam) say that a recording began: `bext` and `iXML` chunks.

Both give the recorder's local clock, without a zone, to the second. Editors write the time of an export there; what a
known editor wrote is not used.

Sources: EBU Tech 3285 (`bext`), Gallery iXML specification 3.01.
"""

from __future__ import annotations

import re
from datetime import datetime

_DESCRIPTION, _ORIGINATOR, _DATE, _TIME = slice(256), slice(256, 288), slice(320, 330), slice(330, 338)
_MOMENT = re.compile(r"(\d{4})[-_: ./](\d\d)[-_: ./](\d\d)(\d\d)[-_: ./](\d\d)[-_: ./](\d\d)")
_EDITORS = re.compile(
    r"adobe|audition|audacity|cubase|final cut|iZotope|logic pro|nuendo|premiere|pro ?tools|reaper|resolve|"
    r"samplitude|sequoia|sound ?forge|steinberg|wavelab|vegas",
    re.IGNORECASE,
)
_IXML_FIELD = r"<BWF_ORIGINATION_{name}>\s*([^<]{{0,100}}?)\s*</BWF_ORIGINATION_{name}>"
_IXML_DATE = re.compile(_IXML_FIELD.format(name="DATE"))
_IXML_TIME = re.compile(_IXML_FIELD.format(name="TIME"))
_IXML_ORIGINATOR = re.compile(r"<BWF_ORIGINATOR>([^<]{0,100})</BWF_ORIGINATOR>")


def bext_start(chunk: bytes) -> datetime | None:
    """Start by a `bext` chunk's `OriginationDate` and `OriginationTime`; None where they are not set."""
    if _EDITORS.search(_text(chunk[_ORIGINATOR])):
        return None
    return _start(_text(chunk[_DATE]), _text(chunk[_TIME]))


def bext_description(chunk: bytes) -> str:
    """A `bext` chunk's free text, in which converters keep the comment of another format."""
    return _text(chunk[_DESCRIPTION])


def ixml_start(text: str) -> datetime | None:
    """Start by the copy of `bext` in an `iXML` chunk; None where it has none.

    The text is searched and never parsed as XML: nothing in it can expand.
    """
    originator = _IXML_ORIGINATOR.search(text)
    date, time = _IXML_DATE.search(text), _IXML_TIME.search(text)
    if date is None or time is None or (originator and _EDITORS.search(originator[1])):
        return None
    # Some recorders run the time into the date, whose field has no room for a zero at its end.
    return _start(date[1][:10], time[1][:8])


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace").strip()


def _start(date: str, time: str) -> datetime | None:
    match = _MOMENT.fullmatch(date + time)
    if match is None:
        return None
    try:
        return datetime(*map(int, match.groups()))  # type: ignore[arg-type]
    except ValueError:
        return None
