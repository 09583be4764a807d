"""Awkward files, names and layouts as recorders leave them: python -m tests.measure.field_cases WORKDIR [OLD_TREE]

Makes each case by code, runs the program on it, and prints a Markdown table: what was made, what is right, what the
program gives. With OLD_TREE, a checkout of an earlier version, discovery of 100,000 files is timed in both by turns.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.recordings.names import parse_name
from naturelm.tables.query import open_tables
from tests.archive.test_awkward_archive import write_awkward, write_tidy
from tests.mpeg_frames import tone_stream
from tests.tables.make_tables import detection, recording, write_results

RATE_HZ = 16_000
NAME = "20240510_053000.wav"
Outcome = tuple[str, str, str, bool]
"""Recipe, right value, what the program gives, and whether that is right."""

CASES: list[tuple[str, Callable[[Path], Outcome]]] = []


def case(name: str) -> Callable[[Callable[[Path], Outcome]], Callable[[Path], Outcome]]:
    def add(function: Callable[[Path], Outcome]) -> Callable[[Path], Outcome]:
        CASES.append((name, function))
        return function

    return add


def sound(path: Path, seed: int = 0, seconds: float = 20.0, rate_hz: int = RATE_HZ, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate_hz))
    soundfile.write(path, noise, rate_hz, **options)
    return path


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and output of a command."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return 99, f"Traceback: {done.exception!r}"
    return done.exit_code, done.output


def process(*arguments: str | Path) -> tuple[int, str]:
    return run("process", *arguments, "--workers", "0")


@contextmanager
def program(*arguments: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which is ended with the block."""
    command = [sys.executable, "-m", "naturelm.cli", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | environment
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def answer(out: Path, sql: str) -> Any:
    rows = open_tables(out).sql(sql).fetchall()
    return rows[0][0] if len(rows) == 1 and len(rows[0]) == 1 else rows


def line_with(text: str, output: str) -> str:
    return next((line.strip() for line in output.splitlines() if text in line), "")


@case("1 a directory, then a part of it")
def _(work: Path) -> Outcome:
    sound(work / "wf/siteA" / NAME)
    process(work / "wf", "--out", work / "t")
    _, output = process(work / "wf/siteA", "--out", work / "t")
    found = answer(work / "t", "SELECT count(*) FROM recordings")
    return (
        "process wf; process wf/siteA",
        "1 recording",
        f"{found} recording; {line_with('nothing', output)[:14]}",
        found == 1,
    )


@case("1 a card that was copied twice")
def _(work: Path) -> Outcome:
    sound(work / "a/one" / NAME)
    shutil.copytree(work / "a/one", work / "a/two")
    _, output = process(work / "a", "--out", work / "t")
    said = line_with("same content", output)
    return "the same file in two directories", "reported", said[said.find("1 rec") :][:50], bool(said)


@case("2 own outputs")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME)
    process(work / "a", "--out", work / "a/results")
    (work / "a/best").mkdir()
    (work / "a/best/clips.csv").write_text(
        "file,label,score,query,station,path,start_s,end_s,recording_id,text\n"
    )
    sound(work / "a/best/owl/0001.flac")
    process(work / "a", "--out", work / "a/results")
    found = answer(work / "a/results", "SELECT count(*) FROM recordings")
    return "results and clips below the archive", "1 recording", f"{found} recording", found == 1


def stations(work: Path, *paths: str, options: tuple[str, ...] = ()) -> str:
    for seed, path in enumerate(paths):
        sound(work / "a" / path, seed, 12)
    process(work / "a", "--out", work / "t", *options)
    return ", ".join(row[0] for row in open_tables(work / "t").sql(
        "SELECT DISTINCT station FROM recordings ORDER BY 1").fetchall())  # fmt: skip


@case("3 year above the sites")
def _(work: Path) -> Outcome:
    found = stations(work, f"2024/SITE_A/{NAME}", f"2024/SITE_B/{NAME}")
    return "2024/SITE_A, 2024/SITE_B", "SITE_A, SITE_B", found, found == "SITE_A, SITE_B"


