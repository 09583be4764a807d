"""The training stream: the same for any number of workers and any start, whatever is drawn."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from naturelm.errors import NaturelmError
from naturelm.training import data
from naturelm.training.data import Loaded, Stream, read_examples
from naturelm.training.data_settings import DataSettings
from naturelm.training.manifest import Example

OPEN = "What are the common names for the species in the audio, if any?"
RATE_HZ = 16_000


def examples(count: int) -> list[Example]:
    return [Example(f"{i}.wav", "What calls?", "Owl", "common-naming", str(i)) for i in range(count)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Six recordings that hold their number as level, four questions about each, and noise."""
    rows = []
    for number in range(6):
        path, label = f"{number}.wav", ["Owl", "Frog", "Wolf"][number % 3]
        seconds = 25 if number == 0 else 4
        time_s = np.arange(seconds * RATE_HZ) / RATE_HZ
        soundfile.write(tmp_path / path, 0.1 * (number + 1) * np.sin(2 * np.pi * 500 * time_s), RATE_HZ)
        rows += [
            (path, OPEN, label, "common-multiple-detection"),
            (
                path,
                f"Which of these, if any, are present in the audio recording? {label}, Bat",
                label,
                "common-detection-random",
            ),
            (
                path,
                "What is the common name for the focal species in the audio? Answer:",
                label,
                "common-naming",
            ),
            (path, "Caption the audio.", f"{label}s call.", "caption"),
        ]
    keys = ("path", "prompt", "text", "task", "id")
    lines = [json.dumps(dict(zip(keys, (*row, str(i)), strict=True))) for i, row in enumerate(rows)]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    (tmp_path / "noise").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(
            tmp_path / "noise" / f"{number}.WAV", 0.05 * rng.standard_normal(20 * RATE_HZ), RATE_HZ
        )
    return tmp_path


def stream(corpus: Path, seed: int = 0, **settings: object) -> Stream:
    manifest = str(corpus / "m.jsonl")
    return Stream(read_examples([manifest]), DataSettings(manifests=(manifest,), **settings), seed)


def everything(corpus: Path) -> dict[str, object]:
    return {
        "questions_per_example": 2,
        "noise_folders": (str(corpus / "noise"),),
        "noise_probability": 0.5,
        "noise_only_probability": 0.2,
        "mixup_probability": 0.5,
        "time_scale_probability": 0.5,
        "gain_db": (-20.0, 0.0),
    }


def same(a: Loaded, b: Loaded) -> bool:
    return (a.id, a.task, a.questions, a.labels) == (b.id, b.task, b.questions, b.labels) and np.array_equal(
        a.waveform, b.waveform
    )


