"""Training sets with the sound inside: their order, exact resumption, what is refused, and packing."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.storage import location, write_whole
from naturelm.training.data import Stream, read_examples
from naturelm.training.data_settings import DataSettings
from naturelm.training.run import run_training
from naturelm.training.settings import parse
from naturelm.training.shards import ShardRows, open_shards
from tests.training.runs import QUESTION, losses, run, settings
from tests.training.test_run import Interrupted, StopsAt, same

RATE_HZ = 8_000


def row(number: int, seconds: float = 2.0, **changes: object) -> dict[str, object]:
    """A row whose sound has a level that says which it is."""
    values: dict[str, object] = {
        "audio": np.full(round(seconds * RATE_HZ), number / 1000, np.float32),
        "id": f"row-{number}",
        "metadata": json.dumps({"sample_rate": RATE_HZ, "duration": seconds}),
        "file_name": f"{number}.wav",
        "instruction": f"<Audio><AudioHere></Audio> {QUESTION}",
        "instruction_text": QUESTION,
        "output": ("Owl", "Frog", "None")[number % 3],
        "task": "common-detection",
        "dataset_name": "made-up",
    }
    return values | changes


def write(path: Path, *rows: dict[str, object], group: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=group)
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Five shards of different sizes, 47 rows."""
    directory = tmp_path_factory.mktemp("packed") / "hub"
    number = 0
    for shard, count in enumerate((10, 7, 1, 16, 13)):
        write(directory / f"data/train-{shard}.parquet", *(row(number + n) for n in range(count)))
        number += count
    return directory


def opened(directory: Path, seed: int = 0, buffer_rows: int = 16, longest_s: float = 2.0) -> ShardRows:
    return open_shards([str(directory)], seed, buffer_rows, longest_s, True)


def test_every_epoch_gives_every_row_once_but_for_the_rest_of_the_lanes(packed):
    rows = opened(packed)
    assert len(rows) == 47
    lane_rows = 47 // 8
    for epoch in range(3):
        names = [rows.row(draw).id for draw in range(epoch * 8 * lane_rows, (epoch + 1) * 8 * lane_rows)]
        assert len(set(names)) == len(names) == 40


def test_rows_are_what_the_order_says_and_have_their_own_sound(packed):
    rows = opened(packed)
    table = {str(path): pq.read_table(path).to_pylist() for path in packed.rglob("*.parquet")}
    for draw in range(60):
        found, (path, number) = rows.row(draw), rows.position(draw)
        assert found.id == table[path][number]["id"]
        assert len(found.waveform) == 32_000
        assert np.median(found.waveform) == pytest.approx(int(found.id.removeprefix("row-")) / 1000, abs=1e-4)


def test_the_order_depends_on_the_seed_and_on_nothing_that_was_read_before(packed):
    first = [opened(packed).row(draw).id for draw in range(40)]
    rows = opened(packed)
    assert [rows.row(draw).id for draw in reversed(range(40))] == first[::-1]
    copy = pickle.loads(pickle.dumps(rows))
    assert [copy.row(draw).id for draw in range(33, 40)] == first[33:]
    assert [opened(packed, seed=1).row(draw).id for draw in range(40)] != first


def test_neighbours_in_the_order_are_from_several_shards(packed):
    rows = opened(packed)
    for step in range(4):
        assert len({rows.position(draw)[0] for draw in range(8 * step, 8 * step + 8)}) >= 3


def test_of_a_long_sound_a_piece_is_kept(tmp_path):
    ramp = (np.arange(60 * RATE_HZ) / (60 * RATE_HZ)).astype(np.float32)
    write(tmp_path / "a.parquet", *(row(n, audio=ramp) for n in range(16)))
    starts = []
    for draw in range(16):
        waveform = opened(tmp_path).row(draw).waveform
        assert len(waveform) == 32_000
        starts.append(float(waveform[100]))
    assert max(starts) - min(starts) > 0.5