@case("3 one prefix at two sites")
def _(work: Path) -> Outcome:
    found = stations(work, f"pond/R1_{NAME}", f"ridge/R1_{NAME}")
    return "pond/R1_…, ridge/R1_… at one time", "pond, ridge", found, found == "pond, ridge"


@case("3 a recorder that moved")
def _(work: Path) -> Outcome:
    found = stations(work, f"pond/R1_{NAME}", "ridge/R1_20240611_053000.wav")
    return "pond/R1_…, ridge/R1_… a month later", "pond, ridge", found, found == "pond, ridge"


@case("3 numeric prefixes")
def _(work: Path) -> Outcome:
    found = stations(work, f"101_{NAME}", f"102_{NAME}")
    return "101_…, 102_…", "101, 102", found, found == "101, 102"


@case("3 two SoundTraps in one directory")
def _(work: Path) -> Outcome:
    found = stations(work, "reef/671629352.240510053000.wav", "reef/5146.240510053000.wav")
    return "two serial numbers", "5146, 671629352", found, found == "5146, 671629352"


@case("3 species of a bat detector")
def _(work: Path) -> Outcome:
    found = stations(work, f"barn/PIPPYG_{NAME}", f"barn/NYCNOC_{NAME.replace('0530', '0540')}")
    return "barn/PIPPYG_…, barn/NYCNOC_…", "barn", found, found == "barn"


@case("3 the user says where stations are written")
def _(work: Path) -> Outcome:
    found = stations(work, f"x/north/{NAME}", f"y/south/{NAME}", options=("--station-from", "folder:2"))
    return "--station-from folder:2", "north, south", found, found == "north, south"


@case("4 Unicode forms")
def _(work: Path) -> Outcome:
    sound(work / "a" / unicodedata.normalize("NFD", "Höhle") / NAME)
    (work / "s.csv").write_text("station,timezone\nHöhle,UTC+1\n", "utf-8")
    code, _ = process(
        work / "a", "--out", work / "t", "--stations-file", work / "s.csv", "--stations", "Höhle"
    )
    found = answer(work / "t", "SELECT count(start_time) FROM recordings")
    return (
        "decomposed directory, composed station",
        "UTC known",
        f"exit {code}, {found} with UTC",
        (code, found) == (0, 1),
    )


@case("5 what matches nothing")
def _(work: Path) -> Outcome:
    sound(work / "a/Höhle" / NAME)
    code, output = process(work / "a", "--out", work / "t", "--stations", "Hohle")
    return (
        "--stations Hohle",
        "exit 2, nearest spelling",
        f"exit {code}, {output.strip()[-22:]}",
        code == 2 and "Höhle" in output,
    )


@case("6 label lists")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME, seconds=12)
    (work / "birds.csv").write_text("\ufeffCommon Name,Scientific Name\r\nTawny Owl,Strix aluco\r\n", "utf-8")
    (work / "c.yaml").write_text(
        'queries: [{id: q, kind: classification, prompt: "Which bird?", labels_file: birds.csv}]\n'
    )
    _, output = run("plan", work / "a", "--out", work / "t", "--no-trial", "--config", work / "c.yaml")
    said = line_with("query q", output)
    return "eBird CSV with BOM and CRLF", "Tawny Owl", said, "first: Tawny Owl" in said


def durations(work: Path, content: bytes, name: str = NAME) -> tuple[str | None, float | None, str]:
    (work / "a").mkdir(exist_ok=True)
    (work / "a" / name).write_bytes(content)
    process(work / "a", "--out", work / "t")
    ((status, decoded_s, error),) = open_tables(work / "t").sql(
        "SELECT status, decoded_s, coalesce(error, '') FROM recordings").fetchall()  # fmt: skip
    return status, decoded_s, error


@case("7 odd chunk without pad byte")
def _(work: Path) -> Outcome:
    whole = sound(work / "x.wav").read_bytes()
    got = durations(work, whole[:12] + b"axml" + struct.pack("<I", 495) + b"x" * 495 + whole[12:])
    return "axml of 495 bytes before data", "ok, 20 s", f"{got[0]}, {got[1]:g} s", got[:2] == ("ok", 20.0)