# -- the order -------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 40), batch=st.integers(1, 16), seed=st.integers(0, 5), epochs=st.integers(1, 3))
def test_every_epoch_holds_every_example_once(count, batch, seed, epochs):
    shuffled = Stream(examples(count), DataSettings(manifests=("m.jsonl",)), seed)
    steps = -(-epochs * count // batch)
    drawn = [spec.example for step in range(steps) for spec in shuffled.specs(step, batch)][: epochs * count]
    assert Counter(drawn) == dict.fromkeys(range(count), epochs)


@given(workers=st.sampled_from([1, 2, 3, 4, 6]), start=st.integers(0, 50))
def test_any_number_of_workers_and_any_start_see_the_same_batches(workers, start):
    whole = Stream(examples(17), DataSettings(manifests=("m.jsonl",)), 3)
    batch = [spec for step in range(60) for spec in whole.specs(step, 12)]
    resumed = pickle.loads(pickle.dumps(Stream(examples(17), DataSettings(manifests=("m.jsonl",)), 3)))
    share = 12 // workers
    parts = [
        spec
        for step in range(start, 60)
        for worker in range(workers)
        for spec in resumed.specs(step, 12)[worker * share : (worker + 1) * share]
    ]
    assert parts == batch[start * 12 :]


def test_order_and_seeds_differ_between_epochs_and_seeds():
    first, other = (Stream(examples(30), DataSettings(manifests=("m.jsonl",)), seed) for seed in (0, 1))
    assert [s.example for s in first.specs(0, 30)] != [s.example for s in first.specs(1, 30)]
    assert [s.example for s in first.specs(0, 30)] != [s.example for s in other.specs(0, 30)]
    seeds = [spec.seed for step in range(4) for spec in [*first.specs(step, 30), *other.specs(step, 30)]]
    assert len(set(seeds)) == len(seeds)


# -- one example -----------------------------------------------------------------------------------------------


def test_the_same_spec_loads_the_same_in_another_process(corpus):
    settings = everything(corpus)
    here = stream(corpus, **settings)
    specs = here.specs(0, 12)
    (corpus / "stream.pickle").write_bytes(pickle.dumps((here, specs)))
    code = (
        "import pickle, sys; from pathlib import Path; where = Path(sys.argv[1]);"
        "stream, specs = pickle.loads((where / 'stream.pickle').read_bytes());"
        "(where / 'loaded.pickle').write_bytes(pickle.dumps([stream.load(spec) for spec in reversed(specs)]))"
    )
    subprocess.run([sys.executable, "-c", code, str(corpus)], check=True)
    there = pickle.loads((corpus / "loaded.pickle").read_bytes())[::-1]
    assert all(same(here.load(spec), loaded) for spec, loaded in zip(specs, there, strict=True))


def test_every_example_is_one_window_within_full_scale(corpus):
    whole = stream(corpus, **everything(corpus))
    for spec in whole.specs(0, 40):
        loaded = whole.load(spec)
        assert loaded.waveform.shape == (10 * RATE_HZ,)
        assert loaded.waveform.dtype == np.float32
        assert np.abs(loaded.waveform).max() <= 1.0
        assert 1 <= len(loaded.questions) <= 2


def test_long_recordings_are_cropped_anywhere_and_short_ones_padded(corpus):
    time_s = np.arange(25 * RATE_HZ) / RATE_HZ
    soundfile.write(corpus / "0.wav", time_s / 30, RATE_HZ)  # the level tells the time
    cropped = stream(corpus)
    starts_s = [
        30 * loaded.waveform[0] for step in range(30) for spec in cropped.specs(step, 24) if spec.example < 4
        for loaded in [cropped.load(spec)]
    ]  # fmt: skip
    assert 0 <= min(starts_s) < 1.5
    assert 13.5 < max(starts_s) <= 15.01
    assert np.median(starts_s) == pytest.approx(7.5, abs=2.0)
    short = cropped.load(data.Spec(8, (0, 0, 8)))
    assert np.abs(short.waveform[: 4 * RATE_HZ]).max() > 0.2
    assert not short.waveform[4 * RATE_HZ :].any()


def test_without_augmentation_the_sound_is_heard_from_its_start(corpus):
    settings = DataSettings(manifests=(str(corpus / "m.jsonl"),), **everything(corpus)).without_augmentation()
    plain = Stream(read_examples(settings.manifests), settings, 0)
    expected, _ = soundfile.read(corpus / "0.wav", dtype="float32", frames=10 * RATE_HZ)
    number = next(i for i in range(len(plain)) if plain.load(data.Spec(i, (0, 0, i))).id == "2")
    for epoch in range(3):
        assert np.array_equal(plain.load(data.Spec(number, (0, epoch, number))).waveform, expected)


def test_rows_about_one_recording_that_are_augmented_alike_are_asked_together(corpus):
    together = stream(corpus, questions_per_example=2)
    assert len(together) == 6 * 3  # detection, naming, caption
    tasks = Counter(together.load(spec).questions.__len__() for spec in together.specs(0, 18))
    assert tasks == {2: 6, 1: 12}
    assert len(stream(corpus)) == 24


def test_labels_tell_all_that_is_in_a_sound_whatever_is_asked(corpus):
    plain = stream(corpus)
    for spec in plain.specs(0, 24):
        loaded = plain.load(spec)
        (label,) = loaded.labels
        assert label in loaded.questions[0][1]
    mixed = stream(corpus, mixup_probability=1.0)
    counts = Counter(len(mixed.load(spec).labels) for spec in mixed.specs(0, 24))
    assert counts[1] >= 12  # naming and captions are not mixed
    assert counts[2] + counts[3] >= 4


def test_mixed_sound_holds_both_recordings_and_answers_name_both(corpus):
    for number, hertz in enumerate((400, 800, 1200, 1600, 2000, 2400)):
        time_s = np.arange(10 * RATE_HZ) / RATE_HZ
        soundfile.write(corpus / f"{number}.wav", 0.5 * np.sin(2 * np.pi * hertz * time_s), RATE_HZ)
    mixed = stream(corpus, mixup_probability=1.0, mixup_partners=1)
    several = 0
    for spec in mixed.specs(0, 24):
        loaded = mixed.load(spec)
        spectrum = np.abs(np.fft.rfft(loaded.waveform))
        heard = sum(spectrum[hertz * 10] > 5000 for hertz in (400, 800, 1200, 1600, 2000, 2400))
        if "detection" in loaded.task:
            ((_, text),) = loaded.questions
            assert set(loaded.labels) == set(text.split(", "))
            several += heard == 2
            assert heard in (1, 2)  # a recording may be its own partner
        else:
            assert heard == 1
    assert several >= 6


def test_a_broken_recording_gives_its_place_to_another(corpus, caplog):
    (corpus / "1.wav").write_bytes(b"RIFF" + bytes(100))
    whole = stream(corpus)
    loaded = [whole.load(spec) for spec in whole.specs(0, 24)]
    assert not any(example.id in {"4", "5", "6", "7"} for example in loaded)
    assert "left out: " in caplog.text
    assert all(
        same(whole.load(spec), example) for spec, example in zip(whole.specs(0, 24), loaded, strict=True)
    )


def test_only_broken_recordings_end_in_one_sentence(corpus):
    for number in range(6):
        (corpus / f"{number}.wav").write_bytes(b"no sound")
    with pytest.raises(NaturelmError, match="8 recordings in a row cannot be decoded"):
        stream(corpus).load(data.Spec(0, (0, 0, 0)))


# -- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"noise_probability": 0.4}, "need noise_folders"),
        ({"noise_only_probability": 0.1}, "need noise_folders"),
        ({"gain_db": (0.0, -3.0)}, "give the lower number first"),
        ({"mixup_probability": 1.5}, "less than or equal to 1"),
        ({"manifests": ()}, "nothing to train on; give manifests or shards"),
        ({"window": 10}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, expected):
    with pytest.raises(ValidationError, match=expected):
        DataSettings(**({"manifests": ("m.jsonl",)} | settings))


def test_a_noise_folder_without_sound_is_refused(corpus):
    (corpus / "empty").mkdir()
    with pytest.raises(NaturelmError, match=r"empty: contains no sound; give data\.noise_folders"):
        stream(corpus, noise_folders=(str(corpus / "empty"),), noise_probability=0.5)
