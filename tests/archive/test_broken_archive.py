"""An archive with broken files: the run ends normally and every file has its row."""

from __future__ import annotations

import datetime as dt

import pytest

from naturelm.recordings.discovery import path_to_text
from naturelm.windows import window_count
from tests.archive.runs import CONFIG, run, table
from tests.broken_files import make_all


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    archive, out = tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("out")
    expected = make_all(archive)
    counts = run([archive], out)
    rows = {row["path"]: row for row in table(out, "recordings").to_pylist()}
    by_kind = {kind: rows[path_to_text(str(e.path.relative_to(archive)))] for kind, e in expected.items()}
    return expected, by_kind, rows, counts, out, archive


def test_every_file_has_one_row_with_the_right_status_and_seconds(made):
    expected, by_kind, rows, counts, _, _ = made
    assert len(rows) == len(expected) == counts.recordings.total()
    for kind, want in expected.items():
        row = by_kind[kind]
        assert row["status"] == want.status, (kind, row)
        assert row["decoded_s"] == pytest.approx(want.decoded_s, abs=want.tolerance_s), kind
        if want.claimed_s is None:
            assert row["duration_s"] is None, kind
        else:
            assert row["duration_s"] == pytest.approx(want.claimed_s, abs=want.tolerance_s), kind
        assert (row["error"] is None) == (want.status == "ok"), kind


def test_what_can_be_heard_of_each_file_is_answered(made):
    expected, by_kind, _, _, out, _ = made
    answers = table(out, "answers").to_pylist()
    for kind, want in expected.items():
        row = by_kind[kind]
        windows = window_count(want.decoded_s, CONFIG.windows.length_s, CONFIG.windows.hop_s)
        assert row["windows"] == windows, kind
        own = [a for a in answers if a["recording_id"] == row["recording_id"]]
        assert len(own) == 2 * windows, kind
        assert all(a["end_s"] == pytest.approx(row["decoded_s"], abs=1e-3) for a in own), kind


def test_audiomoth_in_upper_case_has_its_time_and_place(made):
    row = made[1]["audiomoth"]
    assert row["path"].endswith(".WAV")
    assert row["start_time"] == dt.datetime(2025, 5, 3, 1, 13, tzinfo=dt.UTC)
    assert row["start_local"] == dt.datetime(2025, 5, 3, 3, 13)
    assert (row["latitude"], row["longitude"]) == (52.146196, 4.474776)


def test_failures_are_told_with_file_names(made):
    expected, _, _, counts, _, _ = made
    assert len(counts.failures) == sum(want.status != "ok" for want in expected.values())
    assert any(failure.startswith("cut.flac: partial (") for failure in counts.failures)


def test_second_run_reads_no_broken_file_again(made):
    _, _, _, _, out, archive = made
    assert run([archive], out).segments == 0
