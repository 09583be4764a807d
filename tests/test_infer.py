"""Asking recordings a question: the published Python interface and `naturelm infer`, `naturelm models`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from naturelm.audio.streaming import DecodeError
from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.infer import Pipeline, stream_windows
from naturelm.models import NatureLM
from naturelm.windows import plan_windows
from tests.paths import SMALL_MODEL

QUERY = "What is the common name for the focal species in the audio? Answer:"


@pytest.fixture(scope="module")
def model() -> NatureLM:
    return NatureLM.from_pretrained(SMALL_MODEL, device="cpu")


@pytest.fixture(scope="module")
def pipeline(model: NatureLM) -> Pipeline:
    return Pipeline(model=model, max_new_tokens=4, num_beams=1)


def noise(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(round(seconds * rate)) * 0.1).astype(np.float32)


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A whole recording, a text file in a recording's clothes, one that was cut, and one too short to hear."""
    soundfile.write(tmp_path / "a.wav", noise(12), 16000)
    (tmp_path / "b.wav").write_text("no sound")
    soundfile.write(tmp_path / "c.wav", noise(20, seed=1), 16000)
    whole = (tmp_path / "c.wav").read_bytes()
    (tmp_path / "c.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(tmp_path / "d.wav", noise(0.2), 16000)
    return tmp_path


def run(*arguments: object):
    return CliRunner().invoke(
        main, ["infer", *map(str, arguments), "--model", str(SMALL_MODEL), "--device", "cpu"]
    )


# -- the Python interface --------------------------------------------------------------------------------------


def test_published_call_answers_a_line_for_each_window(model: NatureLM, night: Path) -> None:
    (text,) = Pipeline(model=model, max_new_tokens=4)(
        [night / "a.wav"], [QUERY], window_length_seconds=10.0, hop_length_seconds=10.0
    )
    first, second = text.splitlines()
    assert first.startswith("#0.00s - 10.00s#: ")
    assert second.startswith("#10.00s - 12.00s#: ")
    assert text.endswith("\n")


def test_answers_are_those_of_the_model_asked_directly(model: NatureLM, pipeline: Pipeline) -> None:
    sound = noise(12)
    (text,) = pipeline([sound], QUERY)
    last = np.pad(sound[160_000:], (0, 128_000))
    waveforms = torch.from_numpy(np.stack([sound[:160_000], last]))
    direct = model.generate(waveforms, [QUERY] * 2, max_new_tokens=4, num_beams=1)
    spans = "#0.00s - 10.00s#", "#10.00s - 12.00s#"
    assert text == "".join(f"{span}: {answer.text}\n" for span, answer in zip(spans, direct, strict=True))


def test_batches_across_recordings_and_queries_answer_as_single_calls(model: NatureLM) -> None:
    sounds = [noise(12, seed=1), noise(3, seed=2), noise(21, seed=3)]
    queries = [QUERY, "Caption the audio.", QUERY]
    small_batches = Pipeline(model=model, max_new_tokens=4, num_beams=2, batch_size=2)
    together = small_batches(sounds, queries)
    alone = [small_batches([sound], query)[0] for sound, query in zip(sounds, queries, strict=True)]
    assert together == alone
    assert [text.count("#0.00s") for text in together] == [1, 1, 1]


def test_array_at_another_rate_is_resampled(pipeline: Pipeline) -> None:
    (text,) = pipeline([noise(12, 48_000)], QUERY, input_sample_rate=48_000)
    assert [line.split("#")[1] for line in text.splitlines()] == ["0.00s - 10.00s", "10.00s - 12.00s"]


def test_merging_alpha_set_after_the_pipeline_was_made_counts(model: NatureLM, pipeline: Pipeline) -> None:
    before = pipeline([noise(10)], QUERY)
    model.merging_alpha = 0.0
    base = pipeline([noise(10)], QUERY)
    model.merging_alpha = 1.0
    assert base != before
    assert pipeline([noise(10)], QUERY) == before


@pytest.mark.parametrize(
    ("audios", "queries", "settings", "complaint"),
    [
        ("a.wav", QUERY, {}, "give a list"),
        ([noise(1)], [QUERY, QUERY], {}, "2 queries for 1 recordings"),
        ([noise(1)], " ", {}, "no text"),
        ([noise(1).reshape(2, -1)], QUERY, {}, "mono"),
        ([noise(1).astype(np.int16)], QUERY, {}, "floating-point"),
        ([noise(1)], QUERY, {"input_sample_rate": 0}, "input_sample_rate is 0"),
        ([noise(1)], QUERY, {"hop_length_seconds": 0.0}, "hop is 0 s"),
        ([noise(1)], QUERY, {"window_length_seconds": -1.0}, "window is -1 s"),
        ([noise(1)], QUERY, {"window_length_seconds": 20.0}, "the model takes at most 10 s"),
    ],
)
def test_input_mistakes_are_named(pipeline: Pipeline, audios, queries, settings, complaint) -> None:
    with pytest.raises(NaturelmError, match=complaint):
        pipeline(audios, queries, **settings)


def test_no_recordings_give_no_answers(pipeline: Pipeline) -> None:
    assert pipeline([], QUERY) == []


# -- windows of a stream ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration_s", [0.0, 0.3, 0.5, 7.0, 10.0, 10.4, 10.5, 12.0, 20.0, 25.0, 30.01])
@pytest.mark.parametrize("hop_s", [10.0, 5.0, 2.5, 3.3])
@pytest.mark.parametrize("block", [1_000, 65_536])
def test_windows_of_a_stream_are_the_planned_ones(duration_s: float, hop_s: float, block: int) -> None:
    sound = noise(duration_s)
    blocks = (sound[i : i + block] for i in range(0, len(sound), block))
    cuts = list(stream_windows(blocks, 10.0, hop_s))
    assert [cut.window for cut in cuts] == plan_windows(duration_s, 10.0, hop_s)
    for cut in cuts:
        first = round(cut.window.start_s * 16_000)
        expected = sound[first : first + 160_000]
        assert np.array_equal(cut.samples[: len(expected)], expected)
        assert not cut.samples[len(expected) :].any()


def test_damage_comes_after_the_windows_before_it() -> None:
    def damaged():
        yield noise(12)
        raise DecodeError("corrupt", "x.wav: decoding stopped")

    windows = stream_windows(damaged(), 10.0, 10.0)
    assert [next(windows).window.end_s, next(windows).window.end_s] == [10.0, 12.0]
    with pytest.raises(DecodeError):
        next(windows)


# -- the command line ------------------------------------------------------------------------------------------


def test_infer_prints_a_line_for_each_window_and_names_broken_files(night: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    done = run(night, "--query", QUERY, "--max-new-tokens", 3, "--out", output)
    assert done.exit_code == 0, done.output
    spans = [line.split("#: ")[0] for line in done.stdout.splitlines()]
    assert spans == ["a.wav #0.00s - 10.00s", "a.wav #10.00s - 12.00s", "c.wav #0.00s - 10.00s"]
    broken, cut, short = done.stderr.splitlines()
    assert broken.startswith("b.wav: ")
    assert cut == "c.wav: the sound ends at 10.00 s, before the 20.00 s that the header claims"
    assert short == "d.wav: contains less than 0.5 s of sound, so no window"
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(Path(row["path"]).name, row["start_s"], row["end_s"]) for row in rows] == [
        ("a.wav", 0.0, 10.0),
        ("a.wav", 10.0, 12.0),
        ("c.wav", 0.0, pytest.approx(10.0, abs=0.01)),
    ]
    assert all(row["query"] == QUERY and 0 < row["score"] <= 1 for row in rows)


def test_infer_fails_if_no_recording_could_be_answered(night: Path) -> None:
    done = run(night / "b.wav", "--query", QUERY)
    assert done.exit_code == 1
    assert done.stderr.startswith("b.wav: ")


def test_window_alone_sets_the_hop(night: Path) -> None:
    done = run(night / "a.wav", "--query", QUERY, "--window", 5, "--max-new-tokens", 1)
    assert [line.split("#")[1] for line in done.stdout.splitlines()] == [
        "0.00s - 5.00s",
        "5.00s - 10.00s",
        "10.00s - 12.00s",
    ]


@pytest.mark.parametrize(
    "mistake",
    [
        ["--query", " "],
        ["--query", QUERY, "--hop", "0"],
        ["--query", QUERY, "--window", "-3"],
        ["--query", QUERY, "--window", "30"],
        ["--query", QUERY, "--num-beams", "0"],
        ["--query", QUERY, "--merging-alpha", "2"],
        ["--query", QUERY, "--llm", "/no/such/llm"],
        ["--query", QUERY, "--out", "/no/such/directory/x.jsonl"],
        ["--query", QUERY, "--config", "/no/such.yaml"],
        [],
    ],
)
def test_input_mistakes_end_in_one_sentence_and_code_2(night: Path, mistake: list[str]) -> None:
    done = run(night / "a.wav", *mistake)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("options", [["--device", "quantum"], ["--model", "robin"]])
def test_unusable_device_or_model_ends_in_one_sentence_and_code_2(night: Path, options: list[str]) -> None:
    settings = {"--model": str(SMALL_MODEL), "--device": "cpu", options[0]: options[1]}
    flags = [part for item in settings.items() for part in item]
    done = CliRunner().invoke(main, ["infer", str(night / "a.wav"), "--query", QUERY, *flags])
    assert done.exit_code == 2
    assert options[1] in done.stderr


@pytest.mark.parametrize("path", ["/no/such/file.wav", None])
def test_path_without_recordings_ends_with_code_2(tmp_path: Path, path: str | None) -> None:
    done = run(path or tmp_path, "--query", QUERY)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


def test_models_lists_what_each_needs() -> None:
    done = CliRunner().invoke(main, ["models", "--format", "json"])
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {"pocket", "naturelm-8b", "salmonn-7b", "salmonn-13b", "ltu-7b"}
    assert rows["naturelm-8b"]["memory_gb_bf16"] == pytest.approx(2 * 8.1 + 2.7, abs=0.5)
    assert "CC-BY-NC-SA" in rows["naturelm-8b"]["licence"]
    assert {file["part"] for file in rows["salmonn-13b"]["files"]} == {
        "checkpoint",
        "whisper",
        "beats",
        "llm",
    }
    assert rows["ltu-7b"]["window_s"] == 10.24
    assert rows["ltu-7b"]["query_kinds"] == ["caption", "classification"]
    assert rows["salmonn-7b"]["memory_gb"]["int8"] < rows["salmonn-7b"]["memory_gb"]["bf16"]
    assert rows["pocket"]["here"]
    assert not rows["ltu-7b"]["here"]
    table = CliRunner().invoke(main, ["models"])
    assert table.exit_code == 0
    assert all(name in table.stdout for name in rows)
    assert "whisper: openai/whisper-large-v2, 6.2 GB" in table.stdout


def test_preset_that_is_not_here_says_how_to_get_it(night: Path) -> None:
    done = CliRunner().invoke(main, ["infer", str(night / "a.wav"), "--query", QUERY, "--model", "ltu-7b"])
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "download ltu_ori_paper.bin" in done.stderr
