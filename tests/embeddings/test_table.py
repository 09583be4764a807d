"""The table of embeddings: equal to the plain formula, each window once, beside answers or without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.models import load_encoder, load_model
from naturelm.models.base import LanguageModel
from naturelm.tables.query import open_tables
from tests.embeddings.places import run, settings, stopped_after


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    model = load_model("pocket")
    assert isinstance(model, LanguageModel)
    return model


def stored(out: Path) -> dict[tuple[str, int], np.ndarray]:
    with open_tables(out) as tables:
        rows = tables.sql('SELECT recording_id, "window", vector FROM embeddings').fetchall()
    vectors = {(key, window): np.asarray(vector) for key, window, vector in rows}
    assert len(vectors) == len(rows)
    return vectors


def as_decoded(samples: np.ndarray) -> np.ndarray:
    """Samples as the decoder gives them to the model: as float16."""
    return samples.astype(np.float16).astype(np.float32)


def plain(archive: Path, out: Path, model: LanguageModel) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """The mean over positions of the encoder's output, in float32, window by window."""
    with open_tables(out) as tables:
        paths = tables.sql("SELECT recording_id, path FROM recordings WHERE status = 'ok'").fetchall()
    for key, path in paths:
        sound, rate = soundfile.read(archive / path, dtype="float32")
        for window in range(len(sound) // (10 * rate)):
            waveform = torch.from_numpy(as_decoded(sound[window * 10 * rate :][: 10 * rate]))[None]
            with torch.inference_mode():
                features = model.encode_features(waveform)
            yield (key, window), features[0].float().mean(0).numpy()


@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_vectors_equal_the_plain_formula_whatever_the_batch(archive, tmp_path, model, batch_size):
    job = {"segment_minutes": 1 / 3, "workers": 0, "batch_size": batch_size}
    run(archive, tmp_path, settings(embeddings={"pooling": "mean"}, job=job), embed=True)
    vectors = stored(tmp_path)
    expected = dict(plain(archive, tmp_path, model))
    assert vectors.keys() == expected.keys()
    for key, vector in expected.items():
        np.testing.assert_allclose(vectors[key], vector, rtol=2**-11, atol=2e-5)


def test_one_pass_gives_the_same_vectors_as_the_encoder_alone(archive, processed, tmp_path):
    run(archive, tmp_path, embed=True)
    one_pass, alone = stored(processed), stored(tmp_path)
    assert one_pass.keys() == alone.keys()
    for key, vector in alone.items():
        np.testing.assert_allclose(one_pass[key], vector, rtol=2**-10, atol=2e-5)


def test_encoder_alone_loads_no_language_model(model):
    encoder = load_encoder("pocket")
    assert not hasattr(encoder, "llama")
    waveform = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 160_000)).astype(np.float32) * 0.1)
    with torch.inference_mode():
        assert torch.equal(encoder.embed_audio(waveform), model.embed_audio(waveform))


def test_pooling_by_the_largest_values(archive, tmp_path, model):
    run(archive, tmp_path, settings(embeddings={"pooling": "max"}), embed=True)
    with open_tables(tmp_path) as tables:
        path = tables.sql("SELECT path FROM recordings WHERE station = '007'").fetchall()[0][0]
        vector = tables.sql(
            "SELECT vector FROM embeddings WHERE station = '007' AND \"window\" = 0"
        ).fetchall()[0][0]
    sound, _ = soundfile.read(archive / path, dtype="float32", frames=160_000)
    with torch.inference_mode():
        expected = model.encode_features(torch.from_numpy(as_decoded(sound))[None])[0].float().amax(0)
    np.testing.assert_allclose(vector, expected.numpy(), rtol=2**-11, atol=2e-5)


@pytest.mark.parametrize("embed", [True, False])
def test_interrupted_and_resumed_each_window_is_there_once(archive, tmp_path, processed, embed, monkeypatch):
    with monkeypatch.context() as patch:
        first = run(archive, tmp_path, embed=embed, stop=stopped_after(1, patch))
    assert first.left
    partial = stored(tmp_path)
    assert partial
    second = run(archive, tmp_path, embed=embed)
    assert not second.left
    vectors = stored(tmp_path)
    assert vectors.keys() == stored(processed).keys()
    assert partial.keys() <= vectors.keys()
    third = run(archive, tmp_path, embed=embed)
    assert third.segments == 0


