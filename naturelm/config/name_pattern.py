"""Patterns that describe the user's file names: `{station}_%Y%m%d_%H%M%S`.

A pattern describes the whole file name without its extension. It consists of these directives; every other
character matches itself:

=============  ==============================================================
`%Y`, `%y`     year of four digits, or of two (2000 to 2068, 1969 to 1999)
`%m`, `%b`     month as two digits, or as `Jan` to `Dec`
`%d`, `%j`     day of the month, or of the year as three digits
`%H`           hour, 00 to 24
`%I`, `%p`     hour, 01 to 12, with `AM` or `PM`
`%M`, `%S`     minute, second
`%f`           fraction of a second, one to nine digits
`%z`           `Z`, `+1000`, `-03:30`, `+10` or `UTC-5`
`%s`           seconds since 1970, UTC
`%%`           a per cent sign
`{station}`    the station
`*`            anything
=============  ==============================================================

Numbers of two digits may have a blank in place of their first zero. A pattern with slashes describes as many of the
last parts of a path: `{station}/%Y-%m-%d/%H%M%S`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from naturelm.errors import NaturelmError

_TWO_DIGITS = r"[ \d]\d"
_DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d\d",
    "m": _TWO_DIGITS,
    "b": "[A-Za-z]{3}",
    "d": _TWO_DIGITS,
    "j": r"\d{3}",
    "H": _TWO_DIGITS,
    "I": _TWO_DIGITS,
    "p": "[AaPp][Mm]",
    "M": _TWO_DIGITS,
    "S": _TWO_DIGITS,
    "f": r"\d{1,9}",
    "z": r"Z|[+-]\d\d(?::?\d\d)?|(?:UTC|GMT)(?:[+-]\d{1,2}(?::?\d\d)?)?",
    "s": r"\d{9,11}",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TOKEN = re.compile(
    r"%(?P<directive>.?)|(?P<station>\{station\})|(?P<any>\*+)|(?P<brace>[{}])|(?P<literal>.)", re.DOTALL
)
# Each may begin anywhere in a name: more of them would take long to find out that a name does not match.
_MOST_FREE_PARTS = 4
_LONGEST = 200
_EXAMPLE = "{station}_%Y%m%d_%H%M%S"


@dataclass(frozen=True, slots=True)
class Named:
    """What a pattern reads from a name; None where the pattern has no directive for it.

    Attributes
    ----------
    start_local : datetime, optional
        The recorder's clock, without zone.
    utc_offset_minutes : int, optional
    station : str, optional
    """

    start_local: datetime | None
    utc_offset_minutes: int | None
    station: str | None


class GivenPattern:
    """A pattern, ready to read names.

    Parameters
    ----------
    text : str
        A pattern as described in this module.

    Raises
    ------
    NaturelmError
        The text is not a valid pattern.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._fields: set[str] = set()
        if not text.strip() or len(text) > _LONGEST:
            raise _invalid(text, f"it has {len(text)} characters")
        free = 0
        expression = ""
        for token in _TOKEN.finditer(text):
            if token["directive"] is not None:
                expression += self._directive(token["directive"])
            elif token["station"]:
                expression += self._group("station", r"[^/]+?")
                free += 1
            elif token["any"]:
                expression += r"[^/]*?"
                free += 1
            elif token["brace"]:
                raise _invalid(text, "a brace is not part of {station}")
            else:
                expression += re.escape(token["literal"])
        if free > _MOST_FREE_PARTS:
            raise _invalid(text, f"{{station}} and * occur {free} times, more than {_MOST_FREE_PARTS}")
        self._check_complete()
        self._expression = re.compile(expression)
        self._parts = text.count("/") + 1

    def read(self, path: str) -> Named | None:
        """Read a path with forward slashes; None where it does not match or its time does not exist."""
        parts = path.split("/")[-self._parts :]
        stem, dot, _ = parts[-1].rpartition(".")
        match = self._expression.fullmatch("/".join([*parts[:-1], stem if dot else parts[-1]]))
        if match is None:
            return None
        fields = match.groupdict()
        try:
            start_local, offset_minutes = _moment(fields)
        except (ValueError, OverflowError):
            return None
        return Named(start_local, offset_minutes, (fields.get("station") or "").strip() or None)

    def _directive(self, letter: str) -> str:
        if letter == "%":
            return "%"
        if letter not in _DIRECTIVES:
            known = ", ".join(f"%{name}" for name in _DIRECTIVES)
            raise _invalid(self.text, f"%{letter} is not a directive, the directives are {known} and %%")
        return self._group(letter, _DIRECTIVES[letter])

    def _group(self, name: str, expression: str) -> str:
        if name in self._fields:
            raise _invalid(self.text, f"{'{station}' if name == 'station' else '%' + name} appears twice")
        self._fields.add(name)
        return f"(?P<{name}>{expression})"

    def _check_complete(self) -> None:
        times = self._fields - {"station"}
        if "s" in times:
            if len(times) > 1:
                raise _invalid(self.text, "%s is the whole time; leave the other time directives out")
            return
        if not times:
            if "station" not in self._fields:
                raise _invalid(self.text, "it has neither a time nor {station}")
            return
        for names, what in (
            (({"Y"}, {"y"}), "the year (%Y or %y)"),
            (({"j"}, {"m", "d"}, {"b", "d"}), "the day (%m and %d, or %j)"),
            (({"H"}, {"I", "p"}), "the hour (%H, or %I and %p)"),
        ):
            if not any(choice <= times for choice in names):
                raise _invalid(self.text, f"it lacks {what}")


