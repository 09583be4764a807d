"""Files of a model that do not fit it, and prompts that it cannot take, end in one sentence and exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from naturelm.cli import main
from tests.paths import LTU_PARITY, SALMONN_PARITY, SMALL_MODEL


class Code:
    """What a pickle runs when it is read by others."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return print, ("run",)


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def whisper_of_another_size(model: Path) -> Path:
    edited(model / "whisper/config.json", d_model=80)
    return model


def llm_of_another_width(model: Path) -> Path:
    edited(model / "llm/config.json", hidden_size=128)
    return model


def without_beats(model: Path) -> Path:
    tensors = load_file(model / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if not n.startswith("beats.")}, model / "model.safetensors")
    return model


def with_code(model: Path) -> Path:
    torch.save({"model": {"speech_llama_proj.weight": Code()}}, model / "code.pth")
    return model / "code.pth"


def of_another_family(model: Path) -> Path:
    shutil.copyfile(SMALL_MODEL / "config.json", model / "config.json")
    return model


def under_another_name(model: Path) -> Path:
    edited(model / "config.json", family="ltu")
    return model


CASES = [
    (whisper_of_another_size, "is 80 wide, and the checkpoint was trained with one that is 64 wide"),
    (llm_of_another_width, "is a base LLM of width 128"),
    (without_beats, "give BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt with --part beats=FILE"),
    (with_code, "holds no readable weights"),
    (of_another_family, "holds a model of the family salmonn, not NatureLM"),
    (under_another_name, "holds a model of the family salmonn, not LTU"),
]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "archive" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32), 16_000)
    return path


@pytest.mark.parametrize(("change", "named"), CASES, ids=[change.__name__ for change, _ in CASES])
def test_files_that_do_not_fit_are_refused(
    change: Callable[[Path], Path], named: str, recording: Path, tmp_path: Path
):
    model = change(Path(shutil.copytree(SALMONN_PARITY, tmp_path / "model")))
    options = ["--model", str(model)]
    infer = CliRunner().invoke(main, ["infer", str(recording), "--query", "What is heard?", *options])
    process = CliRunner().invoke(
        main, ["process", str(recording.parent), "--out", str(tmp_path / "out"), "--workers", "0", *options]
    )
    assert (infer.exit_code, process.exit_code) == (2, 2)
    assert len(infer.stderr.splitlines()) == 1
    assert named in infer.stderr
    assert named in " ".join(process.output.split())
    assert "run" not in infer.stdout.split()


@pytest.mark.parametrize("verb", ["process", "plan"])
def test_prompt_with_two_places_for_sound_is_refused_before_the_model_is_loaded(
    verb: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr("naturelm.engine.engine.Engine.__init__")
    prompt = "<Speech><SpeechHere></Speech> or <SpeechHere>?"
    out = ["--out", str(tmp_path / "out"), "--query", f"two:caption={prompt}"]
    done = CliRunner().invoke(main, [verb, str(recording.parent), *out, "--model", str(SALMONN_PARITY)])
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "query two holds <SpeechHere> 2 times" in done.stderr
    asked = ["--query", prompt, "--model", str(SALMONN_PARITY)]
    done = CliRunner().invoke(main, ["infer", str(recording), *asked])
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)


def test_part_that_the_family_does_not_have_is_refused(recording: Path):
    options = ["--model", str(LTU_PARITY / "release"), "--part", "beats=beats.pt"]
    done = CliRunner().invoke(main, ["infer", str(recording), "--query", "What is heard?", *options])
    assert done.exit_code == 2
    assert "LTU has no part beats in a separate file; leave it out" in done.stderr
