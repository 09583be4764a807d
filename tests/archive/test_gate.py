"""The activity gate: which windows the model need not hear, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.archive.stages import Decode
from naturelm.audio.gate import gated
from naturelm.audio.levels import BandLevels, BandMeter
from naturelm.cli import main
from naturelm.config.loading import load_archive_config
from naturelm.errors import NaturelmError
from naturelm.recordings import scan
from naturelm.segments import Read, cut_segments
from naturelm.synthetic.sounds import coloured_noise, songbird
from naturelm.windows import plan_windows
from tests.archive.runs import SETTINGS, run, table

RATE_HZ = 24_000
CALLS = {2: 4.0, 5: 1.0}
GATED = [window not in CALLS for window in range(9)]


def night(seconds: float = 90.0, calls: dict[int, float] = CALLS, seed: int = 0) -> np.ndarray:
    """Steady noise, with a songbird in some of the ten-second windows."""
    rng = np.random.default_rng(seed)
    sound = 0.005 * coloured_noise(rng, round(seconds * RATE_HZ), 1).astype(np.float32)
    for window, lasts_s in calls.items():
        start = round((window * 10 + 3) * RATE_HZ)
        call = 0.1 * songbird(rng, RATE_HZ, lasts_s)
        sound[start : start + len(call)] += call
    return sound


def levels_of(sound: np.ndarray) -> BandLevels:
    meter = BandMeter(RATE_HZ)
    meter.hear(sound.astype(np.float32))
    return meter.levels(0, len(sound) / RATE_HZ)


def test_windows_with_a_call_pass_and_the_others_do_not() -> None:
    assert list(gated(levels_of(night()), plan_windows(90, 10, 10, 0, 9), 3.0)) == GATED


def test_the_threshold_decides() -> None:
    levels, windows = levels_of(night()), plan_windows(90, 10, 10, 0, 9)
    counts = [sum(gated(levels, windows, threshold_db)) for threshold_db in (0.01, 3, 20, 99)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 9)


def test_louder_noise_is_background_too() -> None:
    """Rain that sets in is activity when it begins, and background when it goes on."""
    sound = night(180.0, {})
    sound[90 * RATE_HZ :] *= 10
    gates = gated(levels_of(sound), plan_windows(180, 10, 10, 0, 18), 3.0)
    assert all(gates[:9])
    assert not gates[9]
    assert all(gates[14:])


def test_a_click_is_no_activity() -> None:
    sound = night(30.0, {})
    sound[15 * RATE_HZ : 15 * RATE_HZ + 50] = 0.9
    assert all(gated(levels_of(sound), plan_windows(30, 10, 10, 0, 3), 3.0))


def test_digital_silence_is_gated_and_sound_after_it_is_not() -> None:
    sound = night(60.0, {})
    sound[: 30 * RATE_HZ] = 0
    gates = gated(levels_of(sound), plan_windows(60, 10, 10, 0, 6), 3.0)
    assert gates[:3] == (True, True, True)
    assert not gates[3]


def test_a_window_that_is_too_short_to_be_measured_is_not_gated() -> None:
    meter = BandMeter(1_000)  # frames of half a second
    meter.hear(np.zeros(400, np.float32))
    assert gated(meter.levels(0, 0.4), plan_windows(0.4, 10, 10), 3.0) == tuple(
        False for _ in plan_windows(0.4, 10, 10)
    )
    assert gated(meter.levels(0, 0.4), plan_windows(10, 10, 10), 3.0) == (False,)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("archive")
    soundfile.write(directory / "a.wav", night(), RATE_HZ)
    soundfile.write(directory / "b.wav", night(30.0, {}, seed=1), RATE_HZ)
    soundfile.write(directory / "c.mp3", night(seed=2), RATE_HZ)
    return directory


GATE = SETTINGS | {"gate": {"threshold_db": 3.0}}


@pytest.fixture(scope="module")
def gated_run(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("gated")
    return run([archive], out, load_archive_config(None, GATE)), out


def test_gated_windows_are_rows_without_an_answer(archive, gated_run, tmp_path) -> None:
    counts, out = gated_run
    plain = run([archive], tmp_path)
    assert (counts.windows, counts.answers) == (plain.windows, plain.answers)
    paths = {row["recording_id"]: row for row in table(out, "recordings").to_pylist()}
    assert {row["path"]: row["windows"] for row in paths.values()} == {"a.wav": 9, "b.wav": 3, "c.mp3": 9}
    full = {
        (row["recording_id"], row["window"], row["query"]): row
        for row in table(tmp_path, "answers").to_pylist()
    }
    assert not any(row["gated"] for row in full.values())
    passed = 0
    for row in table(out, "answers").to_pylist():
        whole = full.pop((row["recording_id"], row["window"], row["query"]))
        if row["gated"]:
            empty = {"text": None, "tokens": None, "score": None, "gated": True}
            assert row == whole | empty
        else:
            assert row == whole
            passed += 1
    assert not full
    assert passed == 2 * 2 * len(CALLS)


def test_gated_windows_have_no_detections_and_no_captions(gated_run) -> None:
    _, out = gated_run
    silent = {
        (row["recording_id"], row["start_s"]) for row in table(out, "answers").to_pylist() if row["gated"]
    }
    for name in ("detections", "captions"):
        assert not silent & {(row["recording_id"], row["start_s"]) for row in table(out, name).to_pylist()}
    assert table(out, "captions").num_rows == 2 * len(CALLS)


def test_no_gate_and_another_threshold_are_other_analyses(archive, gated_run) -> None:
    _, out = gated_run
    with pytest.raises(NaturelmError, match=r"gate .*threshold_db.*3\.0.* there, None now"):
        run([archive], out)
    with pytest.raises(NaturelmError, match=r"gate\.threshold_db \(3\.0 there, 4\.0 now\)"):
        run([archive], out, load_archive_config(None, SETTINGS | {"gate": {"threshold_db": 4.0}}))


def test_no_gate_leaves_the_analysis_as_it_was() -> None:
    assert "gate" not in load_archive_config(None, SETTINGS).analysis("r")


@pytest.mark.parametrize("name", ["a.wav", "c.mp3"])
def test_a_segment_is_gated_the_same_alone_as_among_others(archive, name) -> None:
    """A run that goes on inside a recording decodes what is left of it."""
    config = load_archive_config(None, GATE)
    recording = next(recording for recording in scan([archive]) if recording.path == name)
    segments = tuple(cut_segments(recording, config.windows, 3))
    assert len(segments) == 3
    decode = Decode(config)
    together = [part.gated for part in decode(Read(recording, segments))]
    alone = [part.gated for segment in reversed(segments) for part in decode(Read(recording, (segment,)))]
    decode.close()
    assert together == alone[::-1]
    assert sum(together, ()) == tuple(GATED)


def test_a_wrong_threshold_is_one_sentence(archive, tmp_path) -> None:
    result = CliRunner().invoke(main, ["process", str(archive), "--out", str(tmp_path / "o"), "--gate", "0"])
    assert result.exit_code == 2
    assert "--gate is 0.0: input should be greater than 0" in result.output
