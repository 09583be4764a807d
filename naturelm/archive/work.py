"""What a run has to do: the manifest, less what is committed, as far as it was chosen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from naturelm.archive.selection import Selection, in_order
from naturelm.config.archive import SelectionSettings, WindowSettings
from naturelm.recordings import Recording
from naturelm.results.days import PublishedRecording
from naturelm.results.statuses import NOT_FAILED
from naturelm.segments import Read, Segment, cut_segments, group_reads


@dataclass(frozen=True, slots=True)
class Todo:
    """A run's work.

    Attributes
    ----------
    due : list of Segment
        To be done; those without windows have only a row to be written.
    staged : list of Segment
        Committed by earlier runs, their days not published yet.
    incomplete : set of str
        Recordings of which segments remain that this run does not process.
    done_before : int
        Recordings of which nothing is due or staged because it is published.
    left_out : int
        Segments that are neither done nor chosen.
    """

    due: list[Segment]
    staged: list[Segment]
    incomplete: set[str]
    done_before: int
    left_out: int

    def reads(self, settings: SelectionSettings) -> list[Read]:
        """What is to be decoded, in the requested order."""
        return in_order(group_reads((s for s in self.due if s.window_count), ()), settings.order)


def find_todo(
    recordings: Sequence[Recording],
    published: Sequence[PublishedRecording],
    staged: Collection[str],
    windows: WindowSettings,
    segment_windows: int,
    selection: SelectionSettings,
    retry_failed: bool = False,
) -> Todo:
    """Subtract what is committed from what the recordings hold.

    Parameters
    ----------
    recordings : sequence of Recording
        The scan, with what the stations file says.
    published : sequence of PublishedRecording
        What the output directory holds.
    staged : collection of str
        Ids of the segments that are committed and not published.
    windows, segment_windows
        How recordings are cut.
    selection : SelectionSettings
        What is wanted of them.
    retry_failed : bool
        Do again what failed, chosen or not: all of a recording, or the failed segments of one that is published in
        parts.
    """
    done = {recording.recording_id: recording for recording in published}
    wanted = _chooser(recordings, windows, segment_windows, selection)
    due: list[Segment] = []
    waiting: list[Segment] = []
    incomplete: set[str] = set()
    done_before = left_out = 0
    for recording in recordings:
        old = done.get(recording.recording_id)
        retried = retry_failed and old is not None and old.parts is None and old.has_failed
        if old is not None and old.parts is None and not retried:
            done_before += 1
            continue
        parts = (old.parts or {}) if old is not None else {}
        begun = missing = 0
        for segment in cut_segments(recording, windows, segment_windows):
            status = parts.get(segment.first_window)
            again = retried or (retry_failed and status is not None and status not in NOT_FAILED)
            if status is not None and not again:
                continue
            if segment.id in staged:
                waiting.append(segment)
                begun += 1
            elif again or wanted(segment):
                due.append(segment)
                begun += 1
            elif status is None:
                missing += 1
        if missing:
            incomplete.add(recording.recording_id)
        left_out += missing
        done_before += bool(parts) and not begun
    return Todo(due, waiting, incomplete, done_before, left_out)


def _chooser(
    recordings: Sequence[Recording],
    windows: WindowSettings,
    segment_windows: int,
    selection: SelectionSettings,
) -> Callable[[Segment], bool]:
    chosen = Selection(selection, windows.hop_s)
    if selection.sample == 1:
        return chosen.holds

    # A share of all there is, and not of what is left: a second run with the same sample has nothing to do.
    def everything() -> Iterator[Segment]:
        for recording in recordings:
            yield from cut_segments(recording, windows, segment_windows)

    ids = {segment.id for segment in chosen.choose(everything())}
    return lambda segment: segment.id in ids
