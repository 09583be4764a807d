"""Which station a recording is from: what its name or its directories say, or what the user says of them.

`auto` takes the prefix of the file name, else the first directory that is not named after a date, a card or a kind of
file, else the first directory, else the name of the root. Two recorders may share such a name. One recorder never makes
two recordings at once, so a station is divided where its recordings overlap in time and something else separates
them: a directory, or else a serial number or a number in front of the date. A prefix in several directories, each of
them without any other, is a recorder that moved or a prefix that nobody set: the directories are the stations. Numbers
in front of the date also divide a station where each occurs on several recordings, which those of a counter do not.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from naturelm.config.station_rule import StationRule, parse_station_rule
from naturelm.errors import NaturelmError
from naturelm.recordings.names import station_in_name
from naturelm.recordings.recording import Recording
from naturelm.text import composed

OVERLAP_S = 2.0
"""Recorders round the time in a name to a second, and start the next file while they close the last."""

BY_NAME = "file name"
BY_FOLDER = "directory"
BY_ROOT = "name of PATH"
BY_NUMBER = "number in name"
BY_PATTERN = "pattern"

# Directories that say when, on which card, in which form or on which visit something was recorded, and not where.
_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
_NO_PLACE = re.compile(
    rf"(?:19|20)\d\d(?:[-_. ]?\d\d(?:[-_. ]?\d\d)?)?(?:[-_T ]\d\d[-_:.]?\d\d(?:[-_:.]?\d\d)?)?"
    rf"|\d\d[-_.]\d\d[-_.](?:19|20)?\d\d|(?:\d\d?[-_ ]?)?(?:{_MONTHS})(?:[-_ ]?(?:\d\d|(?:19|20)\d\d))?"
    r"|data|raw(?:[-_ ]?(?:data|audio|files))?|audio(?:[-_ ]?files)?|sounds?|recordings?|records?|files"
    r"|wavs?|flac|mp3|ogg|aiff?"
    r"|(?:sd[-_ ]?)?cards?[-_ ]?[0-9a-d]{0,2}|sd[-_ ]?[0-9a-d]?|dcim|\d{3}media|usb\d?|disk[-_ ]?\d{0,2}"
    r"|(?:week|woche|kw|semaine|semana|visit|(?:field)?trip|batch|download|upload|deploy(?:ment)?|survey|round|session"
    r"|part|period|phase|retrieval|collection|season|backup|copy)s?[-_ ]?\d{0,4}[a-d]?",
    re.IGNORECASE,
)
_SERIAL_NUMBER = re.compile(r"(?P<number>[0-9A-F]{16})_\d{8}_|(?P<sound_trap>\d+)\.\d{12}(?!\d)")
_NUMBER = re.compile(r"(?P<number>\d{1,7})_(?:19|20)\d{6}[_T$]\d{6}(?!\d)")

Division = tuple[tuple[str, ...], str]
"""A station that was divided, as the names that led to it, and by what (see `_KEYS`)."""


def place(relative_path: str, root_name: str) -> str:
    """The station that directories say, else the root."""
    return next(_places(relative_path), root_name)


def _places(relative_path: str) -> Iterator[str]:
    """Directories of a path that may be named after a place, the outermost first; the first of all where none is."""
    return iter(_named_places(relative_path.rpartition("/")[0]))


# Files of one directory come together.
@functools.lru_cache(maxsize=1024)
def _named_places(directory: str) -> tuple[str, ...]:
    directories = PurePosixPath(directory).parts
    return tuple(part for part in directories if not _NO_PLACE.fullmatch(part)) or directories[:1]


@dataclass(frozen=True, slots=True)
class Placement:
    """Recordings with their stations, and how these were found.

    Attributes
    ----------
    recordings : list of Recording
        In the order given.
    sources : dict of str to tuple of str
        By station: in which ways it was found, this module's `BY_…` constants.
    divisions : frozenset of Division
        Stations that were divided, now or by earlier scans.
    """

    recordings: list[Recording]
    sources: dict[str, tuple[str, ...]]
    divisions: frozenset[Division] = frozenset()


def place_stations(
    recordings: Sequence[Recording], setting: str, divisions: Collection[Division] = ()
) -> Placement:
    """Say which station each recording is from.

    Parameters
    ----------
    recordings : sequence of Recording
        As `probe` describes them.
    setting : str
        `recordings.station`, see `naturelm.config.station_rule`.
    divisions : collection of Division
        Of earlier scans: a station stays divided where a scan sees only a part of it.

    Raises
    ------
    NaturelmError
        The setting is invalid, or says nothing of any recording.
    """
    rule = parse_station_rule(setting)
    if rule.kind == "auto":
        return _divided(recordings, frozenset(divisions))
    found = [_by_rule(recording, rule) for recording in recordings]
    if recordings and not any(found):
        raise NaturelmError(
            f"--station-from {setting} (recordings.station) finds no station in any of {len(recordings)} recordings, "
            f"the first of which is {recordings[0].path!r}"
        )
    by = {"name": BY_NAME, "folder": BY_FOLDER, "pattern": BY_PATTERN}[rule.kind]
    placed, sources = [], defaultdict(set)
    for recording, station in zip(recordings, found, strict=True):
        sources[station or recording.station].add(by if station else source_of(recording))
        placed.append(_at(recording, station or recording.station))
    return Placement(placed, _in_order(sources), frozenset(divisions))


def source_of(recording: Recording) -> str:
    """How `probe` found the station of a recording."""
    prefix = station_in_name(_name(recording))
    if prefix is not None and composed(prefix) == recording.station:
        return BY_NAME
    return BY_FOLDER if next(_places(recording.path), None) is not None else BY_ROOT


def overlaps(recordings: Sequence[Recording]) -> dict[str, list[tuple[Recording, Recording]]]:
    """By station: recordings that begin before another one of the station ends, each after that one.

    Copies of a recording overlap with it and say nothing of recorders, so they are left out.
    """
    by_station: dict[str, list[Recording]] = defaultdict(list)
    for recording in _without_copies(recordings):
        by_station[recording.station].append(recording)
    found = {}
    for station, own in by_station.items():
        pairs = []
        last: Recording | None = None
        reach: datetime | None = None
        for start, end, recording in _spans(own):
            if last is not None and reach is not None and start < reach:
                pairs.append((last, recording))
            if reach is None or end > reach:
                last, reach = recording, end
        if pairs:
            found[station] = pairs
    return found


def _by_rule(recording: Recording, rule: StationRule) -> str | None:
    if rule.pattern is not None:
        named = rule.pattern.read(recording.path)
        return composed(named.station) if named is not None and named.station else None
    if rule.kind == "name":
        name = _name(recording)
        found = station_in_name(name) or _serial_number(name) or _number(name)
        return composed(found) if found else None
    if rule.level is None:
        return next((composed(part) for part in _places(recording.path)), None)
    directories = PurePosixPath(recording.path).parts[:-1]
    index = rule.level - 1 if rule.level > 0 else rule.level
    return composed(directories[index]) if -len(directories) <= index < len(directories) else None


# --- dividing stations that are two


def _folder_key(level: int) -> Callable[[Recording], str | None]:
    def key(recording: Recording) -> str | None:
        return next((part for index, part in enumerate(_places(recording.path)) if index == level), None)

    return key


def _number_key(recording: Recording) -> str | None:
    name = _name(recording)
    return _serial_number(name) or _number(name)


_DEEPEST = 8
_NUMBER_KEY = "number"
_KEYS: dict[str, Callable[[Recording], str | None]] = {
    **{f"folder:{level + 1}": _folder_key(level) for level in range(_DEEPEST)},
    _NUMBER_KEY: _number_key,
}


@dataclass(slots=True)
class _Group:
    """Recordings of one station, by the names that led to it."""

    chain: tuple[str, ...]
    source: str
    members: list[Recording]


def _divided(recordings: Sequence[Recording], known: frozenset[Division]) -> Placement:
    by_base: dict[tuple[str, str], list[Recording]] = defaultdict(list)
    for recording in recordings:
        by_base[recording.station, source_of(recording)].append(recording)
    divisions = set(known)
    leaves: list[_Group] = []
    prefixes = _prefixes(recordings)
    for (station, source), members in sorted(by_base.items(), key=lambda item: item[0]):
        leaves += _leaves(_Group((station,), source, members), list(_KEYS), divisions, prefixes)
    names = _leaf_names(leaves)
    sources: dict[str, set[str]] = defaultdict(set)
    stations: dict[int, str] = {}
    for leaf, name in zip(leaves, names, strict=True):
        sources[name].add(leaf.source)
        for recording in leaf.members:
            stations[id(recording)] = name
    placed = [_at(recording, stations[id(recording)]) for recording in recordings]
    return Placement(placed, _in_order(sources), frozenset(divisions))


def _prefixes(recordings: Sequence[Recording]) -> dict[str, set[str | None]]:
    """By directory: the prefixes of the names of recordings in and below it."""
    found: dict[str, set[str | None]] = defaultdict(set)
    for recording in recordings:
        directory, _, name = recording.path.rpartition("/")
        prefix = station_in_name(name)
        while directory:
            found[directory].add(prefix)
            directory = directory.rpartition("/")[0]
    return found


def _leaves(
    group: _Group, keys: Sequence[str], divisions: set[Division], prefixes: dict[str, set[str | None]]
) -> Iterator[_Group]:
    """A group, or the groups that it is divided into."""
    has_overlaps = bool(overlaps(group.members))
    may_have_sites = group.source == BY_NAME and len(group.chain) == 1
    for position, key in enumerate(keys):
        is_open = has_overlaps or may_have_sites or key == _NUMBER_KEY
        if not is_open and (group.chain, key) not in divisions:
            continue
        if key == _NUMBER_KEY and group.source == BY_NAME:
            continue
        parts: dict[str | None, list[Recording]] = defaultdict(list)
        for recording in group.members:
            parts[_KEYS[key](recording)].append(recording)
        is_known = (group.chain, key) in divisions and any(part is not None for part in parts)
        is_told_apart = len(parts) > 1 and (
            (has_overlaps and _parts_overlap(parts))
            or (key == _NUMBER_KEY and _are_numbered(parts))
            or (key != _NUMBER_KEY and may_have_sites and _are_sites(group.chain[0], parts, prefixes))
        )
        if not is_known and not is_told_apart:
            continue
        divisions.add((group.chain, key))
        for part in sorted(parts, key=lambda part: part or ""):
            if part is None:
                leaf = _Group(group.chain, group.source, parts[part])
            else:
                source = BY_NUMBER if key == _NUMBER_KEY else BY_FOLDER
                leaf = _Group((*group.chain, composed(part)), source, parts[part])
            yield from _leaves(leaf, keys[position + 1 :], divisions, prefixes)
        return
    yield group


def _leaf_names(leaves: Sequence[_Group]) -> list[str]:
    """The last name of each group, or all of them where two groups end with the same one."""
    ends = Counter(leaf.chain[-1] for leaf in leaves if len(leaf.chain) > 1)
    taken = {leaf.chain[0] for leaf in leaves if len(leaf.chain) == 1}
    return [
        leaf.chain[-1]
        if len(leaf.chain) == 1 or (ends[leaf.chain[-1]] == 1 and leaf.chain[-1] not in taken)
        else "_".join(leaf.chain)
        for leaf in leaves
    ]


def _are_sites(
    prefix: str, parts: dict[str | None, list[Recording]], prefixes: dict[str, set[str | None]]
) -> bool:
    """Whether directories that share a prefix are places: they hold no other one, and are not named after it."""
    for part, members in parts.items():
        if part is None or _NO_PLACE.fullmatch(part) or composed(part).lower().startswith(prefix.lower()):
            return False
        for directory in {recording.path.rpartition("/")[0] for recording in members}:
            inside = PurePosixPath(directory).parts
            site = "/".join(inside[: inside.index(part) + 1])
            if len(prefixes[site]) > 1:
                return False
    return True


def _are_numbered(parts: dict[str | None, list[Recording]]) -> bool:
    """Whether numbers in front of the date occur on several recordings each."""
    return all(
        part is not None and len(members) > 1 and _number(_name(members[0])) == part
        for part, members in parts.items()
    )


def _parts_overlap(parts: dict[str | None, list[Recording]]) -> bool:
    """Whether recordings of two parts were made at the same time."""
    named = ((part, recording) for part, members in parts.items() for recording in members)
    part_of = {id(recording): part for part, recording in named}
    members = _without_copies([recording for part in parts.values() for recording in part])
    # The part that reaches furthest, and the furthest of the others.
    first: tuple[str | None, datetime] | None = None
    second: datetime | None = None
    for start, end, recording in _spans(members):
        part = part_of[id(recording)]
        others = second if first is not None and first[0] == part else first and first[1]
        if others is not None and start < others:
            return True
        if first is None or first[0] == part:
            first = (part, max(end, first[1]) if first else end)
        elif end > first[1]:
            second, first = first[1], (part, end)
        elif second is None or end > second:
            second = end
    return False


def _spans(recordings: Sequence[Recording]) -> list[tuple[datetime, datetime, Recording]]:
    """Start and end of those recordings of which they are known, by start; ends less the tolerance.

    UTC counts where it is known of all, so that a change of the clocks is not an overlap.
    """
    known = [r for r in recordings if r.start_local is not None and r.duration_s is not None]
    in_utc = all(recording.start_time is not None for recording in known)
    spans = []
    for recording in known:
        start = recording.start_time if in_utc else recording.start_local
        assert start is not None
        spans.append((start, start + timedelta(seconds=(recording.duration_s or 0.0) - OVERLAP_S), recording))
    return sorted(spans, key=lambda span: (span[0], span[2].path))


def _without_copies(recordings: Sequence[Recording]) -> list[Recording]:
    seen: set[str] = set()
    kept = []
    for recording in recordings:
        if recording.content is None or recording.content not in seen:
            kept.append(recording)
            seen.add(recording.content or "")
    return kept


def _serial_number(name: str) -> str | None:
    match = _SERIAL_NUMBER.match(name)
    return (match["number"] or match["sound_trap"]) if match else None


def _number(name: str) -> str | None:
    match = _NUMBER.match(name)
    return match["number"] if match else None


def _name(recording: Recording) -> str:
    return recording.path.rpartition("/")[2]


def _at(recording: Recording, station: str) -> Recording:
    return recording if station == recording.station else replace(recording, station=station)


def _in_order(sources: dict[str, set[str]]) -> dict[str, tuple[str, ...]]:
    return {station: tuple(sorted(sources[station])) for station in sorted(sources)}
