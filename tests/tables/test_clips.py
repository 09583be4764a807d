"""Clips: the original samples, harmless names, and nothing from a wrong card."""

from __future__ import annotations

import csv
import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from PIL import Image

from naturelm.cli import main
from naturelm.cli.clips import clips
from naturelm.errors import NaturelmError
from naturelm.ids import file_recording_id
from naturelm.recordings.sun import sun_times
from naturelm.tables.clips import write_clips
from naturelm.tables.originals import archive_roots, locate_originals, read_excerpts
from naturelm.tables.spectrogram import spectrogram
from naturelm.text import file_name, guard, one_line
from tests.tables.listening_night import HOSTILE_LABELS, Night, make_listening_night
from tests.tables.make_tables import detection, recording, write_results


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return make_listening_night(tmp_path_factory.mktemp("night"))


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "clips.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def one_recording(
    directory: Path, samples: np.ndarray, rate: int, subtype: str, name: str
) -> tuple[Path, Path]:
    """An archive of one file, and results with a detection of its second to third second."""
    archive = directory / "archive"
    archive.mkdir()
    soundfile.write(archive / name, samples, rate, subtype=subtype)
    row = recording(name, recording_id=file_recording_id(archive / name, name), sample_rate_hz=rate)
    results = write_results(directory / "results", [row], [detection(row, 1.0, "Owl", end_s=2.0)])
    return archive, results


# --- samples


def test_clips_hold_the_originals_own_samples_at_their_own_rate(night: Night, tmp_path: Path) -> None:
    summary = write_clips(night.results, tmp_path, pad_s=1.0)
    rows = listed(tmp_path)
    assert summary.written == len(rows) == len(night.detections)
    rates = set()
    for row in rows:
        original, rate = soundfile.read(night.archive / row["path"], dtype="int16")
        clip, clip_rate = soundfile.read(tmp_path / row["file"], dtype="int16")
        first = max(0, round((float(row["start_s"]) - 1) * rate))
        last = round((float(row["end_s"]) + 1) * rate)
        assert clip_rate == rate
        np.testing.assert_array_equal(clip, original[first:last])
        assert float(row["clip_start_s"]) == pytest.approx(first / rate)
        rates.add(rate)
    assert rates == {24_000, 32_000, 48_000}


