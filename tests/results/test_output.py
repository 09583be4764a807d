"""Staging and publishing: whole rows, once, whatever is repeated."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naturelm.config.archive import ArchiveConfig
from naturelm.config.loading import load_archive_config
from naturelm.errors import NaturelmError
from naturelm.models.answer import Answer
from naturelm.recordings import Recording
from naturelm.results.output import Output
from naturelm.results.rows import AnsweredSegment, segment_tables, unread
from naturelm.results.schemas import SCHEMA_VERSION, SORT_KEYS, TABLES
from naturelm.segments import Day, Segment, cut_segments

CONFIG = ArchiveConfig()
DAY = Day("S 1/ü", "2024-05-01")


def recording(number: int = 0, duration_s: float = 40.0, **facts) -> Recording:
    known = {
        "recording_id": f"{number:032x}",
        "path": f"S1/{number}.wav",
        "root": "/r",
        "station": DAY.station,
        "start_local": dt.datetime(2024, 5, 1, number),
        "start_time": dt.datetime(2024, 5, 1, number, tzinfo=dt.UTC),
        "duration_s": duration_s,
    }
    return Recording(**known | facts)


def say(text: str, score: float = 0.5) -> Answer:
    return Answer(text=text, token_ids=(1,), score=score, token_scores=(score,), token_ends=(len(text),))


def answered(segment: Segment, label: str = "Owl", status: str = "ok") -> AnsweredSegment:
    windows = tuple(segment.windows(segment.recording.duration_s or 0.0, CONFIG.windows))
    answers = tuple((say(label), say("A sound.")) for _ in windows)
    return AnsweredSegment(segment, windows, answers, segment.own_end_s - segment.start_s, status, None)


def output(directory: Path, config: ArchiveConfig = CONFIG) -> Output:
    return Output(directory, config.analysis("r"), config.model_dump(mode="json"), 2)


def stage(out: Output, result: AnsweredSegment) -> str:
    out.staged.write(result.segment.id, segment_tables(result, CONFIG.queries, "pocket"))
    return result.segment.id


def published(directory: Path, table: str) -> pa.Table:
    # One file at a time: what stands in the files, without the partition.
    files = sorted(directory.glob(f"{table}/**/*.parquet"))
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in files])


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.parquet")}


def test_published_day_holds_the_rows_of_its_segments_sorted(tmp_path):
    out = output(tmp_path)
    segments = cut_segments(recording(1), CONFIG.windows, 2) + cut_segments(recording(0), CONFIG.windows, 2)
    rows = out.publish(DAY, [stage(out, answered(segment)) for segment in segments])
    assert [row["windows"] for row in rows] == [4, 4]
    assert [row["decoded_s"] for row in rows] == [40.0, 40.0]
    answers = published(tmp_path, "answers")
    assert answers.num_rows == 2 * 4 * 2
    assert answers.sort_by([(key, "ascending") for key in SORT_KEYS["answers"]]) == answers
    assert published(tmp_path, "detections").num_rows == 8
    assert published(tmp_path, "captions")["caption"].to_pylist() == ["A sound."] * 8
    assert out.staged.ids() == set()
    assert {old.recording_id for old in out.published.recordings()} == {f"{0:032x}", f"{1:032x}"}


def test_published_files_are_named_by_station_and_date_and_carry_schema_and_analysis(tmp_path):
    out = output(tmp_path)
    out.publish(DAY, [stage(out, answered(cut_segments(recording(), CONFIG.windows, 9)[0]))])
    for name, schema in TABLES.items():
        path = tmp_path / name / "S 1%2F%C3%BC/2024-05-01.parquet"
        found = pq.read_schema(path)
        assert found.equals(schema)
        assert found.metadata[b"naturelm.schema_version"].decode() == str(SCHEMA_VERSION)
        assert found.metadata[b"naturelm.analysis"].decode() == CONFIG.analysis_hash("r")


def test_staging_and_publishing_again_changes_nothing(tmp_path):
    out = output(tmp_path)
    segments = cut_segments(recording(), CONFIG.windows, 2)
    out.publish(DAY, [stage(out, answered(segment)) for segment in segments])
    before = files(tmp_path)
    # As after a crash between publishing and clean-up, or a recording answered twice.
    out.publish(DAY, [stage(out, answered(segment)) for segment in segments])
    assert files(tmp_path) == before


def test_day_does_not_depend_on_the_order_in_which_segments_came(tmp_path):
    segments = [s for n in range(3) for s in cut_segments(recording(n), CONFIG.windows, 2)]
    results = []
    for order in (segments, segments[::-1]):
        out = output(tmp_path / str(len(results)))
        out.publish(DAY, [stage(out, answered(segment)) for segment in order])
        results.append(files(out.directory))
    assert results[0] == results[1]


def test_recording_that_arrives_later_joins_its_day(tmp_path):
    out = output(tmp_path)
    out.publish(DAY, [stage(out, answered(cut_segments(recording(0), CONFIG.windows, 9)[0], "Owl"))])
    out.publish(DAY, [stage(out, answered(cut_segments(recording(1), CONFIG.windows, 9)[0], "Wren"))])
    labels = published(tmp_path, "detections")["label"].to_pylist()
    assert (labels.count("Owl"), labels.count("Wren")) == (4, 4)
    assert len(list(tmp_path.glob("answers/**/*.parquet"))) == 1


def test_day_without_detections_is_a_valid_empty_table(tmp_path):
    out = output(tmp_path)
    (segment,) = cut_segments(recording(duration_s=0.1, status="too_short", error="x"), CONFIG.windows, 9)
    (row,) = out.publish(DAY, [stage(out, unread(segment))])
    assert (row["status"], row["windows"], row["decoded_s"]) == ("too_short", 0, 0.1)
    for name in ("answers", "detections", "captions"):
        table = published(tmp_path, name)
        assert table.num_rows == 0
        assert table.schema.equals(TABLES[name])


def test_recording_has_the_worst_status_of_its_segments(tmp_path):
    out = output(tmp_path)
    first, second = cut_segments(recording(), CONFIG.windows, 2)
    broken = AnsweredSegment(second, (), (), 3.0, "partial", "ends early")
    (row,) = out.publish(DAY, [stage(out, answered(first)), stage(out, broken)])
    assert (row["status"], row["error"], row["decoded_s"], row["windows"]) == (
        "partial",
        "ends early",
        23.0,
        2,
    )


def test_crash_leftovers_are_cleared_and_unpublished_segments_stay(tmp_path):
    out = output(tmp_path)
    done, waiting = (cut_segments(recording(n), CONFIG.windows, 9)[0] for n in (0, 1))
    out.publish(DAY, [stage(out, answered(done))])
    stage(out, answered(done))
    stage(out, answered(waiting))
    half_written = [
        tmp_path / folder / ".x.99.tmp" for folder in ("_staging", "_staging/answers", "_runs", "_plans")
    ]
    for path in half_written:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"PAR1")
    out.recover()
    assert out.unstage_published(out.published.recordings()) == {waiting.id}
    assert out.staged.ids() == {waiting.id}
    assert not any(path.exists() for path in half_written)


def test_crash_in_the_middle_of_clearing_leaves_no_files_behind(tmp_path):
    out = output(tmp_path)
    first, second = cut_segments(recording(), CONFIG.windows, 2)
    ids = [stage(out, answered(segment)) for segment in (first, second)]
    # `answers` go first, so that the crash comes after them and before the others.
    for segment_id in ids:
        (tmp_path / "_staging/answers" / f"{segment_id}.parquet").unlink()
    assert len(list((tmp_path / "_staging").rglob("*.parquet"))) == 2 * (len(TABLES) - 1)
    out.recover()
    assert out.staged.ids() == set()
    assert list((tmp_path / "_staging").rglob("*.parquet")) == []


def test_segment_without_its_answers_file_is_not_committed(tmp_path):
    out = output(tmp_path)
    segment = cut_segments(recording(), CONFIG.windows, 9)[0]
    stage(out, answered(segment))
    (tmp_path / "_staging" / "answers" / f"{segment.id}.parquet").unlink()
    assert out.staged.ids() == set()


def test_another_analysis_is_refused_with_the_differing_settings(tmp_path):
    output(tmp_path)
    other = load_archive_config(None, {"windows": {"hop_s": 5.0}, "generation": {"num_beams": 2}})
    with pytest.raises(NaturelmError) as error:
        output(tmp_path, other)
    assert "windows.hop_s (10.0 there, 5.0 now)" in str(error.value)
    assert "generation.num_beams (1 there, 2 now)" in str(error.value)


def test_directory_keeps_the_segment_length_it_was_begun_with(tmp_path):
    output(tmp_path)
    again = Output(tmp_path, CONFIG.analysis("r"), CONFIG.model_dump(mode="json"), 999)
    assert again.analysis.segment_windows == 2


def test_output_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_text("")
    with pytest.raises(NaturelmError, match="is a file"):
        output(path)


def test_scores_are_stored_rounded_and_labels_with_their_own_score(tmp_path):
    segment = cut_segments(recording(duration_s=10.0), CONFIG.windows, 9)[0]
    answer = Answer(
        text="Owl, Wren",
        token_ids=(1, 2, 3),
        score=0.123456,
        token_scores=(0.9, 0.99, 0.333333),
        token_ends=(3, 4, 9),
    )
    windows = tuple(segment.windows(10.0, CONFIG.windows))
    result = AnsweredSegment(segment, windows, ((answer, say("None")),), 10.0, "ok", None)
    tables = segment_tables(result, CONFIG.queries, "pocket")
    assert tables["detections"].select(["label", "score"]).to_pylist() == [
        {"label": "Owl", "score": 0.9},
        {"label": "Wren", "score": 0.3333},
    ]
    assert tables["captions"].num_rows == 0
    assert tables["answers"]["score"].to_pylist() == [0.1235, 0.5]
    assert tables["answers"]["text"].to_pylist() == ["Owl, Wren", "None"]
