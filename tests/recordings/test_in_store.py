"""Recordings in an object store are found, probed and decoded like the same files on a disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from naturelm import storage
from naturelm.audio.isolated import DecodeRequest, IsolatedDecoder
from naturelm.errors import NaturelmError
from naturelm.recordings import Recording, find_audio, scan, sound_files
from naturelm.recordings.discovery import APPLE_DOUBLES, IN_BINS, OTHER_FILES
from naturelm.storage import list_files, location, write_whole
from tests.broken_files import make_all, noise, write
from tests.object_store import ObjectStore, failing


def upload(directory: Path, url: str) -> None:
    for file in list_files(directory, recursive=True):
        if file.relative_path.isprintable():  # keys are text, of which servers take line feeds badly
            write_whole(location(url) / file.relative_path, file.location.read_bytes())


def decoded(decoder: IsolatedDecoder, recording: Recording) -> list[tuple[bytes, str, str | None]]:
    """Two spans that overlap, the second of which begins in the middle."""
    end_s = recording.duration_s or 0.0
    request = DecodeRequest(recording.absolute_path, ((0.0, 0.6 * end_s), (0.5 * end_s, end_s)))
    return [(span.pcm, span.status, span.error) for span in decoder.decode(request)]


def test_every_kind_of_file_has_the_same_facts_and_the_same_sound(
    tmp_path: Path, bucket: str, object_store: ObjectStore
) -> None:
    made = make_all(tmp_path)
    upload(tmp_path, f"{bucket}/card 1")
    here = {
        recording.path: recording
        for recording in scan([tmp_path])
        if Path(recording.absolute_path).is_file() and Path(recording.absolute_path).name.isprintable()
    }
    there = {recording.path: recording for recording in scan([f"{bucket}/card 1"])}
    assert len(here) > 0.9 * len(made)
    assert set(here) <= set(there)
    with IsolatedDecoder(20) as decoder:
        for path, recording in here.items():
            found = there[path]
            assert found.modified_ns > recording.modified_ns - 2_000_000_000
            assert replace(found, root=recording.root, modified_ns=recording.modified_ns) == replace(
                recording, station=found.station
            )
            if recording.duration_s:
                assert decoded(decoder, found) == decoded(decoder, recording), path


def test_listing_leaves_out_what_is_hidden_and_what_is_no_sound(bucket: str) -> None:
    for name in ("b/c.WAV", "b/._c.WAV", ".Trash/d.wav", "$RECYCLE.BIN/e.wav", "f.txt", "a.flac"):
        write_whole(location(bucket) / name, b"1")
    found = find_audio([bucket])
    assert [file.relative_path for file in found.files] == ["a.flac", "b/c.WAV"]
    assert [(left_out.what, left_out.count) for left_out in found.left_out] == [
        (APPLE_DOUBLES, 1),
        (OTHER_FILES, 1),
        (IN_BINS, 2),
    ]
    (outright,) = find_audio([f"{bucket}/f.txt"]).files
    assert (str(outright.root), outright.relative_path) == (bucket, "f.txt")


def test_prefix_without_keys_is_told(bucket: str) -> None:
    with pytest.raises(NaturelmError, match=f"{bucket}/nowhere: does not exist"):
        find_audio([f"{bucket}/nowhere"])


def test_probing_takes_four_requests(tmp_path: Path, bucket: str, object_store: ObjectStore) -> None:
    write(tmp_path / "a.wav", noise(20))
    upload(tmp_path, bucket)
    before = len(object_store.requests())
    scan([bucket])
    # Is it a key? The listing; the size; the head; the tail.
    assert len(object_store.requests()) - before <= 6


def test_files_of_known_size_and_time_are_not_opened_again(
    tmp_path: Path, bucket: str, object_store: ObjectStore
) -> None:
    write(tmp_path / "a.wav", noise(2))
    upload(tmp_path, bucket)
    first = scan([bucket])
    before = len(object_store.requests())
    assert scan([bucket], known={(bucket, "a.wav"): first[0]}) == first
    assert not any("a.wav" in line for line in object_store.requests()[before:])


def test_middle_of_a_long_recording_is_reached_without_what_lies_before(
    tmp_path: Path, bucket: str, object_store: ObjectStore
) -> None:
    write(tmp_path / "night.wav", noise(600))
    upload(tmp_path, bucket)
    before = len(object_store.requests())
    with IsolatedDecoder(20) as decoder:
        (span,) = decoder.decode(DecodeRequest(f"{bucket}/night.wav", ((500.0, 510.0),)))
    assert (span.status, span.decoded_s) == ("ok", 10.0)
    assert len(object_store.requests()) - before < 10


def test_formats_that_are_read_in_order_come_by_way_of_scratch_unless_they_are_too_large(
    tmp_path: Path, bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.ogg", noise(60))
    upload(tmp_path, bucket)

    def samples_and_requests() -> tuple[int, int]:
        before = len(object_store.requests())
        with sound_files.open_sound(f"{bucket}/a.ogg") as sound:
            frames = len(sound.read())
        return frames, len(object_store.requests()) - before

    copied = samples_and_requests()
    monkeypatch.setattr(sound_files, "_LARGEST_SCRATCH_BYTES", 1000)
    read_there = samples_and_requests()
    assert copied[0] == read_there[0] == 60 * 16_000
    assert copied[1] <= 6
    assert copied[1] <= read_there[1]


def test_store_that_fails_is_no_fault_of_the_recording(
    tmp_path: Path, bucket: str, object_store: ObjectStore, point_at
) -> None:
    write(tmp_path / "night.wav", noise(300))
    upload(tmp_path, bucket)
    (recording,) = scan([bucket])
    request = DecodeRequest(recording.absolute_path, ((0.0, 10.0), (10.0, 300.0)))
    with failing(object_store, 403) as endpoint:
        point_at(endpoint)
        with IsolatedDecoder(20) as decoder:
            spans = list(decoder.decode(request))
        assert [span.status for span in spans] == ["unreachable"] * 2
        assert spans[0].error == f"{bucket}/night.wav: cannot be read (access denied)"
        with pytest.raises(NaturelmError, match="cannot be listed"):
            scan([bucket])
    with failing(object_store, 400, after=4) as endpoint:
        point_at(endpoint)
        with IsolatedDecoder(20) as decoder:
            spans = list(decoder.decode(request))
        assert [span.status for span in spans] == ["ok", "unreachable"]


def test_one_object_that_may_not_be_read_is_a_row(tmp_path: Path, bucket: str, monkeypatch) -> None:
    write(tmp_path / "a.wav", noise(2))
    upload(tmp_path, bucket)

    def refuse(path: storage.StorePath, mode: str = "rb") -> None:
        raise storage.StoreError(13, "access denied", str(path))

    monkeypatch.setattr(storage.StorePath, "open", refuse)
    (recording,) = scan([bucket])
    assert (recording.status, recording.error) == ("corrupt", "cannot be read: access denied")
