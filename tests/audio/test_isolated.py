"""Decoding in a child process that may hang or crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from naturelm.audio.isolated import DecodedSpan, DecodeRequest, IsolatedDecoder, pcm_samples
from naturelm.audio.streaming import decode
from naturelm.recordings import Recording, scan
from naturelm.windows import SAMPLE_RATE_HZ
from tests.broken_files import SECONDS, Expected, make_all, noise, write
from tests.paths import REPO


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Expected]:
    return make_all(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(timeout_s=20) as decoder:
        yield decoder


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Opening it waits for a writer that never comes: a decoder that hangs, for real."""
    path = tmp_path / "hang.wav"
    os.mkfifo(path)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.wav", noise(30, 22_050), 22_050)


def one(decoder: IsolatedDecoder, path: Path, end_s: float | None = SECONDS) -> DecodedSpan:
    (span,) = decoder.decode(DecodeRequest(str(path), ((0.0, end_s),)))
    return span


def child_pid(decoder: IsolatedDecoder) -> int:
    assert decoder._child is not None
    return decoder._child._process.pid


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def outcome(decoder: IsolatedDecoder, recording: Recording) -> tuple[str, float, str | None]:
    """What a run writes into the row of a recording that is one segment."""
    if not recording.has_sound:
        return (
            recording.status,
            recording.duration_s or 0.0 if recording.status == "too_short" else 0.0,
            recording.error,
        )
    span = one(decoder, Path(recording.absolute_path), recording.duration_s)
    if span.status == "ok":
        return recording.status, span.decoded_s, recording.error
    return span.status, span.decoded_s, span.error


def test_every_kind_of_file_gets_the_right_row(
    archive: dict[str, Expected], decoder: IsolatedDecoder
) -> None:
    recordings = {recording.absolute_path: recording for recording in scan([archive["good"].path.parent])}
    for kind, expected in archive.items():
        status, decoded_s, error = outcome(decoder, recordings[str(expected.path)])
        assert (kind, status) == (kind, expected.status)
        assert decoded_s == pytest.approx(expected.decoded_s, abs=expected.tolerance_s), kind
        assert (error is None) == (status == "ok"), kind


