"""Comments of all formats, and which of the times in them wins."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from naturelm.recordings import Recording, scan
from tests.broken_files import chunk, noise, wav_bytes, write

AUDIOMOTH = "Recorded at 03:13:00 03/05/2025 (UTC+2) by AudioMoth 24F319055FDF2902 at medium gain while ..."
GUANO = "GUANO|Version:1.0\nTimestamp:2025-05-03T03:13:00+02:00\nLoc Position:52.1 4.4\nNote: Frösche\n"
UTC_START = datetime(2025, 5, 3, 1, 13, tzinfo=UTC)


def only(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    (recording,) = scan([path])
    assert recording.status == "ok"
    return recording


def vorbis(*comments: str, vendor: str = "test") -> bytes:
    fields = [vendor.encode(), *(comment.encode() for comment in comments)]
    packed = [struct.pack("<I", len(field)) + field for field in fields]
    return packed[0] + struct.pack("<I", len(comments)) + b"".join(packed[1:])


def in_flac(directory: Path, kind: int, content: bytes) -> bytes:
    """A metadata block behind STREAMINFO."""
    flac = write(directory / "plain.flac", noise()).read_bytes()
    block = bytes([kind]) + len(content).to_bytes(3) + content
    return flac[:42] + block + flac[42:]


def in_ogg(directory: Path, subtype: str, *comments: str) -> bytes:
    """An Ogg file whose second packet is replaced, on as many pages as it takes."""
    rate_hz = 48_000 if subtype == "OPUS" else 16_000
    path = write(directory / "plain.ogg", noise(rate_hz=rate_hz), rate_hz, format="OGG", subtype=subtype)
    content = path.read_bytes()
    pages = []
    while content:
        lacing = content[27 : 27 + content[26]]
        size = 27 + len(lacing) + sum(lacing)
        pages.append((content[:27], lacing, content[27 + len(lacing) : size]))
        content = content[size:]
    head, lacing, body = pages[1]
    first = next((i for i, size in enumerate(lacing) if size < 255), len(lacing)) + 1
    old = body[: sum(lacing[:first])]
    new = old[: 8 if subtype == "OPUS" else 7] + vorbis(*comments) + (b"" if subtype == "OPUS" else b"\1")
    more = lacing[first:], body[len(old) :]
    parts = [new[at : at + 255 * 200] for at in range(0, len(new), 255 * 200)]
    rebuilt = [page(*pages[0], 0)]
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        sizes = bytes([255] * (len(part) // 255)) + (bytes([len(part) % 255]) if is_last else b"")
        flags = bytes([1 if number else 0])
        rebuilt.append(
            page(
                head[:5] + flags + head[6:],
                sizes + (more[0] if is_last else b""),
                part + (more[1] if is_last else b""),
                len(rebuilt),
            )
        )
    for head, lacing, body in pages[2:]:
        rebuilt.append(page(head, lacing, body, len(rebuilt)))
    return b"".join(rebuilt)


def page(head: bytes, lacing: bytes, body: bytes, number: int) -> bytes:
    whole = head[:18] + struct.pack("<I", number) + bytes(4) + bytes([len(lacing)]) + lacing + body
    crc = 0
    for byte in whole:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7) & 0xFFFFFFFF if crc & 0x80000000 else crc << 1
    return whole[:22] + struct.pack("<I", crc) + whole[26:]


def id3(*frames: tuple[str, bytes], version: int = 3) -> bytes:
    body = b""
    for name, content in frames:
        size = synchsafe(len(content)) if version == 4 else len(content).to_bytes(3 if version == 2 else 4)
        body += name.encode() + size + (b"" if version == 2 else b"\0\0") + content
    return b"ID3" + bytes([version, 0, 0]) + synchsafe(len(body)) + body


def synchsafe(size: int) -> bytes:
    return bytes([size >> shift & 127 for shift in (21, 14, 7, 0)])


def comm(text: str, encoding: int = 3) -> bytes:
    codec = {0: "latin-1", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}[encoding]
    zero = b"\0\0" if encoding in (1, 2) else b"\0"
    description = b"\xff\xfe" if encoding == 1 else b""
    return bytes([encoding]) + b"eng" + description + zero + text.encode(codec)


def mp3(directory: Path) -> bytes:
    return write(directory / "plain.mp3", noise()).read_bytes()


def aiff(directory: Path, name: bytes, content: bytes) -> bytes:
    plain = write(directory / "plain.aiff", noise()).read_bytes()
    return plain + name + struct.pack(">I", len(content)) + content + b"\0" * (len(content) & 1)


def comt(text: str) -> bytes:
    return struct.pack(">HIHH", 1, 3_800_000_000, 0, len(text)) + text.encode()


def bext(date: str = "", time: str = "", originator: str = "ZOOM H5", description: str = "") -> bytes:
    return (
        description.encode().ljust(256, b"\0")
        + originator.encode().ljust(32, b"\0")
        + b"REF".ljust(32, b"\0")
        + date.encode().ljust(10, b"\0")
        + time.encode().ljust(8, b"\0")
        + bytes(264)
    )


def ixml(date: str, time: str, originator: str = "MixPre-6") -> bytes:
    return (
        f"<?xml version='1.0'?><BWFXML><BEXT><BWF_ORIGINATOR>{originator}</BWF_ORIGINATOR>"
        f"<BWF_ORIGINATION_DATE>{date}</BWF_ORIGINATION_DATE>"
        f"<BWF_ORIGINATION_TIME>{time}</BWF_ORIGINATION_TIME></BEXT></BWFXML>"
    ).encode()


def in_wav(name: bytes, content: bytes, *, is_before: bool) -> bytes:
    more = chunk(name, content)
    return wav_bytes(noise(), before=more) if is_before else wav_bytes(noise(), after=more)


HOLDERS: dict[str, Callable[[Path, str], bytes]] = {
    "WAV LIST": lambda _, text: in_wav(b"LIST", b"INFO" + chunk(b"ICMT", text.encode()), is_before=False),
    "WAV id3": lambda _, text: in_wav(b"id3 ", id3(("COMM", comm(text))), is_before=False),
    "WAV bext": lambda _, text: in_wav(b"bext", bext(description=text), is_before=True),
    "FLAC comment": lambda directory, text: in_flac(directory, 4, vorbis("DESCRIPTION=x", f"comment={text}")),
    "FLAC as ffmpeg writes it": lambda directory, text: in_flac(
        directory, 4, vorbis(f"COMMENT={text}", vendor="Lavf60")
    ),
    "FLAC with the chunks of its WAV": lambda directory, text: in_flac(
        directory, 2, b"riff" + chunk(b"LIST", b"INFO" + chunk(b"ICMT", text.encode()))
    ),
    "FLAC behind ID3": lambda directory, text: id3(("COMM", comm(text))) + in_flac(directory, 1, bytes(9)),
    "Ogg Vorbis": lambda directory, text: in_ogg(directory, "VORBIS", f"Comment={text}"),
    "Ogg Opus": lambda directory, text: in_ogg(directory, "OPUS", "ENCODER=x", f"COMMENT={text}"),
    "Opus behind a picture": lambda directory, text: in_ogg(
        directory, "OPUS", "METADATA_BLOCK_PICTURE=" + "A" * 150_000, f"COMMENT={text}"
    ),
    **{
        f"MP3 COMM of encoding {encoding}": lambda directory, text, encoding=encoding: (
            id3(("TIT2", b"\0night"), ("COMM", comm(text, encoding))) + mp3(directory)
        )
        for encoding in (0, 1, 2, 3)
    },
    "MP3 of ID3v2.4": lambda directory, text: id3(("COMM", comm(text)), version=4) + mp3(directory),
    "MP3 of ID3v2.2": lambda directory, text: id3(("COM", comm(text, 0)), version=2) + mp3(directory),
    "MP3 with a text of its own": lambda directory, text: (
        id3(("TXXX", b"\3comment\0" + text.encode())) + mp3(directory)
    ),
    "AIFF ANNO": lambda directory, text: aiff(directory, b"ANNO", text.encode()),
    "AIFF COMT": lambda directory, text: aiff(directory, b"COMT", comt(text)),
    "AIFF ID3": lambda directory, text: aiff(directory, b"ID3 ", id3(("COMM", comm(text)))),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_audiomoth_comment_is_read_wherever_a_converter_puts_it(tmp_path: Path, kind: str) -> None:
    recording = only(tmp_path / "x", HOLDERS[kind](tmp_path, AUDIOMOTH))
    assert (recording.start_time, recording.start_time_source) == (UTC_START, "audiomoth")
    assert recording.utc_offset_minutes == 120


@pytest.mark.parametrize("kind", [kind for kind in HOLDERS if kind != "MP3 COMM of encoding 0"])
def test_guano_is_read_wherever_a_converter_puts_it(tmp_path: Path, kind: str) -> None:
    recording = only(tmp_path / "x", HOLDERS[kind](tmp_path, GUANO))
    assert (recording.start_time, recording.start_time_source) == (UTC_START, "guano")
    assert (recording.latitude, recording.longitude) == (52.1, 4.4)


def test_guano_chunk_kept_by_flac_is_read(tmp_path: Path) -> None:
    recording = only(tmp_path / "x.flac", in_flac(tmp_path, 2, b"riff" + chunk(b"guan", GUANO.encode())))
    assert (recording.start_time, recording.start_time_source) == (UTC_START, "guano")


@pytest.mark.parametrize(
    ("date", "time", "start"),
    [
        ("2024-05-10", "05:30:15", datetime(2024, 5, 10, 5, 30, 15)),
        ("2024:05:10", "05-30-15", datetime(2024, 5, 10, 5, 30, 15)),
        ("2024/05/10", "05.30.15", datetime(2024, 5, 10, 5, 30, 15)),
        ("2024_05_10", "05_30_15", datetime(2024, 5, 10, 5, 30, 15)),
        ("0000-00-00", "00:00:00", None),
        ("2024-05-10", "", None),
        ("", "05:30:15", None),
        ("2024-13-10", "05:30:15", None),
        ("2024-05-10", "25:30:15", None),
    ],
)
@pytest.mark.parametrize("is_before", [True, False])
def test_bext_says_the_local_start(
    tmp_path: Path, date: str, time: str, start: datetime | None, is_before: bool
) -> None:
    recording = only(tmp_path / "ZOOM0001.WAV", in_wav(b"bext", bext(date, time), is_before=is_before))
    assert (recording.start_local, recording.start_time, recording.utc_offset_minutes) == (start, None, None)
    assert recording.start_time_source == (None if start is None else "bext")


@pytest.mark.parametrize("originator", ["Adobe Audition 22.0", "REAPER", "Pro Tools", "Steinberg WaveLab"])
def test_what_an_editor_exports_did_not_begin_then(tmp_path: Path, originator: str) -> None:
    content = in_wav(b"bext", bext("2024-05-10", "05:30:15", originator), is_before=True)
    assert only(tmp_path / "x.wav", content).start_local is None


@pytest.mark.parametrize(
    ("date", "time", "start"),
    [
        ("2024-05-10", "05:30:15", datetime(2024, 5, 10, 5, 30, 15)),
        ("2024-05-1005:30:15", "05:30:15", datetime(2024, 5, 10, 5, 30, 15)),
        ("2024-05-10", "dawn", None),
        ("", "", None),
    ],
)
def test_ixml_says_the_local_start_where_bext_does_not(
    tmp_path: Path, date: str, time: str, start: datetime | None
) -> None:
    recording = only(tmp_path / "x.wav", in_wav(b"iXML", ixml(date, time), is_before=False))
    assert (recording.start_local, recording.start_time_source) == (start, None if start is None else "ixml")


GUANO_AT_ONE = "GUANO|Version:1.0\nTimestamp:2025-01-01T01:00:00\n"
AUDIOMOTH_AT_TWO = "Recorded at 02:00:00 02/01/2025 by AudioMoth 24F319055FDF2902 at medium gain"


def test_sources_win_in_their_order(tmp_path: Path) -> None:
    """Each file lacks the source that won before."""
    chunks = {
        "guano": chunk(b"guan", GUANO_AT_ONE.encode()),
        "audiomoth": chunk(b"LIST", b"INFO" + chunk(b"ICMT", AUDIOMOTH_AT_TWO.encode())),
        "name": b"",
        "bext": chunk(b"bext", bext("2025-01-04", "04:00:00")),
        "ixml": chunk(b"iXML", ixml("2025-01-05", "05:00:00")),
    }
    order = list(chunks)
    for number, winner in enumerate(order):
        left = order[number:]
        name = "A_20250103_030000.wav" if "name" in left else "A.wav"
        content = wav_bytes(noise(), before=b"".join(chunks[source] for source in reversed(left)))
        recording = only(tmp_path / name, content)
        assert recording.start_time_source == winner
        assert recording.start_local == datetime(2025, 1, number + 1, number + 1)


def test_offset_comes_from_a_later_source_that_says_the_same_time(tmp_path: Path) -> None:
    before = chunk(b"bext", bext("2025-05-03", "03:13:00"))
    content = wav_bytes(noise(), before=before)
    assert only(tmp_path / "A_20250503_031300+0200.wav", content).start_time == UTC_START
    content = wav_bytes(noise(), before=before, after=chunk(b"guan", b"Timestamp:2025-05-03T03:13:00\n"))
    recording = only(tmp_path / "A_20250503_031300+0200.wav", content)
    assert (recording.start_time, recording.start_time_source) == (UTC_START, "guano")


@pytest.mark.parametrize("extension", ["flac", "ogg", "opus", "mp3", "aiff"])
def test_files_without_comments_have_the_time_of_their_name(tmp_path: Path, extension: str) -> None:
    rate_hz = 48_000 if extension == "opus" else 16_000
    options = {"format": "OGG", "subtype": "OPUS"} if extension == "opus" else {}
    path = write(tmp_path / f"A_20250503_031300.{extension}", noise(rate_hz=rate_hz), rate_hz, **options)
    (recording,) = scan([path])
    assert (recording.start_time_source, recording.remarks) == ("name", ())