@pytest.mark.parametrize(
    ("subtype", "name"), [("PCM_24", "a.wav"), ("PCM_24", "a.flac"), ("PCM_16", "a.flac")]
)
def test_every_bit_and_channel_survives(subtype: str, name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    samples = random.integers(-(2**31), 2**31, (4 * 8000, 2), dtype=np.int32)
    archive, results = one_recording(tmp_path, samples, 8000, subtype, name)
    write_clips(results, tmp_path / "out", archive=archive, pad_s=0.5)
    [row] = listed(tmp_path / "out")
    clip, _ = soundfile.read(tmp_path / "out" / row["file"], dtype="int32", always_2d=True)
    original, _ = soundfile.read(archive / name, dtype="int32", always_2d=True)
    np.testing.assert_array_equal(clip, original[4000:20_000])


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.wav"])
def test_overlapping_spans_hold_what_decoding_the_whole_file_holds(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    path = tmp_path / name
    soundfile.write(path, 0.1 * random.standard_normal(300_000), 24_000)
    whole, rate = soundfile.read(path, dtype="float32", always_2d=True)
    spans = [(3.0, 8.5), (-1.0, 4.0), (3.5, 3.75), (11.0, 99.0), (50.0, 60.0), (2.0, 2.0)]
    found = {excerpt.index: excerpt for excerpt in read_excerpts(path, spans)}
    assert sorted(found) == [0, 1, 2, 3]
    for index, excerpt in found.items():
        first = max(0, round(spans[index][0] * rate))
        expected = whole[first : round(spans[index][1] * rate)]
        np.testing.assert_allclose(
            excerpt.samples, expected, atol=1e-6
        )  # lossy decoders round as they please
        assert excerpt.start_s == pytest.approx(first / rate)


def test_a_file_that_is_no_sound_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(NaturelmError, match=r"a\.wav: cannot be decoded"):
        list(read_excerpts(tmp_path / "a.wav", [(0.0, 1.0)]))


# --- which clips


def test_best_scores_come_first_and_top_counts_per_label(night: Night, tmp_path: Path) -> None:
    write_clips(night.results, tmp_path, top=1)
    rows = listed(tmp_path)
    best = {}
    for row in night.detections:
        best[row["label"]] = max(row["score"], best.get(row["label"], 0))
    assert {row["label"]: float(row["score"]) for row in rows} == best
    assert [float(row["score"]) for row in rows] == sorted(best.values(), reverse=True)


def test_labels_are_chosen_in_any_spelling_and_scores_from_the_lowest_wanted(
    night: Night, tmp_path: Path
) -> None:
    summary = write_clips(night.results, tmp_path, labels=["OWL"], min_score=0.75)
    wanted = [row for row in night.detections if row["label"] == "Owl" and row["score"] >= 0.75]
    assert summary.written == len(wanted) == len(listed(tmp_path))


def test_label_of_no_detection_is_refused_with_the_nearest_spelling(night: Night, tmp_path: Path) -> None:
    with pytest.raises(NaturelmError, match=r"no detection has the label 'Owel'; did you mean 'Owl'\?"):
        write_clips(night.results, tmp_path / "clips", labels=["Frog", "Owel"])
    assert not (tmp_path / "clips").exists()


def test_pictures_lie_beside_their_clips(night: Night, tmp_path: Path) -> None:
    write_clips(night.results, tmp_path, labels=["Cricket"], pictures=True)
    [row] = listed(tmp_path)
    with Image.open((tmp_path / row["file"]).with_suffix(".png")) as picture:
        assert picture.size == (960, 384)


# --- originals


def test_missing_originals_are_reported_and_skipped(night: Night, tmp_path: Path) -> None:
    moved = tmp_path / "archive"
    shutil.copytree(night.archive, moved)
    (moved / "ridge/20260515_013000.WAV").unlink()
    summary = write_clips(night.results, tmp_path / "out", archive=moved)
    assert summary.missing == ["ridge/20260515_013000.WAV"]
    assert summary.written == len(night.detections) - 1


def test_another_card_with_the_same_names_is_not_taken_for_the_original(night: Night, tmp_path: Path) -> None:
    path = "ridge/20260514_213000.WAV"
    other = tmp_path / path
    other.parent.mkdir()
    samples, rate = soundfile.read(night.archive / path, dtype="int16")
    soundfile.write(other, samples[::-1], rate)
    [wanted] = [row["recording_id"] for row in night.recordings if row["path"] == path]
    assert locate_originals(night.results, {wanted: path}, tmp_path) == {}
    assert locate_originals(night.results, {wanted: path}) == {wanted: night.archive / path}


@pytest.mark.parametrize("path", ["../secret.wav", "a/../../secret.wav", "{absolute}", ""])
def test_nothing_outside_the_archive_is_located(path: str, night: Night, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, np.zeros(8000), 8000)
    archive = tmp_path / "archive"
    (archive / "a").mkdir(parents=True)
    path = path.format(absolute=secret)
    assert locate_originals(night.results, {file_recording_id(secret, path): path}, archive) == {}


def test_the_newest_runs_archive_is_looked_in_first(tmp_path: Path) -> None:
    results = write_results(tmp_path)
    (results / "_runs").mkdir()
    for name, started, roots in (
        ("20260501", "2026-05-01", ["/old", "/both"]),
        ("20260502", "2026-05-02", ["/new", "/both"]),
    ):
        (results / "_runs" / f"{name}.json").write_text(json.dumps({"started": started, "roots": roots}))
    (results / "_runs" / "killed.json").write_text('{"started": "2026-05-03", "ro')
    (results / "_runs" / "list.json").write_text("[]")
    assert archive_roots(results) == [Path("/new"), Path("/both"), Path("/old")]


# --- hostile labels


def test_hostile_labels_make_harmless_files_and_cells(tmp_path: Path) -> None:
    night = make_listening_night(tmp_path, HOSTILE_LABELS)
    summary = write_clips(night.results, tmp_path / "out", pad_s=0, pictures=True)
    assert summary.written == len(night.detections) - HOSTILE_LABELS.count("None")
    files = [
        path
        for path in tmp_path.rglob("*")
        if path.suffix in {".flac", ".png"} and "archive" not in path.parts
    ]
    assert len(files) == 2 * summary.written
    for path in files:
        label, clip = path.relative_to(tmp_path / "out").parts
        assert all(char.isalnum() or char in "-_." for char in label + clip)
        assert not label.startswith((".", "-"))
        assert len(label.encode()) < 80
    rows = listed(tmp_path / "out")
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert {row["label"] for row in rows} >= {guard(label) for label in HOSTILE_LABELS if label != "None"}


def test_labels_that_sanitise_to_one_name_keep_folders_of_their_own(night: Night, tmp_path: Path) -> None:
    [row] = [row for row in night.recordings if row["path"].endswith("204500.wav")]
    labels = ["a/b", "a:b", "A_B"]
    results = write_results(
        tmp_path, [row], [detection(row, 10.0 * i, label) for i, label in enumerate(labels)]
    )
    write_clips(results, tmp_path / "out", archive=night.archive)
    folders = {row["label"]: row["file"].split("/")[0] for row in listed(tmp_path / "out")}
    assert len({name.casefold() for name in folders.values()}) == 3


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Great Tit", "Great_Tit"),
        ("Père David's", "Père_David_s"),
        ("../../etc/passwd", "etc_passwd"),
        ("猫頭鷹", "猫頭鷹"),
    ],
)
def test_plain_labels_stay_readable_as_file_names(text: str, name: str) -> None:
    assert file_name(text) == name