@pytest.mark.parametrize(
    ("executable", "why"), [("/nowhere/python", "No such file or directory"), ("/bin/false", "exit code 1")]
)
def test_child_that_does_not_start_says_nothing_about_the_file(
    good: Path, monkeypatch: pytest.MonkeyPatch, executable: str, why: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with IsolatedDecoder() as decoder:
        span = one(decoder, good, 30.0)
        assert (span.status, span.decoded_s) == ("unreachable", 0.0)
        assert span.error == f"the decoder process does not start ({why})"
        monkeypatch.undo()
        assert one(decoder, good, 30.0).status == "ok"


def test_files_in_good_order_keep_the_child_alive(
    archive: dict[str, Expected], decoder: IsolatedDecoder
) -> None:
    one(decoder, archive["good"].path)
    before = child_pid(decoder)
    for kind in ("cut_flac", "preallocated_flac", "cut_mp3", "text", "nan"):
        one(decoder, archive[kind].path)
    assert child_pid(decoder) == before


def test_samples_equal_those_decoded_here_to_half_precision(good: Path, decoder: IsolatedDecoder) -> None:
    span = one(decoder, good, 30.0)
    here = np.concatenate(list(decode(good)))
    np.testing.assert_array_equal(pcm_samples(span.pcm), here.astype(np.float16).astype(np.float32))
    assert (span.decoded_s, span.end_of_file) == (30.0, True)


def test_spans_come_in_order_and_may_overlap(good: Path, decoder: IsolatedDecoder) -> None:
    here = np.concatenate(list(decode(good))).astype(np.float16)
    spans = ((0.0, 10.0), (5.0, 12.5), (27.0, None))
    decoded = list(decoder.decode(DecodeRequest(str(good), spans)))
    assert [span.start_s for span in decoded] == [0.0, 5.0, 27.0]
    assert [span.end_of_file for span in decoded] == [False, False, True]
    for (start_s, end_s), span in zip(spans, decoded, strict=True):
        expected = here[
            round(start_s * SAMPLE_RATE_HZ) : None if end_s is None else round(end_s * SAMPLE_RATE_HZ)
        ]
        sound = np.frombuffer(span.pcm, np.float16)
        assert len(sound) == len(expected)
        assert np.abs(sound.astype(np.float32) - expected).max() < 1e-3
        assert span.decoded_s == len(expected) / SAMPLE_RATE_HZ


def test_in_a_cut_recording_only_the_spans_after_the_cut_are_partial(
    archive: dict[str, Expected], decoder: IsolatedDecoder
) -> None:
    request = DecodeRequest(str(archive["cut_wav"].path), ((0.0, 2.0), (2.0, 3.0), (3.0, 4.0)))
    decoded = list(decoder.decode(request))
    assert [(span.status, span.decoded_s) for span in decoded] == [
        ("ok", 2.0),
        ("partial", 0.5),
        ("partial", 0.0),
    ]
    assert decoded[1].error == "the sound ends at 2.50 s, before the end that the header claims"
    assert len(decoded[1].pcm) == 2 * 8000


def test_a_late_span_of_a_cut_recording_is_partial_when_it_comes_first(
    archive: dict[str, Expected], decoder: IsolatedDecoder
) -> None:
    request = DecodeRequest(str(archive["cut_wav"].path), ((3.0, 4.0),))
    assert [span.status for span in decoder.decode(request)] == ["partial"]


def test_a_channel_that_is_not_there_is_unsupported_for_every_span(
    good: Path, decoder: IsolatedDecoder
) -> None:
    decoded = list(decoder.decode(DecodeRequest(str(good), ((0.0, 1.0), (1.0, 2.0)), channel=3)))
    assert [span.status for span in decoded] == ["unsupported", "unsupported"]
    assert decoded[0].error == "good.wav: has 1 channel(s) and no channel 3; give a lower --channel"


def test_a_vanished_file_is_corrupt(tmp_path: Path, decoder: IsolatedDecoder) -> None:
    span = one(decoder, tmp_path / "gone.wav")
    assert (span.status, span.error) == ("corrupt", "gone.wav: cannot be read (No such file or directory)")


def test_a_hang_is_a_timeout_and_the_next_request_is_served(good: Path, pipe: Path) -> None:
    with IsolatedDecoder(timeout_s=2) as decoder:
        one(decoder, good)
        hung = child_pid(decoder)
        request = DecodeRequest(str(pipe), ((0.0, 1.0), (1.0, 2.0)))
        decoded = list(decoder.decode(request))
        assert [span.status for span in decoded] == ["timeout", "timeout"]
        assert decoded[0].error == "decoding made no progress for 2 s"
        assert eventually(lambda: is_gone(hung))
        assert one(decoder, good).status == "ok"


def test_a_crash_is_corrupt_after_one_more_try_and_the_next_request_is_served(good: Path, pipe: Path) -> None:
    with IsolatedDecoder(timeout_s=20) as decoder:
        one(decoder, good)
        victims: list[int] = []

        def shoot_twice() -> None:
            for _ in range(2):
                assert eventually(lambda: decoder._child is not None and child_pid(decoder) not in victims)
                time.sleep(0.3)
                victims.append(child_pid(decoder))
                os.kill(victims[-1], signal.SIGSEGV)

        shooter = threading.Thread(target=shoot_twice)
        shooter.start()
        span = one(decoder, pipe)
        shooter.join()
        assert (span.status, span.error) == ("corrupt", "the decoder crashed on it (SIGSEGV)")
        assert one(decoder, good).status == "ok"
        assert child_pid(decoder) not in victims


def test_a_child_that_something_else_killed_costs_nothing(good: Path) -> None:
    with IsolatedDecoder() as decoder:
        one(decoder, good)
        os.kill(child_pid(decoder), signal.SIGKILL)
        span = one(decoder, good, 30.0)
        assert (span.status, span.decoded_s) == ("ok", 30.0)


def test_a_request_left_half_read_does_not_spoil_the_next(good: Path) -> None:
    with IsolatedDecoder() as decoder:
        spans = decoder.decode(DecodeRequest(str(good), ((0.0, 1.0), (1.0, 30.0))))
        assert next(spans).decoded_s == 1.0
        spans.close()  # type: ignore[attr-defined]
        assert one(decoder, good, 2.0).decoded_s == 2.0


def test_closing_leaves_no_process_behind(good: Path, pipe: Path) -> None:
    pids = []
    with IsolatedDecoder(timeout_s=2) as decoder:
        for path in (good, pipe, good):
            one(decoder, path)
            if path is good:
                pids.append(child_pid(decoder))
    # A zombie would still be there to be signalled.
    assert len(set(pids)) == 2
    assert all(is_gone(pid) for pid in pids)


def test_a_dropped_decoder_leaves_no_process_behind(good: Path) -> None:
    decoder = IsolatedDecoder()
    one(decoder, good)
    pid = child_pid(decoder)
    del decoder
    assert eventually(lambda: is_gone(pid))


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), 9)", "sys.exit(0)"])
def test_a_child_ends_with_its_parent_even_while_it_hangs(pipe: Path, good: Path, ending: str) -> None:
    script = (
        "import os, sys, threading\n"
        "from naturelm.audio.isolated import IsolatedDecoder, DecodeRequest\n"
        "decoder = IsolatedDecoder()\n"
        f"list(decoder.decode(DecodeRequest({str(good)!r}, ((0.0, 1.0),))))\n"
        "print(decoder._child._process.pid, flush=True)\n"
        f"request = DecodeRequest({str(pipe)!r}, ((0.0, 1.0),))\n"
        "threading.Thread(target=lambda: list(decoder.decode(request)), daemon=True).start()\n"
        "sys.stdin.read()\n"
        f"{ending}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.communicate()
    assert eventually(lambda: is_gone(pid))


def test_the_child_starts_without_torch_ray_or_arrow() -> None:
    script = (
        "import sys, naturelm.audio.isolated\n"
        "print([name for name in ('torch', 'ray', 'pyarrow', 'pydantic') if name in sys.modules])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    output = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True
    ).stdout
    assert output.strip() == b"[]"
