"""Probing: one row's worth of facts for every file, from its header and name."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naturelm.recordings import Recording, scan
from tests.broken_files import SECONDS, Expected, audiomoth_bytes, make_all, noise, wav_bytes, write


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Expected]:
    return make_all(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def recordings(archive: dict[str, Expected]) -> dict[str, Recording]:
    scanned = scan([archive["good"].path.parent])
    return {recording.absolute_path: recording for recording in scanned}


def only(*paths: Path) -> Recording:
    (recording,) = scan(paths)
    return recording


def test_every_file_has_its_row(archive: dict[str, Expected], recordings: dict[str, Recording]) -> None:
    assert set(recordings) == {str(expected.path) for expected in archive.values()}


def test_claimed_seconds_are_the_headers_as_far_as_the_file_holds_them(
    archive: dict[str, Expected], recordings: dict[str, Recording]
) -> None:
    for expected in archive.values():
        duration_s = recordings[str(expected.path)].duration_s
        assert duration_s == (
            None
            if expected.claimed_s is None
            else pytest.approx(expected.claimed_s, abs=expected.tolerance_s)
        ), expected.path


def test_headers_alone_tell_what_is_hopeless(
    archive: dict[str, Expected], recordings: dict[str, Recording]
) -> None:
    statuses = {kind: recordings[str(expected.path)].status for kind, expected in archive.items()}
    assert {kind: status for kind, status in statuses.items() if status != "ok"} == {
        "cut_wav": "partial",
        "cut_flac": "partial",
        "preallocated_flac": "partial",
        "headless_flac": "corrupt",
        "cut_mp3": "partial",
        "cut_aiff": "partial",
        "zero_bytes": "corrupt",
        "text": "unsupported",
        "header_only_wav": "too_short",
        "blip": "too_short",
        "claimed_but_absent": "corrupt",
        "link_to_nowhere": "corrupt",
    }


def test_every_bad_row_says_why_in_one_sentence(recordings: dict[str, Recording]) -> None:
    for recording in recordings.values():
        assert (recording.error is None) == (recording.status == "ok")
        assert "\n" not in (recording.error or "")


def test_rows_are_plain_values_that_travel(recordings: dict[str, Recording]) -> None:
    for recording in recordings.values():
        assert pickle.loads(pickle.dumps(recording)) == recording
        f"{recording.path} {recording.root} {recording.error}".encode()


def test_ids_differ_and_do_not_depend_on_what_else_is_there(
    archive: dict[str, Expected], recordings: dict[str, Recording]
) -> None:
    assert len({recording.recording_id for recording in recordings.values()}) == len(archive)
    alone = only(archive["good"].path)
    assert alone.recording_id == recordings[str(archive["good"].path)].recording_id


def test_formats_that_are_decoded_in_order_are_told(
    archive: dict[str, Expected], recordings: dict[str, Recording]
) -> None:
    in_order = {kind for kind, expected in archive.items() if not recordings[str(expected.path)].seekable}
    assert in_order == {
        "cut_flac",
        "preallocated_flac",
        "unfinished_flac",
        "headless_flac",
        "cut_mp3",
        "untagged_mp3",
        "plain.mp3",
        "plain.ogg",
        "opus.opus",
    }


def test_the_header_gives_rate_channels_and_format(tmp_path: Path) -> None:
    recording = only(write(tmp_path / "x.flac", noise(channels=2, rate_hz=48_000), 48_000, subtype="PCM_24"))
    assert (recording.sample_rate_hz, recording.channels, recording.format) == (48_000, 2, "FLAC/PCM_24")
    assert recording.frames == SECONDS * 48_000


def test_guano_wins_over_the_comment_and_the_comment_over_the_name(tmp_path: Path) -> None:
    comment = "Recorded at 02:00:00 02/05/2025 (UTC+1) by AudioMoth 24F319055FDF2902 at medium gain"
    guano = "GUANO|Version:1.0\nTimestamp:2025-05-03T03:00:00+02:00\nLoc Position:52.1 4.4\n"
    path = tmp_path / "20250501_010000.WAV"
    path.write_bytes(wav_bytes(noise()))
    named = only(path)
    path.write_bytes(audiomoth_bytes(noise(), comment))
    commented = only(path)
    path.write_bytes(audiomoth_bytes(noise(), comment, guano))
    with_guano = only(path)
    assert (named.start_local, named.start_time, named.start_time_source) == (
        datetime(2025, 5, 1, 1),
        None,
        "name",
    )
    assert (commented.start_local, commented.start_time) == (
        datetime(2025, 5, 2, 2),
        datetime(2025, 5, 2, 1, tzinfo=UTC),
    )
    assert (commented.start_time_source, commented.utc_offset_minutes) == ("audiomoth", 60)
    assert (with_guano.start_local, with_guano.start_time) == (
        datetime(2025, 5, 3, 3),
        datetime(2025, 5, 3, 1, tzinfo=UTC),
    )
    assert (with_guano.start_time_source, with_guano.latitude, with_guano.longitude) == ("guano", 52.1, 4.4)


def test_guano_without_offset_takes_it_from_the_comment_that_says_the_same_time(tmp_path: Path) -> None:
    comment = "Recorded at 03:00:00 03/05/2025 (UTC+2) by AudioMoth 24F319055FDF2902 at medium gain"
    path = tmp_path / "x.wav"
    path.write_bytes(audiomoth_bytes(noise(), comment, "Timestamp:2025-05-03T03:00:00\n"))
    assert (only(path).start_time_source, only(path).utc_offset_minutes) == ("guano", 120)
    path.write_bytes(audiomoth_bytes(noise(), comment, "Timestamp:2025-05-03T04:00:00\n"))
    assert (only(path).start_time_source, only(path).utc_offset_minutes) == ("guano", None)


def test_metadata_survives_behind_a_cut_and_ahead_of_one(tmp_path: Path) -> None:
    comment = "Recorded at 03:00:00 03/05/2025 (UTC) by AudioMoth 24F319055FDF2902 at medium gain"
    path = tmp_path / "x.wav"
    path.write_bytes(audiomoth_bytes(noise(), comment)[:20_000])
    assert only(path).start_time == datetime(2025, 5, 3, 3, tzinfo=UTC)


def test_the_station_is_the_prefix_else_the_first_directory_else_the_root(tmp_path: Path) -> None:
    root = tmp_path / "season"
    (root / "marsh/2019").mkdir(parents=True)
    for name in (
        "marsh/2019/NW3_20190522_223000.wav",
        "marsh/2019/20190522_223000.wav",
        "20190523_223000.wav",
    ):
        write(root / name, noise(1))
    stations = {recording.path: recording.station for recording in scan([root])}
    assert stations == {
        "20190523_223000.wav": "season",
        "marsh/2019/20190522_223000.wav": "marsh",
        "marsh/2019/NW3_20190522_223000.wav": "NW3",
    }


def test_the_same_file_below_two_roots_is_one_recording(tmp_path: Path) -> None:
    for root in ("card", "copy"):
        (tmp_path / root).mkdir()
        write(tmp_path / root / "x.wav", noise())
    assert len(scan([tmp_path / "card", tmp_path / "copy"])) == 1


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert (only(tmp_path).status, only(tmp_path).error) == ("unsupported", "is not a regular file")


@pytest.fixture
def unprivileged_directory() -> Iterator[Path]:
    """A directory of a user who is not root, as whom the test goes on."""
    directory = Path(tempfile.mkdtemp())
    was_root = os.geteuid() == 0
    if was_root:
        os.chmod(directory, 0o777)
        os.seteuid(65534)
    yield directory
    if was_root:
        os.seteuid(0)
    (directory / "closed").chmod(0o700)
    shutil.rmtree(directory)


def test_what_may_not_be_read_has_a_row(unprivileged_directory: Path) -> None:
    path = write(unprivileged_directory / "secret.wav", noise())
    path.chmod(0)
    (unprivileged_directory / "closed").mkdir(mode=0)
    closed, secret = scan([unprivileged_directory])
    assert (closed.path, closed.status, closed.error) == (
        "closed",
        "corrupt",
        "cannot be read: Permission denied",
    )
    assert (secret.path, secret.status, secret.error) == (
        "secret.wav",
        "corrupt",
        "cannot be read: Permission denied",
    )


def test_a_header_that_claims_centuries_claims_what_the_file_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "x.w64", noise(), format="W64")
    content = bytearray(path.read_bytes())
    size = content.index(b"data") + 16
    content[size : size + 8] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(content)
    recording = only(path)
    assert (recording.status, recording.duration_s) == ("partial", SECONDS)
    assert recording.error == (
        f"the sound ends at 4.00 s, before the {((1 << 60) - 24) // 2 / 16_000:.2f} s that the header claims"
    )


@given(
    kind=st.sampled_from(
        ["good.wav", "plain.flac", "plain.mp3", "sony.w64", "large.rf64", "cut.aiff", "sun.au"]
    ),
    changes=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), min_size=1, max_size=8),
    length=st.integers(1, 1 << 16),
)
def test_damaged_headers_give_a_row_and_never_an_error(
    archive: dict[str, Expected], kind: str, changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray((archive["good"].path.parent / kind).read_bytes()[:length])
    for at, byte in changes:
        if at < len(content):
            content[at] = byte
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / kind
        path.write_bytes(content)
        recording = only(path)
    assert recording.status in {"ok", "partial", "corrupt", "too_short", "unsupported"}
    assert (recording.error is None) == (recording.status == "ok")
    assert not recording.has_sound or (recording.duration_s or 0) >= 0.5


def test_a_text_named_mp3_is_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp3"
    path.write_text("Battery changed at noon.\n" * 100, encoding="utf-8")
    assert only(path).status == "unsupported"