def test_device_names_and_nothing_at_all_become_ordinary_file_names() -> None:
    assert file_name("con") != "con"
    assert file_name("///").startswith("label-")
    assert file_name("///") != file_name("::::")


def test_invisible_characters_leave_a_line() -> None:
    assert one_line("a\x1b[31m\n\u202eb\u200b  c") == "a[31m b c"
    assert one_line("x" * 300, 10) == "x" * 9 + "…"


# --- the command


def test_command_writes_clips_and_says_so(night: Night, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        clips, [str(night.results), "--label", "frog", "--top", "2", "--out", str(out)]
    )
    assert (result.exit_code, result.output) == (0, f"2 clips in {out}\n")


def test_command_without_any_detections_succeeds_but_not_for_a_label(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results")
    result = CliRunner().invoke(main, ["clips", str(results), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    result = CliRunner().invoke(
        main, ["clips", str(results), "--label", "Owl", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert "--label: no detection has the label 'Owl'; there are none" in result.output


def test_clips_replace_others_only_on_request_and_never_through_links(night: Night, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside.csv"
    outside.write_text("mine")
    write_clips(night.results, out, top=1, pictures=True)
    with pytest.raises(NaturelmError, match="is not empty; give --overwrite"):
        write_clips(night.results, out, top=1)
    files = [path for path in out.rglob("*") if path.is_file()]
    for path in files:
        path.unlink()
        path.symlink_to(outside)
    write_clips(night.results, out, top=1, pictures=True, overwrite=True)
    assert outside.read_text() == "mine"
    assert not any(path.is_symlink() for path in files)
    folder = next(path for path in out.iterdir() if path.is_dir())
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NaturelmError, match="is a symbolic link"):
        write_clips(night.results, out, top=1, overwrite=True)


def test_command_fails_if_all_originals_are_missing(night: Night, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = [str(night.results), "--archive", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(clips, arguments)
    assert result.exit_code == 1
    assert "original not found" in result.output


@pytest.mark.parametrize("case", ["no results", "out is a file", "no archive"])
def test_input_mistakes_are_one_sentence(case: str, night: Night, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments: dict[str, dict[str, Any]] = {
        "no results": {"directory": tmp_path, "out": tmp_path / "out"},
        "out is a file": {"directory": night.results, "out": tmp_path / "file"},
        "no archive": {"directory": night.results, "out": tmp_path / "out", "archive": tmp_path / "nowhere"},
    }
    with pytest.raises(NaturelmError) as error:
        write_clips(**arguments[case])
    assert "\n" not in str(error.value)


# --- spectrogram and sun


@pytest.mark.parametrize(("rate", "tone_hz"), [(8_000, 1_000), (48_000, 3_000), (384_000, 9_000)])
def test_a_tone_is_brightest_at_its_frequency(rate: int, tone_hz: int) -> None:
    time_s = np.arange(4 * rate) / rate
    tone = np.where((time_s > 1) & (time_s < 2), np.sin(2 * np.pi * tone_hz * time_s), 0)
    picture = spectrogram(tone.astype(np.float32), rate)
    row, column = np.unravel_index(picture.level_db.argmax(), picture.level_db.shape)
    rows, columns = picture.level_db.shape
    assert (row + 0.5) / rows * picture.max_hz == pytest.approx(tone_hz, abs=1.5 * picture.max_hz / rows)
    assert 1.0 <= column / columns * picture.duration_s <= 2.0
    assert picture.duration_s == 4.0
    assert rows <= 160
    assert columns <= 600


@pytest.mark.parametrize("samples", [0, 1, 100, 16_000])
def test_silence_and_snippets_have_a_dark_picture(samples: int) -> None:
    picture = spectrogram(np.zeros(samples, np.float32), 16_000)
    assert picture.brightness().max() < 0.2


def test_sun_times_are_those_of_the_almanac() -> None:
    """London on Midsummer Day 2026: up at 4:43, down at 21:21, summer time (timeanddate.com)."""
    times = sun_times(51.5074, -0.1278, dt.date(2026, 6, 21), 60)
    assert times.up_h == pytest.approx(4 + 43 / 60, abs=0.06)
    assert times.down_h == pytest.approx(21 + 21 / 60, abs=0.06)


def test_the_sun_of_a_polar_day_neither_rises_nor_sets() -> None:
    times = sun_times(78.22, 15.65, dt.date(2026, 6, 21), 120)
    assert (times.up_h, times.down_h) == (None, None)