@case("7 sizes written by pipes")
def _(work: Path) -> Outcome:
    whole = sound(work / "x.wav").read_bytes()
    results = []
    for number, size in enumerate((0x80000000, 0xFFFFFFFF, 0, 44)):
        (work / f"{number}").mkdir()
        results.append(durations(work / f"{number}", whole[:40] + struct.pack("<I", size) + whole[44:])[1])
    return "data size 0x80000000, 0xFFFFFFFF, 0, 44", "20 s each", str(results), results == [20.0] * 4


@case("8 MPEG layer II")
def _(work: Path) -> Outcome:
    got = durations(work, tone_stream(2, 48_000, 12.0), "20240510_053000.mp2")
    return "12 s as .mp2", "12 s", f"{got[0]}, {got[1]:.2f} s", got[1] is not None and abs(got[1] - 12) < 0.05


@case("9 AudioMoth's comment in FLAC")
def _(work: Path) -> Outcome:
    (work / "a").mkdir()
    with soundfile.SoundFile(work / "a/x.flac", "w", RATE_HZ, 1) as file:
        file.comment = "Recorded at 03:13:00 03/05/2025 (UTC) by AudioMoth 242A2604603691DD at medium gain"
        file.write(np.random.default_rng(0).normal(0, 0.1, 12 * RATE_HZ))
    process(work / "a", "--out", work / "t")
    found = str(answer(work / "t", "SELECT start_time::VARCHAR FROM recordings"))
    return "Vorbis comment", "2025-05-03 03:13 UTC", found, found.startswith("2025-05-03 03:13")


@case("10 formats of one maker; recycle bins")
def _(work: Path) -> Outcome:
    for name in ("a/#recycle/x.wav", f"a/{NAME}"):
        sound(work / name)
    for suffix in ("w4v", "sud", "zc", "mp4"):
        (work / f"a/x.{suffix}").write_bytes(np.random.default_rng(0).bytes(1000))
    _, output = process(work / "a", "--out", work / "t")
    found = answer(work / "t", "SELECT count(*) FROM recordings WHERE status = 'unsupported'")
    bins = line_with("#recycle", output)
    return (
        ".w4v .sud .zc .mp4, #recycle/x.wav",
        "4 unsupported, 1 counted",
        f"{found} unsupported, {bool(bins):d} counted",
        found == 4 and bool(bins),
    )


NAMES = (
    "202405 8T020000+1000_REC.flac", "S20240205T035946676+1000_E20240205T040546676+1000.wav",
    "WISPR_240504_195202.flac", "2024-05-04-birdnet-23:59:21.mp3", "Strix_aluco-96-2024-07-31-birdnet-04_57_21.mp3",
    "240507-224636.WAV", "LAKE-2024-05-10_05-30.flac", "2024-05-12 07_44.wav", "REC20240510053000.wav", "5b07dea0.wav",
    "S4U09523_20240510_053000_250.wav", "S_20240510_053000_Z.wav", "S_20240510_053000_-0500.wav",
    "S_20240510_053000 (UTC-5).wav",
)  # fmt: skip


@case("11 names")
def _(work: Path) -> Outcome:
    read = sum(parse_name(name).start_local is not None for name in NAMES)
    return f"{len(NAMES)} forms of the list", f"{len(NAMES)} read", f"{read} read", read == len(NAMES)


@case("12 two cards with equal names")
def _(work: Path) -> Outcome:
    for seed, card in enumerate(("one/card", "two/card")):
        sound(work / card / f"A_{NAME}", seed, 12)
    process(work / "one/card", work / "two/card", "--out", work / "t")
    run("export", work / "t", "--format", "raven", "--out", work / "r.txt")
    listed = (work / "r.listfile.txt").read_text().splitlines()
    return "one/card/A_…, two/card/A_…", "2 paths", f"{len(set(listed))} paths", len(set(listed)) == 2


