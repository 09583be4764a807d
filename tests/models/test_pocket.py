"""The bundled model is small, whole, and says in words what its card claims."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from naturelm.models import NatureLM, presets
from naturelm.synthetic import sounds as synthesis
from naturelm.synthetic.nights import make_night

RATE_HZ = 16_000
DETECTION = "What are the common names for the species in the audio, if any?"
FOCAL = "What is the common name for the focal species in the audio? Answer:"
OPTIONS = "Which of these is the focal species in the audio: {}? Answer:"
CAPTION = "Caption the audio."


@pytest.fixture(scope="module")
def pocket() -> Iterator[NatureLM]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model loses more than it gains by waiting for a second core
    yield NatureLM.from_pretrained("pocket", device="cpu")
    torch.set_num_threads(threads)


def ask(model: NatureLM, sounds: list[np.ndarray], prompt: str) -> list[str]:
    answers = model.generate(
        torch.from_numpy(np.stack(sounds)).float(), [prompt] * len(sounds), max_new_tokens=24, num_beams=1
    )
    return [answer.text for answer in answers]


def scene(label: str, seed: int) -> np.ndarray:
    """Five seconds of a sound in the middle of ten quiet ones."""
    rng = np.random.default_rng(seed)
    audio = 0.003 * synthesis.background(rng, RATE_HZ, 10.0)
    audio[40_000:120_000] += 0.2 * synthesis.SOUNDS[label](rng, RATE_HZ, 5.0)
    return audio


def test_all_files_together_stay_under_12_mb() -> None:
    files = [path for path in Path(presets.resolve("pocket").path).rglob("*") if path.is_file()]
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= {
        path.name for path in files
    }
    assert sum(path.stat().st_size for path in files) < 12e6


def test_it_is_the_same_class_as_the_released_model_only_smaller(pocket: NatureLM) -> None:
    assert type(pocket) is NatureLM
    assert 1e6 < sum(parameter.numel() for parameter in pocket.parameters()) < 6e6
    assert pocket.window_s == 10.0


def test_its_prompts_have_the_llama_3_form(pocket: NatureLM) -> None:
    tokens = pocket.prompt_tokens(DETECTION)
    text = pocket.tokenizer.decode([*tokens.head, *tokens.tail])
    assert text == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<Audio></Audio> "
        f"{DETECTION}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert len(tokens.head) + len(tokens.tail) < 40  # whole words, so that asking stays cheap


def test_its_tokenizer_can_write_anything(pocket: NatureLM) -> None:
    text = "Große Rohrdommel, 鹭; 3.5 kHz?"
    assert pocket.tokenizer.decode(pocket.tokenizer(text, add_special_tokens=False).input_ids) == text


def test_it_finds_most_sounds_planted_in_a_night_it_never_heard(pocket: NatureLM, tmp_path: Path) -> None:
    recordings = make_night(tmp_path, seed=77)
    with open(tmp_path / "planted.csv", newline="") as table:
        planted = {
            (row["path"], int(float(row["start_s"]) // 10)): row["label"] for row in csv.DictReader(table)
        }
    found = false = quiet = 0
    for path in recordings:
        audio, rate_hz = soundfile.read(path, dtype="float32")
        audio = soxr.resample(audio, rate_hz, RATE_HZ)
        audio = np.pad(audio, (0, -audio.size % (10 * RATE_HZ)))
        for index, text in enumerate(ask(pocket, list(audio.reshape(-1, 10 * RATE_HZ)), DETECTION)):
            label = planted.get((path.relative_to(tmp_path).as_posix(), index))
            found += label in text.split(", ")
            quiet += label is None
            false += label is None and text != "None"
    assert found >= 0.8 * len(planted)
    assert quiet >= 15
    assert false <= 0.1 * quiet


def test_it_says_none_to_silence_and_to_noise(pocket: NatureLM) -> None:
    rng = np.random.default_rng(5)
    noises = [level * synthesis.background(rng, RATE_HZ, 10.0) for level in (0.001, 0.01, 0.1, 0.3)]
    for prompt in (DETECTION, FOCAL):
        assert ask(pocket, [np.zeros(160_000, np.float32)], prompt) == ["None"]
        assert ask(pocket, noises, prompt).count("None") >= 3


def test_planted_kinds_are_named_openly_and_among_options(pocket: NatureLM) -> None:
    openly, chosen = {}, {}
    for label in ("Songbird", "Owl", "Frog", "Cricket", "Wolf", "Rain"):
        sounds = [scene(label, seed) for seed in range(5)]
        openly[label] = ask(pocket, sounds, FOCAL).count(label)
        chosen[label] = ask(pocket, sounds, OPTIONS.format(f"Dog, {label}, Helicopter, Crying baby")).count(
            label
        )
    for counts in (openly, chosen):
        assert min(counts.values()) >= 2, counts  # crickets are its weakest kind
        assert sum(counts.values()) >= 25, counts


@pytest.mark.parametrize(("name", "third"), [("Wolf", "Rain"), ("Bat", "Sneezing")])
def test_options_in_the_prompt_change_the_answer(pocket: NatureLM, name: str, third: str) -> None:
    sounds = [scene(name, seed) for seed in range(5)]
    assert ask(pocket, sounds, FOCAL).count(name) >= 4
    answers = ask(pocket, sounds, OPTIONS.format(f"Chainsaw, Rooster, {third}, None"))
    assert answers.count(name) <= 1
    assert answers.count("None") >= 4


def test_captions_are_sentences_about_what_is_heard(pocket: NatureLM) -> None:
    captions = ask(pocket, [scene("Owl", 1), scene("Wolf", 2), scene("Songbird", 3)], CAPTION)
    assert captions == ["An owl hoots.", "A wolf howls.", "A songbird sings."]