def test_rows_that_cannot_be_used_are_replaced_and_named(packed, tmp_path, caplog):
    bad = [
        row(1, audio=np.empty(0, np.float32)),
        row(2, audio=np.full(10, np.nan, np.float32)),
        row(3, metadata="{}"),
        row(4, metadata="no JSON"),
        row(5, output=""),
        row(6, instruction_text=None),
        row(7, audio=None),
        row(8, metadata=json.dumps({"sample_rate": 0})),
    ]
    good = iter([row(n) for n in range(100, 156)])
    write(tmp_path / "a.parquet", *(bad[n // 8] if n % 8 == 0 else next(good) for n in range(64)))
    rows = opened(tmp_path, buffer_rows=64)
    assert sum(rows.row(draw) is None for draw in range(64)) == 8
    stream = Stream([], DataSettings(shards=("s",), window_s=2.0), 0, rows)
    loaded = [stream.load(spec) for spec in stream.specs(0, 64)]
    assert {item.id for item in loaded} <= {f"row-{n}" for n in range(100, 156)}
    for words in (
        "audio is empty or not finite",
        "metadata has no sample_rate",
        "output is missing or empty",
    ):
        assert words in caplog.text


def test_shards_and_manifests_are_mixed_by_weight(packed, manifest):
    values = DataSettings(manifests=(str(manifest),), shards=(str(packed),), shards_share=0.25, window_s=2.0)
    stream = Stream(read_examples(values.manifests), values, 0, opened(packed))
    assert len(stream) == 12 + 47
    specs = [spec for step in range(30) for spec in stream.specs(step, 6)]
    assert len(specs) == 180
    assert sum(spec.packed for spec in specs) == 45
    assert [spec.example for spec in specs if spec.packed] == list(range(45))
    # Each epoch of the manifest still has every example once.
    drawn = Counter(spec.example for spec in specs if not spec.packed)
    assert set(drawn) == set(range(12))
    assert max(drawn.values()) - min(drawn.values()) <= 1


def test_mixup_takes_partners_from_the_rows_around(packed):
    values = DataSettings(shards=(str(packed),), window_s=2.0, mixup_probability=1.0)
    stream = Stream([], values, 0, opened(packed, buffer_rows=47))
    texts = {stream.load(spec).questions[0][1] for step in range(5) for spec in stream.specs(step, 8)}
    assert "Frog, Owl" in texts


def config_of(shape, packed: Path, storage: Path, **data):
    values = settings(shape, Path("unused"), storage)
    values["data"] = {"shards": [str(packed)], "window_s": 2.0, "shuffle_rows": 16, **data}
    values["optimisation"]["batch"] = 8
    return parse(values, "test")


def test_interrupted_run_resumes_at_the_exact_row(shape, packed, manifest, tmp_path):
    data = {"manifests": [str(manifest)], "shards_share": 0.4, "mixup_probability": 0.5}
    run(config_of(shape, packed, tmp_path / "whole", **data))
    values = config_of(shape, packed, tmp_path / "run", **data)
    with pytest.raises(Interrupted):
        run_training(values, False, StopsAt(5))
    run(values, resume=True)
    same(losses(tmp_path / "run"), losses(tmp_path / "whole"))
    run(config_of(shape, packed, tmp_path / "ahead", **data).model_copy(deep=True))
    same(losses(tmp_path / "ahead"), losses(tmp_path / "whole"))


def test_shards_in_an_object_store_are_read(packed, bucket):
    for path in packed.rglob("*.parquet"):
        write_whole(location(f"{bucket}/hub/{path.name}"), path.read_bytes())
    there = open_shards([f"{bucket}/hub"], 0, 16, 2.0, True)
    here = opened(packed)
    for draw in range(16):
        assert there.row(draw).id == here.row(draw).id


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda d: (d / "a.txt").write_text("x"), "contains no .parquet files; give data.shards"),
        (lambda d: (d / "a.parquet").write_text("x"), "a.parquet: not a Parquet file"),
        (
            lambda d: write(d / "a.parquet", {"audio": [0.0], "text": "x"}),
            "has no column metadata, output, task",
        ),
        (
            lambda d: write(d / "a.parquet", row(1, audio="x")),
            "audio is string; give a list of floating-point",
        ),
        (lambda d: pq.write_table(pa.Table.from_pylist([row(1)])[:0], d / "a.parquet"), "contains no rows"),
    ],
)
def test_what_is_no_training_set_is_refused(tmp_path, make, expected):
    make(tmp_path)
    with pytest.raises(NaturelmError) as caught:
        opened(tmp_path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


# -- naturelm manifest --to shards -----------------------------------------------------------------------------


def call(*arguments: object):
    return CliRunner().invoke(main, ["manifest", *map(str, arguments)])


def test_manifest_is_packed_with_its_sound(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("naturelm.training.packing.SHARD_ROWS", 5)
    done = call(manifest, "--to", "shards", "--out", tmp_path / "shards")
    assert done.exit_code == 0, done.output
    assert "12 questions in 3 shards" in done.output
    rows = opened(tmp_path / "shards")
    examples = {example.id: example for example in read_examples([str(manifest)])}
    for draw in range(8):
        packed_row = rows.row(draw)
        example = examples[packed_row.id]
        assert (packed_row.prompt, packed_row.text, packed_row.task) == (
            example.prompt,
            example.text,
            example.task,
        )
        sound, _ = soundfile.read(example.path, dtype="float32")
        assert np.array_equal(packed_row.waveform, sound)
    again = call(manifest, "--to", "shards", "--out", tmp_path / "shards")
    assert again.exit_code == 2
    assert "is not empty; give --out a new directory" in again.output


def test_only_manifests_are_packed_and_somewhere(manifest, tmp_path):
    assert (
        "--to shards packs a manifest"
        in call(manifest.parent, "--to", "shards", "--out", tmp_path / "s").output
    )
    assert "--out is missing; name the directory" in call(manifest, "--to", "shards").output