@case("12 Camtrap DP of a recorder that moved")
def _(work: Path) -> Outcome:
    for seed, name in enumerate((NAME, "20240610_053000.wav")):
        sound(work / "a/wood" / name, seed, 12)
    rows = ["station,latitude,longitude,timezone,deployment,start,end"]
    rows += ["wood,47.1,8.1,Europe/Zurich,spring,2024-05-01,2024-05-31"]
    rows += ["wood,47.2,8.2,Europe/Zurich,summer,2024-06-01,2024-06-30"]
    (work / "stations.csv").write_text("\n".join(rows) + "\n")
    process(work / "a", "--out", work / "t", "--stations-file", work / "stations.csv")
    run("export", work / "t", "--format", "camtrap-dp", "--out", work / "c")
    deployments, media = (
        list(csv.DictReader((work / "c" / f"{table}.csv").open(newline="")))
        for table in ("deployments", "media")
    )
    places = {row["latitude"] for row in deployments}
    kinds = {row["fileMediatype"] for row in media}
    return (
        "one station, two deployments in stations.csv",
        "2 deployments at 2 places, audio/x-wav or audio/wav",
        f"{len(deployments)} deployments at {len(places)} places, {', '.join(kinds)}",
        len(deployments) == len(places) == 2 and kinds <= {"audio/wav", "audio/x-wav", "audio/vnd.wave"},
    )


@case("13 inverted pair")
def _(work: Path) -> Outcome:
    noise = np.random.default_rng(0).normal(0, 0.1, (12 * RATE_HZ, 1))
    (work / "a").mkdir()
    soundfile.write(work / "a" / NAME, np.hstack([noise, -noise]), RATE_HZ)
    process(work / "a", "--out", work / "t")
    found = answer(work / "t", "SELECT channels_inverted FROM recordings")
    return "antiphase stereo", "marked, one channel used", f"channels_inverted {found}", found is True


@case("13 power loss: zeros at the end")
def _(work: Path) -> Outcome:
    (work / "a").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 12 * RATE_HZ)
    soundfile.write(work / "a" / NAME, np.concatenate([noise, np.zeros_like(noise)]), RATE_HZ)
    process(work / "a", "--out", work / "t")
    found = answer(work / "t", "SELECT decoded_s, zeros_end_s FROM recordings")
    return "12 s of noise, 12 s of zeros", "12 s of effort", str(found), found == [(12.0, 12.0)]


@case("14 null files")
def _(work: Path) -> Outcome:
    got = durations(work, bytes(50_000))
    return "50,000 zero bytes as .wav", "corrupt", str(got[0]), got[0] == "corrupt"


@case("14 time expansion")
def _(work: Path) -> Outcome:
    whole = sound(work / "x.wav", seconds=20).read_bytes()
    guano = b"GUANO|Version: 1.0\nTE: 10\nTimestamp: 2024-05-10T05:30:00\n"
    guano += b" " * (len(guano) % 2)
    got = durations(work, whole + b"guan" + struct.pack("<I", len(guano)) + guano)
    rate = answer(work / "t", "SELECT sample_rate_hz FROM recordings")
    return (
        "GUANO TE: 10 on 20 s at 16 kHz",
        "2 s at 160 kHz",
        f"{got[1]:g} s at {rate} Hz",
        (got[1], rate) == (2.0, 160_000),
    )