def _invalid(text: str, why: str) -> NaturelmError:
    return NaturelmError(
        f"name pattern {text[:80]!r}: {why}; describe the whole file name without its extension, like {_EXAMPLE}"
    )


def _moment(fields: dict[str, str | None]) -> tuple[datetime | None, int | None]:
    """Local time and offset.

    Raises
    ------
    ValueError, OverflowError
        The time does not exist.
    """
    if fields.get("s"):
        return datetime.fromtimestamp(int(fields["s"] or ""), UTC).replace(tzinfo=None), 0
    year = _year(fields)
    if year is None:
        return None, None
    hour, minute, second = _hour(fields), int(fields.get("M") or 0), int(fields.get("S") or 0)
    is_next_midnight = (hour, minute, second) == (24, 0, 0)
    microsecond = int((fields.get("f") or "0").ljust(6, "0")[:6])
    if fields.get("j"):
        day = datetime(year, 1, 1) + timedelta(days=int(fields["j"] or "") - 1)
        if day.year != year:
            raise ValueError("no such day of the year")
    else:
        name = fields.get("b")
        month = _MONTHS.index(name.lower()) + 1 if name else int(fields["m"] or "")
        day = datetime(year, month, int(fields["d"] or ""))
    start = day.replace(
        hour=0 if is_next_midnight else hour, minute=minute, second=second, microsecond=microsecond
    )
    return start + timedelta(days=is_next_midnight), _offset_minutes(fields.get("z"))


def _year(fields: dict[str, str | None]) -> int | None:
    if fields.get("Y"):
        return int(fields["Y"] or "")
    if fields.get("y"):
        short = int(fields["y"] or "")
        return short + (2000 if short < 69 else 1900)
    return None


def _hour(fields: dict[str, str | None]) -> int:
    if fields.get("H"):
        return int(fields["H"] or "")
    hour = int(fields["I"] or "")
    if not 1 <= hour <= 12:
        raise ValueError("no such hour")
    return hour % 12 + (12 if (fields["p"] or "").upper() == "PM" else 0)


def _offset_minutes(text: str | None) -> int | None:
    """Minutes ahead of UTC of what `%z` matches."""
    if text is None:
        return None
    match = re.search(r"([+-])(\d{1,2}):?(\d\d)?", text)
    if match is None:
        return 0
    minutes = 60 * int(match[2]) + int(match[3] or 0)
    return -minutes if match[1] == "-" else minutes
