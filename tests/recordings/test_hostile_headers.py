"""Every field of every header is hostile: each file gets a row that can be stored and computed with, never an error."""

from __future__ import annotations

import struct
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naturelm.config.archive import WindowSettings
from naturelm.recordings import Recording, scan
from naturelm.results.rows import unread
from naturelm.results.scans import Manifests, Scope
from naturelm.segments import cut_segments
from tests.broken_files import audiomoth_bytes, chunk, noise, wav_bytes, write
from tests.recordings.test_tags import aiff, bext, comm, comt, id3, in_flac, in_ogg, ixml, mp3, vorbis

BIGGEST_FILE_S = 1000
WAV = wav_bytes(noise(1))


def only(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    (recording,) = scan([path])
    return recording


def check(recording: Recording) -> None:
    """What all that follows needs of a recording."""
    assert recording.status in {"ok", "partial", "corrupt", "too_short", "unsupported"}
    assert (recording.error is None) == (recording.status == "ok")
    for text in (recording.path, recording.station, recording.error or "", *recording.remarks):
        text.encode()
        assert "\0" not in text
        assert len(text) < 500
    assert recording.duration_s is None or 0 <= recording.duration_s <= BIGGEST_FILE_S
    for start in (recording.start_local, recording.start_time):
        if start is not None:
            for days in (-60, 60):  # offsets, drifts and the longest recordings
                start + timedelta(days=days)
    if recording.latitude is not None:
        assert recording.longitude is not None
        assert -90 <= recording.latitude <= 90
        assert -180 <= recording.longitude <= 180
    with tempfile.TemporaryDirectory() as directory:
        Manifests(Path(directory)).write(
            [recording], [recording], Scope.of([], [recording]), (), WindowSettings(), 60
        )
    segments = cut_segments(recording, WindowSettings(), 60)
    assert len(segments) <= 1
    assert unread(segments[0]).decoded_s <= BIGGEST_FILE_S


YEARS = st.one_of(
    st.sampled_from([1, 1601, 1899, 1900, 1970, 2025, 2199, 2200, 9998, 9999]), st.integers(0, 9999)
)
OFFSETS = st.sampled_from(["", "Z", "+14:00", "-12:00", "+23:59", "-23:59", "+99:99", "+00:00:59.999999"])
NUMBERS = st.one_of(
    st.sampled_from(
        ["nan", "inf", "-inf", "-0", "1e400", "9" * 6000, "-1", "0", "", "\0", "1_000", "٣", "½", "0x10"]
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.text(max_size=20),
)


@st.composite
def moments(draw: st.DrawFn) -> str:
    year, month, day = draw(YEARS), draw(st.integers(0, 13)), draw(st.integers(0, 32))
    clock = draw(st.sampled_from(["00:00:00", "23:59:59", "23:59:59.999999", "24:00:00", "25:61:61", ""]))
    return f"{year:04d}-{month:02d}-{day:02d}T{clock}{draw(OFFSETS)}"


@st.composite
def guano_blocks(draw: st.DrawFn) -> str:
    lines = ["GUANO|Version: 1.0", f"Timestamp: {draw(st.one_of(moments(), NUMBERS))}"]
    lines += [f"{name}: {draw(NUMBERS)}" for name in ("TE", "Samplerate", "Length")]
    lines.append(f"Loc Position: {draw(NUMBERS)} {draw(NUMBERS)}")
    lines.append(draw(st.text(max_size=30)))
    return "\n".join(lines)


@st.composite
def audiomoth_comments(draw: st.DrawFn) -> str:
    clock = draw(st.sampled_from(["00:00:00", "23:59:59", "23:59:60", "24:00:00", "99:99:99"]))
    date = f"{draw(st.integers(0, 99)):02d}/{draw(st.integers(0, 99)):02d}/{draw(YEARS):04d}"
    zone = draw(st.sampled_from(["", " (UTC)", " (UTC+14)", " (UTC-99)", " (UTC+99:99)", " (UTC-12)"]))
    return f"Recorded at {clock} {date}{zone} by AudioMoth 24F3 at"


TEXTS = st.one_of(guano_blocks(), audiomoth_comments(), st.text(max_size=100))


@given(guano=guano_blocks(), comment=audiomoth_comments())
def test_guano_and_comments(tmp_path_factory: pytest.TempPathFactory, guano: str, comment: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        content = audiomoth_bytes(
            noise(1), comment[:380], guano.encode("utf-8", "surrogatepass").decode("latin-1")
        )
        check(only(Path(directory) / "x.wav", content))


@given(
    text=TEXTS,
    cut=st.integers(0, 400),
    holder=st.sampled_from(["flac", "ogg", "opus", "mp3", "aiff", "comt"]),
)
def test_comments_of_all_formats(text: str, cut: int, holder: str) -> None:
    encodable = text.encode("utf-8", "replace").decode()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        packed = vorbis(f"COMMENT={encodable}")
        made = {
            "flac": lambda: in_flac(directory, 4, packed[: len(packed) - cut % 20]),
            "ogg": lambda: in_ogg(directory, "VORBIS", f"COMMENT={encodable}"),
            "opus": lambda: in_ogg(directory, "OPUS", f"COMMENT={encodable}"),
            "mp3": lambda: id3(("COMM", comm(encodable))) + mp3(directory),
            "aiff": lambda: aiff(directory, b"ANNO", encodable.encode()),
            "comt": lambda: aiff(directory, b"COMT", comt(encodable)),
        }[holder]()
        check(only(directory / "x", made))


@given(
    date=st.one_of(st.text(max_size=10), st.dates().map(str)),
    time=st.one_of(st.text(max_size=8), st.times().map(lambda time: str(time)[:8])),
)
def test_bext_and_ixml(date: str, time: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        date, time = (text.encode("utf-8", "replace").decode() for text in (date, time))
        chunks = chunk(b"bext", bext(date, time)[:602]) + chunk(b"iXML", ixml(date, time))
        check(only(Path(directory) / "x.wav", wav_bytes(noise(1), before=chunks)))


SIZES = st.one_of(
    st.sampled_from([0, 1, 44, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 10**9]), st.integers(0, 0xFFFFFFFF)
)


@given(
    data_size=st.none() | SIZES,
    riff_size=st.none() | SIZES,
    fields=st.tuples(
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        SIZES,
        SIZES,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
    ),
    kept=st.sets(st.integers(0, 5)),
)
def test_wave_headers_of_any_numbers(
    data_size: int | None, riff_size: int | None, fields: tuple[int, ...], kept: set[int]
) -> None:
    right = (1, 1, 16_000, 32_000, 2, 16)
    form = struct.pack("<HHIIHH", *(right[i] if i in kept else fields[i] for i in range(6)))
    content = wav_bytes(noise(1), data_size=data_size, riff_size=riff_size)
    with tempfile.TemporaryDirectory() as directory:
        check(only(Path(directory) / "x.wav", content[:20] + form + content[36:]))


@given(
    kind=st.sampled_from(["rf64", "w64", "flac", "ogg", "opus", "mp3", "aiff", "au", "caf", "voc", "mp2"]),
    changes=st.lists(st.tuples(st.integers(0, 300), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])), max_size=12),
    tail=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 255)), max_size=4),
    length=st.integers(0, 40_000),
)
def test_headers_of_all_formats_with_any_bytes(
    plain: dict[str, bytes],
    kind: str,
    changes: list[tuple[int, int]],
    tail: list[tuple[int, int]],
    length: int,
) -> None:
    content = bytearray(plain[kind][: max(1, len(plain[kind]) - length)])
    for at, byte in [*changes, *((-at, byte) for at, byte in tail)]:
        if -len(content) <= at < len(content):
            content[at] = byte
    with tempfile.TemporaryDirectory() as directory:
        check(only(Path(directory) / f"x.{kind}", bytes(content)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from tests.mpeg_frames import tone_stream

    directory = tmp_path_factory.mktemp("plain")
    made = {
        kind: write(directory / f"x.{kind}", noise(1)).read_bytes()
        for kind in ("rf64", "w64", "flac", "ogg", "mp3", "aiff", "au", "caf", "voc")
    }
    opus = write(directory / "x.opus", noise(1, 48_000), 48_000, format="OGG", subtype="OPUS")
    return made | {"opus": opus.read_bytes(), "mp2": tone_stream(2, 16_000, 1)}


@pytest.mark.parametrize(
    ("guano", "comment", "remark"),
    [
        ("Timestamp: 0001-01-01T00:00:00+14:00", "", "the start in guano is 0001-01-01 00:00:00"),
        ("Timestamp: 9999-12-31T23:59:59Z", "", "the start in guano is 9999-12-31 23:59:59"),
        (
            "Timestamp: 2025-13-41T00:00:00Z",
            "",
            "the GUANO timestamp '2025-13-41T00:00:00Z' is not a valid time",
        ),
        ("", "00:00:00 01/01/0001 (UTC+14)", "the start in audiomoth is 0001-01-01 00:00:00"),
        ("", "23:59:59 31/12/9999 (UTC-12)", "the start in audiomoth is 9999-12-31 23:59:59"),
        ("", "23:59:59 31/13/2025 (UTC)", "the AudioMoth comment says 23:59:59 31/13/2025"),
        ("", "23:59:59 30/11/2025 (UTC+99)", "the offset in audiomoth is 5940 minutes"),
    ],
)
def test_times_outside_the_calendar_are_null_and_remarked(
    tmp_path: Path, guano: str, comment: str, remark: str
) -> None:
    full_comment = f"Recorded at {comment} by AudioMoth 24F3 at medium gain" if comment else "night"
    recording = only(tmp_path / "x.wav", audiomoth_bytes(noise(1), full_comment, guano or None))
    assert recording.start_time is None
    assert recording.start_local in (None, datetime(2025, 11, 30, 23, 59, 59))
    assert len(recording.remarks) == 1
    assert recording.remarks[0].startswith(remark)


def test_what_a_bad_source_says_leaves_the_next_one_its_turn(tmp_path: Path) -> None:
    content = audiomoth_bytes(noise(1), "night", "Timestamp: 0001-01-01T00:00:00Z")
    recording = only(tmp_path / "A_20240510_053000.wav", content)
    assert (recording.start_local, recording.start_time_source) == (datetime(2024, 5, 10, 5, 30), "name")


@pytest.mark.parametrize("rate_hz", [1, 7, 99])
def test_sample_rate_below_the_limit_is_unsupported(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "x.wav"
    recording = only(path, wav_bytes(noise(12), rate_hz))
    assert (recording.status, recording.duration_s, recording.sample_rate_hz) == (
        "unsupported",
        None,
        rate_hz,
    )
    assert recording.error == (
        f"the header says a sample rate of {rate_hz} Hz, less than recordings.min_sample_rate_hz (100)"
    )
    (lower,) = scan([path], min_sample_rate_hz=1)
    assert (lower.status, lower.duration_s) == (
        "ok" if lower.duration_s < 40 * 86_400 else "corrupt",
        192_000 / rate_hz,
    )


def test_an_earlier_scan_with_another_limit_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(wav_bytes(noise(1), 50))
    for first, second in ((100, 10), (10, 100)):
        (before,) = scan([tmp_path], min_sample_rate_hz=first)
        (after,) = scan([tmp_path], known={(before.root, before.path): before}, min_sample_rate_hz=second)
        assert (before.status, after.status) == tuple(
            "unsupported" if limit == 100 else "ok" for limit in (first, second)
        )


@pytest.mark.parametrize("rate_hz", [20_000_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_sample_rate_that_no_recorder_has_is_unsupported(tmp_path: Path, rate_hz: int) -> None:
    recording = only(tmp_path / "x.wav", WAV[:24] + struct.pack("<I", rate_hz) + WAV[28:])
    assert (recording.status, recording.duration_s) == ("unsupported", None)
    assert f"{rate_hz} Hz" in (recording.error or "")
