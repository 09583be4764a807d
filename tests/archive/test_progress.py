"""What a run tells people and machines while it works."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from naturelm.archive import figures as figures_module
from naturelm.archive import progress as progress_module
from naturelm.archive.figures import Counts, Figures, Meter
from naturelm.archive.progress import Progress
from naturelm.errors import NaturelmError
from naturelm.machine import Gpu, parse_gpus


def counts(**values) -> Counts:
    found = Counts(segments=2, windows=60, gated=4, sound_s=600.0, failures=["a.wav: corrupt (empty)"])
    found.detections.update({"Owl": 3, "Wren": 2})
    for name, value in values.items():
        setattr(found, name, value)
    return found


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(figures_module.time, "monotonic", lambda: self.now)


def test_rate_and_time_left_follow_the_last_ten_minutes(monkeypatch) -> None:
    clock = Clock(monkeypatch)
    meter = Meter(100_000.0)
    assert meter.read({}, (), {}).left_s is None
    # Half an hour at 10 × real time, then at 40.
    done_s = 0.0
    for step in range(360):
        clock.now += 10
        done_s += 100 if step < 180 else 400
        meter.saw(counts(sound_s=done_s))
        figures = meter.read({}, (), {})
        if step == 179:
            assert figures.times_real_time == pytest.approx(10)
    assert figures.times_real_time == pytest.approx(40)
    assert figures.left_s == pytest.approx((100_000 - done_s) / 40)
    assert figures.elapsed_s == 3600


def test_rate_sinks_while_nothing_comes(monkeypatch) -> None:
    clock = Clock(monkeypatch)
    meter = Meter(10_000.0)
    clock.now += 100
    meter.saw(counts(sound_s=1000.0))
    rates = []
    for _ in range(3):
        rates.append(meter.read({}, (), {}).times_real_time)
        clock.now += 100
    assert rates == pytest.approx([10, 5, 10 / 3])


def test_figures_say_everything_in_one_line() -> None:
    figures = Figures(
        sound_s=7200,
        total_s=36_000,
        times_real_time=34.4,
        left_s=840,
        windows=60,
        gated=4,
        detections=5,
        failed=1,
        queues={"to decode": 12, "to answer": 3},
        gpus=(Gpu("H200", 40 * 1024, 141 * 1024, 98), Gpu("H200", 1024, 141 * 1024, None)),
    )
    assert re.fullmatch(
        r"2\.0 h of 10\.0 h, 14\.0 min left \(until (\w{3} )?\d\d:\d\d\), 34 × real time, 5 detections, "
        r"4 of 60 windows gated, 1 failed, to decode 12, to answer 3, GPU 98 % 40 of 141 GiB, GPU 1 of 141 GiB",
        str(figures),
    )
    on_two = replace(figures, gpus=(), cluster={"nodes": 2, "cpus": 64.0, "gpus": 8.0})
    assert str(on_two).endswith("to answer 3, 2 nodes with 64 CPUs and 8 GPUs")
    assert "left" not in str(figures.without_outlook())
    assert Figures(**json.loads(json.dumps(figures.as_json())) | {"gpus": figures.gpus}) == figures


def test_gpus_are_read_from_the_vendors_tool() -> None:
    text = "NVIDIA H200, 1234, 143771, 87\nNVIDIA A, B, 5, 10, [N/A]\nNo devices were found\nX, [N/A], 3, 4\n"
    assert parse_gpus(text) == (Gpu("NVIDIA H200", 1234, 143771, 87), Gpu("NVIDIA A, B", 5, 10, None))


@pytest.fixture
def quick(monkeypatch) -> None:
    for name in ("_LINE_EVERY_S", "_JSON_EVERY_S", "_LOOK_EVERY_S"):
        monkeypatch.setattr(progress_module, name, 0.0)


def a_run(progress: Progress) -> None:
    progress.say("before")
    progress.start(1200.0, 3, 1)
    progress.show_queues({"to answer": 7})
    progress.update(counts())
    time.sleep(1.2)
    progress.stop(counts(sound_s=1200.0))


@pytest.mark.usefixtures("quick")
def test_lines_and_log_hold_the_same_and_the_log_has_the_time(tmp_path) -> None:
    screen, log = io.StringIO(), tmp_path / "run.log"
    log.write_text("of yesterday\n")
    a_run(Progress(Console(file=screen, width=80), log))
    lines = screen.getvalue().splitlines()
    assert lines[:2] == ["before", "3 recordings, 1 of them done before; 20.0 min of sound to answer"]
    assert "a.wav: corrupt (empty)" in lines
    # Told by the clock, while nothing came, and at the end.
    reported = [line for line in lines if line.startswith(("10.0 min of 20.0 min", "20.0 min of 20.0 min"))]
    assert len(reported) >= 2
    assert all("5 detections" in line and "1 failed, to answer 7" in line for line in reported)
    assert reported[-1].startswith("20.0 min of 20.0 min")
    yesterday, *logged = log.read_text().splitlines()
    assert yesterday == "of yesterday"
    stamps, texts = zip(*(line.split(" ", 1) for line in logged), strict=True)
    assert list(texts) == lines
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", stamp) for stamp in stamps)


@pytest.mark.usefixtures("quick")
def test_machines_get_one_object_per_line() -> None:
    machine = io.StringIO()
    progress = Progress(Console(file=io.StringIO()), json_lines=machine)
    a_run(progress)
    progress.emit("end", status="complete")
    events = [json.loads(line) for line in machine.getvalue().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[:3] == ["message", "start", "failure"]
    assert set(kinds[3:-1]) == {"progress"}
    assert kinds[-1] == "end"
    last = events[-2]
    assert (last["sound_s"], last["total_s"], last["detections"]) == (1200.0, 1200.0, 5)
    assert last["queues"] == {"to answer": 7}
    assert all("time" in event for event in events)


@pytest.mark.usefixtures("quick")
def test_terminal_shows_a_display_and_keeps_failures_above_it() -> None:
    screen = io.StringIO()
    a_run(Progress(Console(file=screen, force_terminal=True, width=100)))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "a.wav: corrupt (empty)" in text
    assert "10.0 of 20.0 min" in text
    assert "4 of 60 windows gated, 1 failed, to answer 7" in text


def test_file_names_cannot_steer_the_terminal_or_the_log(tmp_path) -> None:
    screen, log = io.StringIO(), tmp_path / "run.log"
    progress = Progress(Console(file=screen), log)
    progress.update(counts(failures=["\x1b[2Jx\n2026-01-01 [bold]y[/bold]: corrupt"]))
    for text in (screen.getvalue(), log.read_text()):
        assert "\x1b" not in text
        assert text.count("\n") == 1
        assert "[bold]y[/bold]" in text


@pytest.mark.usefixtures("quick")
def test_listeners_are_told_while_nothing_comes_and_at_the_end() -> None:
    reported: list[float] = []

    def listen(figures: Figures) -> None:
        reported.append(figures.sound_s)
        raise OSError(28, "No space left on device")

    progress = Progress(Console(file=io.StringIO()))
    progress.also(listen, 0.0)
    a_run(progress)
    assert reported[0] == 600.0
    assert reported[-1] == 1200.0
    assert len(reported) >= 2


def test_log_that_cannot_be_written_is_told(tmp_path) -> None:
    with pytest.raises(NaturelmError, match=r"cannot be written .* give --log-file another path"):
        Progress(log_file=tmp_path / "not there" / "run.log")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_ends_the_log_and_not_the_run() -> None:
    screen = io.StringIO()
    progress = Progress(Console(file=screen, width=200), Path("/dev/full"))
    progress.say("one")
    progress.say("two")
    assert screen.getvalue().splitlines() == [
        "one",
        "/dev/full: the log ends here (No space left on device)",
        "two",
    ]