@case("15 CSV for Excel, saved again")
def _(work: Path) -> Outcome:
    from naturelm.tables.export import get_format

    row = recording(NAME)
    write_results(work / "t", [row], [detection(row, 10.0 * number, "Waldkauz, süß") for number in range(3)])
    run("export", work / "t", "--format", "csv", "--out", work / "x.csv")
    content = (work / "x.csv").read_bytes()
    rows = get_format("csv").load(work / "x.csv").num_rows
    cells = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    with (work / "x.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows(cells)
    again = get_format("csv").load(work / "x.csv").num_rows
    has_bom = content.startswith(b"\xef\xbb\xbf")
    return (
        "export --format csv; `;` for `,`",
        "BOM, read back",
        f"BOM {has_bom}, {rows} and {again} rows",
        has_bom and rows == again == 3,
    )


@case("16 times outside the calendar")
def _(work: Path) -> Outcome:
    whole = sound(work / "x.wav").read_bytes()
    guano = b"GUANO|Version: 1.0\nTimestamp: 0001-01-01T00:00:00+14:00\n"
    guano += b" " * (len(guano) % 2)
    got = durations(work, whole + b"guan" + struct.pack("<I", len(guano)) + guano, "x.wav")
    start = answer(work / "t", "SELECT start_local FROM recordings")
    return (
        "GUANO of year 1 with +14:00",
        "ok, no time",
        f"{got[0]}, {start}",
        got[0] == "ok" and start is None,
    )


@case("17 sound that cannot be")
def _(work: Path) -> Outcome:
    got = durations(work, sound(work / "x.wav", rate_hz=1, seconds=190_000).read_bytes())
    return "a header of 1 Hz", "unsupported", f"{got[0]}: {got[2][:48]}", got[0] == "unsupported"


@case("18 limits")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME)
    codes = [process(work / "a", "--out", work / "t", *options)[0] for options in (
        ("--window", "0.001"), ("--window", "1e30"), ("--hop", "nan"))]  # fmt: skip
    process(work / "a", "--out", work / "t")
    codes.append(run("clips", work / "t", "--out", work / "c", "--min-score", "nan")[0])
    codes.append(run("events", work / "t", "--gap", "nan")[0])
    return (
        "--window 0.001, 1e30, --hop nan, clips and events nan",
        "exit 2 each",
        str(codes),
        codes == [2] * 5,
    )


@case("19 hours and recordings without a time")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME)
    sound(work / "a/notes.wav", 1)
    _, output = process(work / "a", "--out", work / "t", "--hours", "05:00-06:00")
    said = line_with("--include-undated", output)
    return (
        "--hours, one file without a time",
        "counted",
        said[said.find("left out") :][:62],
        "1 recording" in said,
    )


@case("20 published tables deleted")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME)
    process(work / "a", "--out", work / "t")
    before = answer(work / "t", "SELECT count(*) FROM captions")
    shutil.rmtree(work / "t/captions")
    code, _ = run("query", work / "t", "FROM captions")
    process(work / "a", "--out", work / "t")
    after = answer(work / "t", "SELECT count(*) FROM captions")
    return (
        "rm -r captions",
        "refused, then restored",
        f"query exit {code}; {after} of {before} rows after process",
        (code, after) == (2, before),
    )


@case("21 queries")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME)
    process(work / "a", "--out", work / "t")
    codes = [run("query", work / "t", sql)[0] for sql in (
        "SELECT range(200_000_000)", "WITH a AS (INSERT INTO x VALUES (1) RETURNING *) FROM a", "EXPLAIN FROM answers",
        "SELECT 'infinity'::TIMESTAMP")]  # fmt: skip
    return (
        "a cell of 200 million, INSERT, EXPLAIN, infinity",
        "exit 2, 2, 0, 0",
        str(codes),
        codes == [2, 2, 0, 0],
    )


@case("22 the app and other pages")
def _(work: Path) -> Outcome:
    import httpx

    with program("inference-app", "--port", "0", TMPDIR=str(work)) as app:
        assert app.stdout is not None
        address = app.stdout.readline().split()[3]
        upload = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.wav", b"RIFF")}, timeout=60)
        codes = [
            httpx.get(f"{address}/config", headers=headers).status_code
            for headers in (
                {},
                {"Host": "evil.example"},
                {"Host": "localhost:1"},
                {"Origin": "http://localhost:1"},
            )
        ]
        before = len(list(work.rglob("*.wav")))
        app.terminate()
        app.wait(30)
    after = len(list(work.rglob("*.wav")))
    return (
        "other Host, port, Origin; an upload, then SIGTERM",
        "200, 403, 403, 403; uploads 1, 0",
        f"{', '.join(map(str, codes))}; uploads {before}, {after}",
        upload.status_code == 200 and codes == [200, 403, 403, 403] and (before, after) == (1, 0),
    )