def test_embeddings_are_added_to_answers_by_the_encoder_alone(archive, processed, tmp_path, monkeypatch):
    run(archive, tmp_path, settings())
    answers = sorted((file, file.stat().st_mtime_ns) for file in (tmp_path / "answers").rglob("*.parquet"))
    with open_tables(tmp_path) as tables:
        assert tables.sql("FROM embeddings").fetchall() == []

    def refuse(*arguments, **options):
        raise AssertionError("the language model was loaded")

    monkeypatch.setattr("naturelm.models.load_model", refuse)
    counts = run(archive, tmp_path, embed=True)
    assert counts.embeddings == len(stored(processed))
    assert not counts.answers
    assert stored(tmp_path).keys() == stored(processed).keys()
    assert answers == sorted(
        (file, file.stat().st_mtime_ns) for file in (tmp_path / "answers").rglob("*.parquet")
    )


def test_answers_are_added_to_embeddings(archive, processed, tmp_path):
    run(archive, tmp_path, embed=True)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "embeddings").rglob("*.parquet")}
    counts = run(archive, tmp_path)
    assert counts.answers
    assert not counts.embeddings
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "embeddings").rglob("*.parquet")}
    with open_tables(tmp_path) as tables, open_tables(processed) as expected:
        for name in ("answers", "recordings"):
            assert (
                tables.sql(f"SELECT count(*) FROM {name}").fetchall()
                == expected.sql(f"SELECT count(*) FROM {name}").fetchall()
            )


@pytest.mark.parametrize("first_embeds", [True, False])
def test_other_windows_are_refused_with_what_differs(archive, tmp_path, first_embeds):
    run(
        archive,
        tmp_path,
        settings(embeddings={"pooling": None if not first_embeds else "mean"}),
        embed=first_embeds,
    )
    other = settings(windows={"length_s": 5.0, "hop_s": 5.0})
    with pytest.raises(NaturelmError, match=r"of other windows.*windows.length_s \(10.0 there, 5.0 now\)"):
        run(archive, tmp_path, other, embed=not first_embeds)


def test_renamed_recording_keeps_answers_and_vectors(archive, results, tmp_path):
    import shutil

    copy = Path(shutil.copytree(archive, tmp_path / "copy"))
    out = tmp_path / "out"
    run(copy, out)
    before = stored(out)
    (copy / "007" / "007_20240501_060000.wav").rename(copy / "007" / "007_20240502_060000.wav")
    counts = run(copy, out)
    assert counts.segments == 0
    after = stored(out)
    assert len(after) == len(before)
    with open_tables(out) as tables:
        dates = tables.sql(
            "SELECT DISTINCT date::VARCHAR FROM embeddings WHERE station = '007' UNION "
            "SELECT DISTINCT date::VARCHAR FROM answers WHERE station = '007'"
        ).fetchall()
    assert dates == [("2024-05-02",)]


def test_files_open_everywhere_as_fixed_size_lists_of_float16(processed):
    folder = processed / "embeddings"
    file = next(folder.rglob("*.parquet"))
    schema = pq.read_schema(file)
    kind = schema.field("vector").type
    assert (kind.list_size, kind.value_type) == (192, pa.float16())
    assert schema.metadata[b"naturelm.encoder"] == b"pocket"
    assert schema.metadata[b"naturelm.encoder_revision"]
    assert schema.metadata[b"naturelm.pooling"] == b"mean"
    table = ds.dataset(folder).to_table()
    assert table.num_rows == 12
    assert set(table["station"].to_pylist()) == {"007", "湿地", "nodate"}
    assert len(pd.read_parquet(folder)) == 12
    assert pl.read_parquet(folder / "**/*.parquet").height == 12
    assert duckdb.sql(f"SELECT count(*), min(len(vector)) FROM '{folder}/*/*.parquet'").fetchall() == [
        (12, 192)
    ]


def test_gated_windows_have_no_vector(tmp_path):
    rng = np.random.default_rng(1)
    quiet = rng.normal(size=10 * 16_000) * 0.001
    loud = quiet.copy()
    loud[80_000:90_000] += np.sin(np.arange(10_000) * 2) * 0.5
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", np.concatenate([quiet, loud, quiet]).astype(np.float32), 16_000)
    config = settings(embeddings={"pooling": "mean"}, gate={"threshold_db": 20})
    run(tmp_path / "in", tmp_path / "out", config)
    assert [window for _, window in stored(tmp_path / "out")] == [1]


def test_directory_of_embeddings_alone_is_read_like_any_other(archive, tmp_path):
    run(archive, tmp_path / "v", embed=True)
    for verb in ("summary", "events"):
        done = CliRunner().invoke(main, [verb, str(tmp_path / "v")])
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["status", str(tmp_path / "v")])
    assert done.exit_code == 0, done.output


def test_recordings_are_not_looked_for_among_embeddings(archive, tmp_path):
    run(archive, tmp_path / "v", embed=True)
    (tmp_path / "a").symlink_to(archive)
    counts = run(tmp_path, tmp_path / "v2", embed=True)
    assert counts.recordings["ok"] == 3
