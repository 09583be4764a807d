"""Search by sound: exact, in bounded memory, with the query cut and encoded as the archive was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import naturelm
from naturelm.cli import main
from naturelm.embeddings import vectors
from naturelm.errors import NaturelmError
from naturelm.tables.query import open_tables
from tests.embeddings.places import STATIONS, run, settings, stopped_after

QUERY = f"{STATIONS[0]}/{STATIONS[0]}_20240501_060000.wav"


def all_vectors(out: Path) -> tuple[list[tuple[str, int]], np.ndarray]:
    with open_tables(out) as tables:
        rows = tables.sql('SELECT recording_id, "window", vector FROM embeddings').fetchall()
    return [(key, window) for key, window, _ in rows], np.asarray([vector for *_, vector in rows])


@pytest.mark.parametrize("batch_rows", [1, 3, 8192])
def test_search_is_exact_whatever_the_batches(processed, monkeypatch, batch_rows):
    monkeypatch.setattr(vectors, "BATCH_ROWS", batch_rows)
    keys, stored = all_vectors(processed)
    with open_tables(processed) as tables:
        [(recording_id,)] = tables.execute(
            "SELECT recording_id FROM recordings WHERE path = ?", [QUERY]
        ).fetchall()
    query = stored[keys.index((recording_id, 1))]
    cosines = stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
    expected = sorted(zip(cosines, keys, strict=True), key=lambda hit: -hit[0])
    expected = [hit for hit in expected if hit[1] != (recording_id, 1)][:5]
    found = naturelm.search(processed, detection=f"{QUERY}@10", top=5)
    assert list(zip(found["recording_id"].to_pylist(), found["window"].to_pylist(), strict=True)) == [
        key for _, key in expected
    ]
    np.testing.assert_allclose(found["similarity"], [score for score, _ in expected], atol=1e-4)


def test_query_file_is_cut_and_encoded_as_the_archive_was(archive, processed, tmp_path):
    copy = tmp_path / "elsewhere.wav"
    copy.write_bytes((archive / QUERY).read_bytes())
    found = naturelm.search(processed, like=f"{copy}@20", top=1).to_pylist()[0]
    assert (found["path"], found["window"], found["similarity"]) == (QUERY, 2, 1.0)


def test_sound_of_one_kind_is_found_at_other_stations(processed):
    # Windows hold owls, frogs and noise in turn, beginning at another one for each station.
    found = naturelm.search(processed, detection=f"{QUERY}@0", top=3).to_pylist()
    kinds = {(QUERY, 3)} | {(f"{STATIONS[1]}/{STATIONS[1]}_20240501_060000.wav", 2), ("nodate/plain.wav", 1)}
    assert {(row["path"], row["window"]) for row in found} == kinds


def test_windows_near_the_query_are_left_out(archive, processed):
    for query in ({"detection": f"{QUERY}@10"}, {"like": f"{archive / QUERY}@10"}):
        windows = {
            row["window"] for row in naturelm.search(processed, **query).to_pylist() if row["path"] == QUERY
        }
        assert windows == {0, 2, 3}
        far = naturelm.search(processed, **query, exclude_near_s=5).to_pylist()
        assert {row["window"] for row in far if row["path"] == QUERY} == {3}


def test_stations_and_dates_are_chosen_and_named_where_they_match_nothing(processed):
    search = {"detection": f"{QUERY}@10"}
    only = naturelm.search(processed, **search, stations=["湿地"])
    assert set(only["station"].to_pylist()) == {"湿地"}
    dated = naturelm.search(processed, **search, dates="2024-05-01")
    assert set(dated["station"].to_pylist()) == set(STATIONS)
    with pytest.raises(NaturelmError, match="no embeddings of station '008'; did you mean '007'"):
        naturelm.search(processed, **search, stations=["008"])
    with pytest.raises(
        NaturelmError, match="no embeddings of 2023-01-01; they are of 2024-05-01 to 2024-05-01"
    ):
        naturelm.search(processed, **search, dates="2023-01-01")


def test_staged_windows_are_found_too(archive, tmp_path, monkeypatch):
    run(archive, tmp_path, embed=True, stop=stopped_after(1, monkeypatch))
    keys, _ = all_vectors(tmp_path)
    path = (
        open_tables(tmp_path).sql("SELECT any_value(path) FROM recordings WHERE windows > 0").fetchall()[0][0]
    )
    found = naturelm.search(tmp_path, detection=f"{path}@0")
    assert found.num_rows == len(keys) - 1


def test_results_as_raven_tables_clips_and_a_page(archive, processed, tmp_path):
    arguments = [
        "search",
        str(processed),
        "--like",
        f"{archive / QUERY}@10",
        "--top",
        "3",
        "--format",
        "json",
    ]
    arguments += ["--raven", str(tmp_path / "found.txt"), "--clips", str(tmp_path / "clips")]
    arguments += ["--page", str(tmp_path / "page.html"), "--out", str(tmp_path / "found.json")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "found.json").read_text())
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert len((tmp_path / "found.txt").read_text().splitlines()) == 4
    assert len(list((tmp_path / "clips").rglob("*.flac"))) == 3
    page = (tmp_path / "page.html").read_text()
    assert page.count("<audio") == 3
    assert "湿地" in page


@pytest.mark.parametrize(
    ("like", "sentence"),
    [
        ("missing.wav", "missing.wav is not a file; give a sound file"),
        ("silent.wav", "the sound at 0 s is silent; give another moment"),
        ("silent.wav@30", "less than 0.5 s of sound at 30 s"),
        ("broken.wav", "cannot be decoded"),
    ],
)
def test_bad_query_is_refused_in_one_sentence(processed, tmp_path, monkeypatch, like, sentence):
    monkeypatch.chdir(tmp_path)
    soundfile.write("silent.wav", np.zeros(16_000 * 12, np.float32), 16_000)
    Path("broken.wav").write_bytes(b"RIFF no recording")
    done = CliRunner().invoke(main, ["search", str(processed), "--like", like])
    assert done.exit_code == 2
    assert sentence in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_bad_requests_are_refused_in_one_sentence(archive, processed, tmp_path):
    run(archive, tmp_path / "words", settings())
    for arguments, sentence in [
        ([str(processed)], "give either --like FILE or --detection"),
        ([str(processed), "--detection", "x"], "give RECORDING@SECONDS"),
        ([str(processed), "--detection", "nodate/plian.wav@0"], "did you mean 'nodate/plain.wav'"),
        ([str(processed), "--detection", "nodate/plain.wav@99"], "has no vector"),
        ([str(tmp_path / "words"), "--detection", "nodate/plain.wav@0"], "add them with: naturelm embed"),
        ([str(tmp_path / "nothing"), "--detection", "nodate/plain.wav@0"], "holds no results"),
    ]:
        done = CliRunner().invoke(main, ["search", *arguments])
        assert done.exit_code == 2, done.output
        assert sentence in done.output


def test_weights_that_changed_since_are_refused(archive, results):
    file = results / "_vectors" / "analysis.yaml"
    text = file.read_text()
    with open_tables(results) as tables:
        assert tables.sql("SELECT count(*) FROM embeddings").fetchall() == [(12,)]
    file.write_text(re.sub(r"revision: \S+", "revision: 0123456789abcdef", text))
    with pytest.raises(NaturelmError, match="at revision 0123456789ab, and pocket is"):
        naturelm.search(results, like=archive / QUERY)