@case("23 formulas in exports")
def _(work: Path) -> Outcome:
    row = recording(NAME)
    labels = ["=1+1", " =1+1", "\u200b=1+1", "\ufeff@SUM(A1)", "+1", "-1"]
    write_results(work / "t", [row], [detection(row, 10.0 * i, label) for i, label in enumerate(labels)])
    run("export", work / "t", "--format", "csv", "--out", work / "x.csv")
    with (work / "x.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [found["common_name"] for found in csv.DictReader(file)]
    guarded = sum(cell.startswith("'") for cell in cells)
    return (
        "labels =1+1, blank =1+1, zero-width =1+1, …",
        "6 guarded",
        f"{guarded} guarded",
        guarded == len(labels) == len(cells),
    )


@case("23 links to /proc and other disks")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME)
    sound(work / "disk/x.wav", 1)
    (work / "a/p").symlink_to("/proc")
    (work / "a/disk").symlink_to(work / "disk")
    _, output = run("plan", work / "a", "--out", work / "t", "--no-trial")
    said = line_with("leads out", output)
    return (
        "ln -s /proc, ln -s ../disk",
        "2 recordings, link named",
        f"{output.split(' (')[0]}; {bool(said):d} link named",
        output.startswith("2 rec") and bool(said),
    )


@case("23 reports and clips over existing files")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME)
    process(work / "a", "--out", work / "t")
    (work / "mine").write_text("mine")
    (work / "r.html").symlink_to(work / "mine")
    codes = [run("report", work / "t", "--out", work / "r.html", *more)[0] for more in ((), ("--overwrite",))]
    kept = (work / "mine").read_text() == "mine"
    return (
        "report --out through a link",
        "exit 2; the link replaced",
        f"exit {codes[0]}, {codes[1]}; target kept {kept}",
        codes == [2, 0] and kept,
    )


@case("24 settings")
def _(work: Path) -> Outcome:
    sound(work / "a" / NAME)
    codes = []
    for text in ("windows: {}\nwindows: {}\n", "", "job: {workers: " + "9" * 6000 + "}\n", "[" * 5000):
        (work / "c.yaml").write_text(text)
        codes.append(
            run("plan", work / "a", "--out", work / "t", "--no-trial", "--config", work / "c.yaml")[0]
        )
    return (
        "a key twice, empty, 6,000 digits, 5,000 brackets",
        "exit 2, 0, 2, 2",
        str(codes),
        codes == [2, 0, 2, 2],
    )


@case("25 weights that are no numbers")
def _(work: Path) -> Outcome:
    import torch
    from safetensors.torch import load_file, save_file

    import naturelm.models

    shutil.copytree(Path(naturelm.models.__file__).parent / "bundled/pocket", work / "m")
    tensors = load_file(work / "m/model.safetensors")
    tensors[next(iter(tensors))].view(-1)[0] = torch.nan
    save_file(tensors, work / "m/model.safetensors", metadata={"format": "pt"})
    sound(work / "a" / NAME)
    code, output = process(work / "a", "--out", work / "t", "--model", work / "m")
    return "one weight NaN", "refused", f"exit {code}: …{output.strip()[-60:]}", code == 2 and "NaN" in output


def ended_by(work: Path, name: str) -> Outcome:
    """A run in one process with windows of 0.1 s, which is sent a signal while it works."""
    sound(work / "a" / NAME, seconds=1800)
    options = ("--out", work / "t", "--workers", "0", "--window", "0.1", "--hop", "0.1")
    with program("process", work / "a", *options) as running:
        while not (work / "t/_lock.json").exists():
            time.sleep(0.1)
        time.sleep(10)
        began = time.monotonic()
        running.send_signal(getattr(signal, name))
        code = running.wait(60)
    taken_s, has_lock = time.monotonic() - began, (work / "t/_lock.json").exists()
    return (
        f"{name} to a run with windows of 0.1 s",
        f"{128 + getattr(signal, name)} within 20 s, no lock",
        f"{code} after {taken_s:.1f} s, lock {has_lock}",
        code == 128 + getattr(signal, name) and taken_s < 20 and not has_lock,
    )


