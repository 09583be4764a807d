"""What the user's pattern for names says of recordings, and which names need one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from naturelm.config.name_pattern import GivenPattern
from naturelm.errors import NaturelmError
from naturelm.recordings.names import parse_name
from naturelm.recordings.readings import readings
from naturelm.recordings.recording import Recording
from naturelm.recordings.times import in_utc, is_possible_offset, is_possible_start
from naturelm.text import composed


def apply_pattern(recordings: Sequence[Recording], text: str) -> list[Recording]:
    """Recordings with the start and the station that a pattern finds in their names.

    What the user says of names wins over metadata. A recording whose name does not match, or says an impossible time,
    stays as it is. An offset that the pattern does not ask for stays where the pattern says the same local time.

    Raises
    ------
    NaturelmError
        The pattern is invalid, or no name matches it.
    """
    pattern = GivenPattern(text)
    described = [_by_pattern(recording, pattern) for recording in recordings]
    if recordings and all(after is before for before, after in zip(recordings, described, strict=True)):
        raise NaturelmError(
            f"name pattern {text!r} (--name-pattern, recordings.name_pattern) matches none of {len(recordings)} "
            f"recordings, the first of which is {recordings[0].path!r}; describe the whole name without its "
            "extension, with * for anything"
        )
    return described


def _by_pattern(recording: Recording, pattern: GivenPattern) -> Recording:
    stated = pattern.read(recording.path)
    if stated is None:
        return recording
    station = composed(stated.station) if stated.station else recording.station
    start = stated.start_local
    if start is None:
        return replace(recording, station=station)
    offset = stated.utc_offset_minutes
    if not is_possible_start(start) or (offset is not None and not is_possible_offset(offset)):
        return recording
    if offset is None and start == recording.start_local:
        offset = recording.utc_offset_minutes
    return replace(
        recording,
        station=station,
        start_local=start,
        start_time=None if offset is None else in_utc(start, offset),
        start_time_source="pattern",
        utc_offset_minutes=offset,
    )


def suggest_patterns(name: str) -> list[str]:
    """Patterns (see `config.name_pattern`) by which a name may say a time, where `parse_name` finds none.

    Parameters
    ----------
    name : str
        File name with its extension, without directories.

    Returns
    -------
    list of str
        The likeliest first; empty where the name holds a time that is read, or nothing that looks like one.
    """
    if parse_name(name).start_local is not None:
        return []
    stem = name.rpartition(".")[0] or name
    patterns = []
    for reading in readings(name):
        before, after = stem[: reading.start], stem[reading.end :]
        parts = re.fullmatch(r"(.*[A-Za-z].*?)([-_ .]+)", before)
        prefix = "{station}" + parts[2] if parts else "*" if before else ""
        patterns.append(prefix + reading.pattern + ("*" if after else ""))
    return patterns


@dataclass(frozen=True, slots=True)
class AmbiguousNames:
    """Recordings without a known start whose names may say one in the same ways.

    Attributes
    ----------
    patterns : tuple of str
        What `--name-pattern` may be given, the likeliest first.
    count : int
        How many recordings.
    example : str
        Path of the first one.
    """

    patterns: tuple[str, ...]
    count: int
    example: str

    @property
    def sentence(self) -> str:
        """Ready to be printed."""
        choices = " or ".join(f"'{pattern}'" for pattern in self.patterns)
        names = "name" if self.count == 1 else "names"
        return f"{self.count} {names} like {self.example!r} may contain a time: give --name-pattern {choices}"


def ambiguous_names(recordings: Iterable[Recording]) -> list[AmbiguousNames]:
    """Of the recordings without a known start, those whose names may say one; the commonest kind first."""
    paths: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for recording in recordings:
        if recording.start_local is None:
            patterns = suggest_patterns(recording.path.rpartition("/")[2])
            if patterns:
                paths[tuple(patterns)].append(recording.path)
    kinds = [AmbiguousNames(patterns, len(alike), min(alike)) for patterns, alike in paths.items()]
    return sorted(kinds, key=lambda kind: (-kind.count, kind.example))
