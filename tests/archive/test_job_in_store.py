"""The whole job from an object store into an object store: the same files as on a disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from naturelm.archive.backends import local
from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.storage import StorePath, list_files, location, write_whole
from naturelm.tables.query import open_tables
from tests.archive.runs import CONFIG, SETTINGS, published, run
from tests.broken_files import noise, write
from tests.object_store import ObjectStore, failing


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("card")
    for number, suffix in enumerate(("wav", "flac", "mp3")):
        path = directory / f"NORTH 1/NORTH1_2024050{number % 2 + 1}_0{number}0000.{suffix}"
        path.parent.mkdir(exist_ok=True)
        write(path, noise(45 + number))
    (directory / "SOUTH").mkdir()
    (directory / "SOUTH/broken.wav").write_bytes(b"RIFF")
    return directory


@pytest.fixture(scope="module")
def undisturbed(card: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    run([card], out)
    return published(out)


@pytest.fixture
def archive(card: Path, bucket: str) -> str:
    return uploaded(card, bucket)


def uploaded(card: Path, bucket: str) -> str:
    for file in list_files(card, recursive=True):
        write_whole(location(f"{bucket}/card") / file.relative_path, file.location.read_bytes())
    return f"{bucket}/card"


def published_in(out: StorePath) -> dict[str, bytes]:
    return {
        file.relative_path: file.location.read_bytes()
        for file in list_files(out, recursive=True)
        if file.relative_path.endswith(".parquet") and not file.relative_path.startswith("_")
    }


def staged_in(out: StorePath) -> list[str]:
    return [file.relative_path for file in list_files(out / "_staging", recursive=True)]


def test_tables_are_those_of_a_run_on_disks_byte_for_byte(
    archive: str, bucket: str, undisturbed: dict[str, bytes]
) -> None:
    out = location(f"{bucket}/a b/out")
    counts = run([location(archive)], out)
    assert counts.recordings["ok"] == 3
    assert published_in(out) == undisturbed
    assert staged_in(out) == []
    again = run([location(archive)], out)
    assert (again.segments, again.recordings["done before"]) == (0, 4)
    assert published_in(out) == undisturbed


def test_tables_in_googles_store_are_the_same(
    card: Path, google_bucket: str, undisturbed: dict[str, bytes]
) -> None:
    archive, out = uploaded(card, google_bucket), location(f"{google_bucket}/a b/out")
    run([location(archive)], out)
    assert published_in(out) == undisturbed
    assert staged_in(out) == []
    assert run([location(archive)], out).segments == 0
    answers = open_tables(out).sql("SELECT count(*) FROM answers").fetchall()
    assert (
        answers
        == open_tables(out)
        .sql("SELECT count(DISTINCT (recording_id, start_s, query)) FROM answers")
        .fetchall()
    )
    assert answers[0][0] > 20


def test_interrupted_run_goes_on(
    archive: str, bucket: str, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = location(f"{bucket}/out")
    whole = local.answer_here

    def cut_short(*arguments, **options):
        answers = whole(*arguments, **options)
        yield next(answers)
        yield next(answers)
        raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(local, "answer_here", cut_short)
        with pytest.raises(RuntimeError, match="the power went"):
            run([location(archive)], out)
    assert len(published_in(out)) < len(undisturbed)
    assert staged_in(out)
    counts = run([location(archive)], out)
    assert counts.segments < 8
    assert published_in(out) == undisturbed
    assert staged_in(out) == []


def test_segments_that_the_store_does_not_give_are_left_to_the_next_run(
    archive: str,
    bucket: str,
    undisturbed: dict[str, bytes],
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    decode = local.answer_here

    def store_fails(*arguments, **options):
        with failing(object_store, 403) as endpoint:
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)  # for the decoder's process
            yield from decode(*arguments, **options)
        monkeypatch.setenv("AWS_ENDPOINT_URL", object_store.endpoint)

    with monkeypatch.context() as patched:
        patched.setattr(local, "answer_here", store_fails)
        counts = run([location(archive)], tmp_path)
    assert (counts.segments, counts.unreachable) == (1, 6)
    assert "cannot be read (access denied)" in counts.failures[0]
    run([location(archive)], tmp_path)
    assert published(tmp_path) == undisturbed


def test_results_in_a_store_are_asked_in_sql(archive: str, bucket: str) -> None:
    out = f"{bucket}/out"
    run([location(archive)], location(out))
    with open_tables(out, locked=True) as tables:
        found = tables.sql("SELECT station, count(*) FROM recordings GROUP BY ALL ORDER BY ALL").fetchall()
        assert found == [("NORTH1", 3), ("SOUTH", 1)]
    shown = CliRunner().invoke(main, ["query", out, "SELECT count(*) AS n FROM answers", "--format", "csv"])
    assert shown.exit_code == 0, shown.output
    assert int(shown.output.split()[1]) > 10
    summary = CliRunner().invoke(main, ["summary", out])
    assert summary.exit_code == 0, summary.output
    status = CliRunner().invoke(main, ["status", out])
    assert "complete" in status.output


def test_another_analysis_into_the_same_place_is_refused(archive: str, bucket: str) -> None:
    out = location(f"{bucket}/out")
    run([location(archive)], out)
    other = CONFIG.model_copy(update={"windows": CONFIG.windows.model_copy(update={"hop_s": 5.0})})
    with pytest.raises(NaturelmError, match="holds another analysis, which differs in windows"):
        run([location(archive)], out, other)


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("s3://no-such-bucket-at-all/out", "no such bucket"),
        ("ftp://host/out", "ftp:// is not read here"),
        ("BUCKET/card/SOUTH/broken.wav", "is a file; give --out a directory"),
    ],
)
def test_place_that_cannot_be_written_is_one_sentence_and_exit_code_2(
    archive: str, bucket: str, out: str, expected: str
) -> None:
    result = CliRunner().invoke(main, ["process", archive, "--out", out.replace("BUCKET", bucket)])
    assert result.exit_code == 2, result.output
    (message,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert expected in message


def test_archive_that_is_not_there_is_one_sentence_and_exit_code_2(bucket: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["process", f"{bucket}/nowhere", "--out", str(tmp_path / "out")])
    assert (result.exit_code, f"{bucket}/nowhere: does not exist" in result.output) == (2, True)


@pytest.mark.slow
def test_workers_of_ray_read_the_store_and_the_driver_writes_it(
    archive: str, bucket: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    config = tmp_path / "archive.yaml"
    # One a core have one thread each, as the undisturbed run has: more threads may round a score's last digit.
    workers = len(os.sched_getaffinity(0))
    config.write_text(yaml.safe_dump(SETTINGS | {"job": SETTINGS["job"] | {"workers": workers}}))
    command = [sys.executable, "-m", "naturelm.cli", "process", archive, "--out", f"{bucket}/out"]
    done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert published_in(location(f"{bucket}/out")) == undisturbed
