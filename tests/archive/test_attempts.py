"""Nothing that kills or fails a worker can end the run or go round for ever."""

from __future__ import annotations

import pytest

from naturelm.archive.attempts import ATTEMPTS, CarefulAsk, DeviceLostError, Register, decode_carefully
from naturelm.archive.job import process_archive
from naturelm.archive.stages import DecodedSegment
from naturelm.config.loading import load_archive_config
from naturelm.errors import RunStopped
from naturelm.recordings import Recording
from naturelm.segments import Read, Segment
from naturelm.windows import Window
from tests.archive.runs import published, quiet, table
from tests.archive.stub_model import FaultyAsk, StubAsk
from tests.archive.stub_runs import record

CONFIG = load_archive_config(None, {"job": {"workers": 0, "segment_minutes": 0.5}})


class Killed(BaseException):
    """Stands for the end of a worker's process: nothing after it runs there."""


class Deadly(StubAsk):
    """Dies where a recording is called poison; remembers what it was asked together."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.asked: list[tuple[list[str], int]] = []

    def __call__(self, decoded, shrink=1):
        self.asked.append(([part.segment.recording.path for part in decoded], shrink))
        if any("poison" in part.segment.recording.path for part in decoded):
            raise Killed
        return super().__call__(decoded, shrink)


def parts(*paths: str) -> list[DecodedSegment]:
    found = []
    for number, path in enumerate(paths):
        recording = Recording(f"{number:032x}", path, "/", "S", duration_s=10.0)
        segment = Segment(recording, 0, 1, 0.0, 10.0, 10.0)
        found.append(DecodedSegment(segment, b"\0\0", (Window(0, 0.0, 10.0),), 10.0, "ok", None))
    return found


def survivors(ask: StubAsk, register: Register, decoded: list[DecodedSegment]):
    """Give the same work to a fresh worker until one lives to answer; how many died."""
    for deaths in range(20):
        try:
            return CarefulAsk(ask, register)(decoded), deaths
        except Killed:
            continue
    raise AssertionError("goes round for ever")


def test_what_kills_its_worker_is_given_up_after_three_attempts_and_its_neighbours_are_answered():
    ask, register = Deadly(), Register()
    answered, deaths = survivors(ask, register, parts("a", "poison", "b"))
    assert [(a.segment.recording.path, a.status) for a in answered] == [
        ("a", "ok"),
        ("poison", "crashed"),
        ("b", "ok"),
    ]
    assert deaths == ATTEMPTS
    assert "died on it 3 times" in (answered[1].error or "")
    # Once together, then one by one in smaller batches: the innocent are no longer beside the guilty.
    assert ask.asked[0] == (["a", "poison", "b"], 1)
    assert [shrink for paths, shrink in ask.asked if paths == ["poison"]] == [8, 64]


def test_two_that_kill_are_both_given_up():
    answered, _ = survivors(Deadly(), Register(), parts("poison1", "a", "poison2"))
    assert [a.status for a in answered] == ["crashed", "ok", "crashed"]


def test_what_ended_is_not_counted_when_it_is_asked_again():
    register = Register()
    for _ in range(2 * ATTEMPTS):
        (answered,) = CarefulAsk(Deadly(), register)(parts("a"))
        assert answered.status == "ok"


def test_segment_that_makes_the_model_fail_is_crashed_alone_and_says_why():
    answered = CarefulAsk(FaultyAsk(CONFIG), Register())(parts("a", "error", "b"))
    assert [a.status for a in answered] == ["ok", "crashed", "ok"]
    assert answered[1].error == "the model failed on it (RuntimeError: no kernel for this)"
    assert (answered[1].windows, answered[1].answers) == ((), ())


@pytest.mark.parametrize("beside", [(), ("a",)])
def test_segment_that_needs_much_memory_is_answered_in_smaller_batches(beside):
    answered = CarefulAsk(FaultyAsk(CONFIG), Register())(parts("big", *beside))
    assert {a.status for a in answered} == {"ok"}


def test_lost_gpu_ends_the_process_and_counts_as_an_attempt():
    class Lost(StubAsk):
        def __call__(self, decoded, shrink=1):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    register = Register()
    for _ in range(ATTEMPTS):
        with pytest.raises(DeviceLostError):
            CarefulAsk(Lost(CONFIG), register)(parts("a"))
    (answered,) = CarefulAsk(Lost(CONFIG), register)(parts("a"))
    assert answered.status == "crashed"


def test_nothing_begins_once_the_run_is_to_end():
    register = Register()
    register.stop()
    ask = Deadly()
    assert CarefulAsk(ask, register)(parts("a")) == []
    (part,) = parts("a")
    assert list(decode_carefully(lambda read: iter([part]), read_of(part), register)) == []
    assert ask.asked == []


def read_of(part: DecodedSegment) -> Read:
    return Read(part.segment.recording, (part.segment,))


def test_read_that_kills_the_process_that_decodes_is_given_up():
    register = Register()
    (part,) = parts("a")

    def deadly(read):
        raise Killed
        yield

    for _ in range(ATTEMPTS):
        with pytest.raises(Killed):
            list(decode_carefully(deadly, read_of(part), register))
    (given_up,) = decode_carefully(deadly, read_of(part), register)
    assert (given_up.status, given_up.pcm, given_up.windows) == ("crashed", b"", ())


def test_crashed_segment_is_a_row_and_is_tried_again_when_asked(tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "out"
    record(archive / "S/a.wav", 1)
    record(archive / "S/error.wav", 2)
    counts = process_archive([archive], out, CONFIG, quiet(), make_ask=FaultyAsk)
    assert counts.recordings == {"ok": 1, "crashed": 1, "done before": 0}
    rows = {row["path"]: row for row in table(out, "recordings").to_pylist()}
    assert rows["S/error.wav"]["status"] == "crashed"
    assert rows["S/error.wav"]["windows"] == 0
    assert process_archive([archive], out, CONFIG, quiet(), make_ask=StubAsk).segments == 0
    process_archive([archive], out, CONFIG, quiet(), make_ask=StubAsk, retry_failed=True)
    other = tmp_path / "undisturbed"
    process_archive([archive], other, CONFIG, quiet(), make_ask=StubAsk)
    assert published(out) == published(other)


def test_model_that_fails_on_everything_ends_the_run_and_leaves_no_crashed_rows(tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "out"
    for number in range(9):
        record(archive / f"S/error{number}.wav", number, seconds=12)
    with pytest.raises(RunStopped, match="first 8 segments all crashed"):
        process_archive([archive], out, CONFIG, quiet(), make_ask=FaultyAsk)
    counts = process_archive([archive], out, CONFIG, quiet(), make_ask=StubAsk)
    assert counts.recordings == {"ok": 9, "done before": 0}