@case("26 SIGTERM")
def _(work: Path) -> Outcome:
    return ended_by(work, "SIGTERM")


@case("26 the terminal is closed")
def _(work: Path) -> Outcome:
    return ended_by(work, "SIGHUP")


@case("27 strangers on Ray")
def _(work: Path) -> Outcome:
    names = ("test_stranger_cannot_use_a_local_ray", "test_local_ray_listens_on_the_loopback_only")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", *(f"tests/test_ray_cluster.py::{name}" for name in names)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    said = done.stdout.splitlines()[-1].strip("= ")
    return (
        "ray.init of another program, listening sockets",
        "refused, loopback only",
        said,
        done.returncode == 0,
    )


@case("all awkward files at once")
def _(work: Path) -> Outcome:
    write_tidy(work / "tidy")
    process(work / "tidy", "--out", work / "alone")
    write_tidy(work / "all")
    expected = write_awkward(work / "all")
    code, _ = process(work / "all", "--out", work / "t")
    sql = "SELECT path, start_s, query, text, score FROM answers JOIN recordings USING (recording_id) "
    sql += "WHERE path LIKE 'SITE1%' ORDER BY ALL"
    names = {row[0] for row in open_tables(work / "t").sql("SELECT path FROM recordings").fetchall()}
    equal = answer(work / "alone", sql) == answer(work / "t", sql)
    right = code == 0 and names == expected and equal
    return (
        f"{len(expected)} files",
        "each a row, tidy rows equal",
        f"exit {code}, {len(names)} rows, tidy rows equal: {equal}",
        right,
    )


_DISCOVER = """
import sys, time
from pathlib import Path
from naturelm.recordings import find_audio
began = time.perf_counter()
found = find_audio([Path(sys.argv[1])])
print(time.perf_counter() - began, len(getattr(found, 'files', found)))
"""


def discovery(work: Path, old: Path, pairs: int = 7) -> str:
    """Seconds that both versions take to find 100,000 files, by turns."""
    for folder in range(100):
        (work / f"{folder:03}").mkdir(parents=True)
        for file in range(1000):
            (work / f"{folder:03}/S{folder:03}_20240510_{file:06}.wav").touch()
    taken: dict[Path, list[float]] = {old: [], Path(__file__).parents[2]: []}
    for _ in range(pairs):
        for tree, times in taken.items():
            done = subprocess.run(
                [sys.executable, "-c", _DISCOVER, str(work)], env=os.environ | {"PYTHONPATH": str(tree)},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            seconds, number = done.stdout.split()
            assert number == "100000"
            times.append(float(seconds))
    before, after = taken.values()
    ratio = statistics.median(b / a for a, b in zip(before, after, strict=True))
    lists = [", ".join(f"{time:.2f}" for time in times) for times in (before, after)]
    return f"before {lists[0]} s\nnow    {lists[1]} s\nmedian of the ratios now/before: {ratio:.2f}"


def cases(work: Path) -> int:
    """Print the table; returns how many cases are not right."""
    print("| case | input | right | the program gives | |\n|---|---|---|---|---|")
    wrong = 0
    for number, (name, function) in enumerate(CASES):
        place = work / f"{number:02}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        recipe, right, given, is_right = function(place)
        given = given.replace(str(place) + "/", "").replace("|", "\\|").replace("\n", " ")
        print(
            f"| {name} | {recipe} | {right} | {given} | {'right' if is_right else '**wrong**'} |", flush=True
        )
        wrong += not is_right
    return wrong


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    wrong = cases(directory / "cases")
    print(f"\n{len(CASES) - wrong} of {len(CASES)} cases right")
    if len(sys.argv) > 2:
        print("\n" + discovery(directory / "many", Path(sys.argv[2]).absolute()))
