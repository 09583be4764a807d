"""What a recording's metadata and its name say together, and which of them wins.

A start is taken from the first of these that says one:

1. `guano`: the `Timestamp` of a GUANO block;
2. `audiomoth`: the sentence that AudioMoths write as a comment;
3. `name`: the file name (see `names`);
4. `bext`: the origination date and time of a broadcast WAV file;
5. `ixml`: the copy of it in an iXML chunk.

The first two are written by the recorder when it begins, for this purpose. A name that is a recorder's counts for more
than `bext`, because editors write the time of an export there. An offset from UTC that the winner does not say may come
from a later source that says the same local time. Positions are GUANO's, else the name's. A GUANO block or an AudioMoth
sentence counts wherever a converter has put it: in `guan`, `LIST`, `bext` or `id3 ` chunks of WAV files, in comments of
FLAC, Ogg and Opus files, in ID3 tags and in annotations of AIFF files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from naturelm.recordings.audiomoth import parse_comment
from naturelm.recordings.broadcast import bext_start, ixml_start
from naturelm.recordings.guano import GuanoFacts, is_guano, parse_guano
from naturelm.recordings.names import parse_name
from naturelm.recordings.times import is_possible_offset, is_possible_start


@dataclass(slots=True)
class Tags:
    """Metadata as a file holds them.

    Attributes
    ----------
    guano : str, optional
        A GUANO block.
    comments : list of str
        Free text, in the order of the file.
    bext : bytes, optional
        The `bext` chunk.
    ixml : str, optional
        The `iXML` chunk.
    """

    guano: str | None = None
    comments: list[str] = field(default_factory=list)
    bext: bytes | None = None
    ixml: str | None = None

    def add_comments(self, texts: list[str]) -> None:
        """Add free texts; a GUANO block among them is one."""
        for text in texts:
            if is_guano(text):
                self.guano = self.guano or text
            else:
                self.comments.append(text)

    def guano_facts(self) -> GuanoFacts:
        return parse_guano(self.guano or "")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What metadata and name say; None where they say nothing.

    Attributes
    ----------
    start_local, utc_offset_minutes, latitude, longitude, station
        See `names.NameFacts`.
    start_source : str, optional
        Where the start comes from, see this module's text.
    problems : tuple of str
        One sentence for each thing that they say and that cannot be.
    """

    start_local: datetime | None = None
    start_source: str | None = None
    utc_offset_minutes: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    station: str | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Start:
    source: str
    start_local: datetime | None
    utc_offset_minutes: int | None = None
    problem: str | None = None


def combine(name: str, tags: Tags) -> Metadata:
    """Weigh what the metadata and the name of a file say.

    Parameters
    ----------
    name : str
        File name with its extension, without directories.
    tags : Tags
    """
    named, guano = parse_name(name), tags.guano_facts()
    start_local, source, offset_minutes = None, None, None
    problems: list[str] = []
    for stated in (
        _Start("guano", guano.start_local, guano.utc_offset_minutes, guano.problem),
        *_commented(tags),
        _Start("name", named.start_local, named.utc_offset_minutes),
        *_broadcast(tags),
    ):
        if stated.problem is not None:
            problems.append(stated.problem)
        if stated.start_local is None:
            continue
        if not is_possible_start(stated.start_local):
            problems.append(
                f"the start in {stated.source} is {stated.start_local}, when nothing was recorded"
            )
            continue
        offset = stated.utc_offset_minutes
        if offset is not None and not is_possible_offset(offset):
            problems.append(f"the offset in {stated.source} is {offset} minutes, which no zone has")
            offset = None
        if start_local is None:
            start_local, source, offset_minutes = stated.start_local, stated.source, offset
        elif offset_minutes is None and stated.start_local == start_local:
            offset_minutes = offset
    place = guano if guano.latitude is not None else named
    return Metadata(
        start_local,
        source,
        offset_minutes,
        place.latitude,
        place.longitude,
        named.station,
        tuple(dict.fromkeys(problems)),
    )


def _commented(tags: Tags) -> Iterator[_Start]:
    for text in tags.comments:
        facts = parse_comment(text)
        yield _Start("audiomoth", facts.start_local, facts.utc_offset_minutes, facts.problem)


def _broadcast(tags: Tags) -> Iterator[_Start]:
    if tags.bext is not None:
        yield _Start("bext", bext_start(tags.bext))
    if tags.ixml is not None:
        yield _Start("ixml", ixml_start(tags.ixml))
