"""Values that no run can use are refused in one sentence, before the recordings are scanned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.config.loading import load_archive_config
from naturelm.errors import NaturelmError
from naturelm.models import load_model
from naturelm.models.presets import PRESETS, check_local, resolve
from tests.cli.test_grammar import options


def error_of(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    return done.output.splitlines()[-1]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    # Nothing in it is a recording: a scan would end in another error.
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


@pytest.fixture(params=["plan", "process", "infer"])
def verb(request, archive, tmp_path):
    rest = ["--query", "Which species?"] if request.param == "infer" else ["--out", tmp_path / "out"]
    return [request.param, archive, *rest]


def test_model_without_weights_is_refused_before_the_scan(verb, tmp_path):
    (tmp_path / "model").mkdir()
    assert "has no config.json" in error_of(*verb, "--model", tmp_path / "model")
    (tmp_path / "model/config.json").write_text("{}")
    assert "has no model.safetensors" in error_of(*verb, "--model", tmp_path / "model")


@pytest.mark.parametrize("name", ["", "  "])
def test_empty_model_name_is_refused(verb, name):
    assert f"the model's name is {name!r}, which is empty" in error_of(*verb, "--model", name)


@pytest.mark.parametrize("window", ["10.5", "1e30"])
def test_window_longer_than_the_model_takes_is_refused_before_the_scan(verb, window):
    error = error_of(*verb, "--window", window)
    assert "and pocket takes at most 10 s; give a shorter --window" in error


def test_checkpoint_gives_the_longest_window(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"window_s": 30}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    check_local(resolve(tmp_path), 30)
    with pytest.raises(NaturelmError, match="takes at most 30 s"):
        check_local(resolve(tmp_path), 30.5)


def test_longest_window_of_a_model_that_is_not_here_is_known_by_its_family():
    with pytest.raises(NaturelmError, match="naturelm-8b takes at most 10 s"):
        check_local(PRESETS["naturelm-8b"], 11)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_every_number_refuses_nan_and_infinity(value):
    context = click.Context(main, **main.context_settings)
    checked = 0
    for words, option in options():
        if not isinstance(option.type, click.types.FloatParamType | click.FloatRange):
            continue
        checked += 1
        if type(option.type) is click.types.FloatParamType:
            # Checked with the other settings.
            assert words in ("embed", "plan", "process", "infer"), (words, option.opts)
        else:
            with pytest.raises(click.BadParameter):
                option.type.convert(value, option, context)
    assert checked > 15


@pytest.mark.parametrize(
    "flag", ["--window", "--hop", "--gate", "--sample", "--merging-alpha", "--gpus-per-worker"]
)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_settings_refuse_nan_and_infinity_by_the_options_name(archive, tmp_path, flag, value):
    error = error_of("process", archive, "--out", tmp_path / "out", flag, value)
    assert f"{flag} is {value}: input should be a finite number" in error


@pytest.mark.parametrize(
    "words", [["status", "a\0b"], ["query", "a\0b", "SELECT 1"], ["process", "a", "--out", "\0"]]
)
def test_argument_with_nul_is_refused(words):
    assert "contains a NUL character" in error_of(*words)


@pytest.mark.parametrize(
    "text",
    [
        'stations_file: "a\\0b"',
        'model: {name: "a\\0b"}',
        'model: {llm: "a\\0b"}',
        'job: {address: "a\\0b"}',
        'queries: [{id: a, prompt: "a\\0b"}]',
        'queries: [{id: a, prompt: x, kind: classification, labels_file: "a\\0b"}]',
    ],
)
def test_setting_with_nul_is_refused(tmp_path, text):
    path = tmp_path / "night.yaml"
    path.write_text(text)
    with pytest.raises(NaturelmError) as caught:
        load_archive_config(path)
    assert "NUL" in str(caught.value) or "not a valid file name" in str(caught.value)


def test_longest_window_of_each_family_is_that_of_its_settings():
    from naturelm.models.presets import FAMILIES

    for family in FAMILIES.values():
        config_class = getattr(family.load(), "config_class", None)
        if config_class is not None:
            assert family.window_s == config_class().window_s, family.name


@pytest.mark.parametrize(
    ("section", "name", "digits", "named"),
    [
        (None, "num_audio_query_token", "1000000000", "token is 1e+09; expected at most 10000000"),
        (None, "lora_rank", "9" * 6000, "config.json: is not JSON"),
        (
            "beats_cfg",
            "encoder_embed_dim",
            "1000000000",
            "encoder_embed_dim is 1e+09; expected at most 10000000",
        ),
        ("beats_cfg", "encoder_layers", "100000", "encoder_layers is 100000; expected at most 1000"),
        ("beats_cfg", "input_patch_size", "9999999", "no model of the sizes in its config.json can be built"),
    ],
)
def test_checkpoint_of_impossible_sizes_is_refused(tmp_path, section, name, digits, named):
    directory = tmp_path / "model"
    shutil.copytree(PRESETS["pocket"].path, directory)
    config = json.loads((directory / "config.json").read_text())
    # As text: Python writes no number of thousands of digits.
    (config[section] if section else config)[name] = "VALUE"
    (directory / "config.json").write_text(json.dumps(config).replace('"VALUE"', digits))
    with pytest.raises(NaturelmError) as caught:
        load_model(directory)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(directory)) + 300


def test_unknown_command_is_answered_with_the_nearest():
    assert "there is no command 'statsu'; did you mean 'status'?" in error_of("statsu")
