"""SALMONN's three and LTU's four stages: as published, and one step of each on the small weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from naturelm.errors import NaturelmError
from naturelm.training.initial_model import check_start, train_mode
from naturelm.training.loop import Hooks, make_trainer
from naturelm.training.paths import load_train_config
from naturelm.training.run import streams
from naturelm.training.settings import Optimisation, TrainConfig
from naturelm.training.step import Trainer, Worker, learning_rate
from naturelm.training.store import RunStore
from tests.paths import LTU_PARITY, REPO, SALMONN_PARITY
from tests.training.runs import config, make_manifest, run
from tests.training.test_run import Interrupted, StopsAt

CONFIGS = REPO / "configs/train"
WHERE = {"salmonn": SALMONN_PARITY, "ltu": LTU_PARITY / "release"}
WINDOW_S = {"salmonn": 30.0, "ltu": 10.24}
SALMONN_PARTS = {"norms", "qformer", "projection", "lora"}
STAGES: dict[str, tuple[set[str], float]] = {
    "salmonn-stage1": (SALMONN_PARTS, 1.0),
    "salmonn-stage2": (SALMONN_PARTS, 1.0),
    "salmonn-stage3": (SALMONN_PARTS, 0.5),
    "ltu-stage1": ({"projection"}, 1.0),
    "ltu-stage2": ({"encoder", "projection", "lora"}, 1.0),
    "ltu-stage3": ({"encoder", "projection", "lora"}, 1.0),
    "ltu-stage4": ({"encoder", "projection", "lora"}, 1.0),
}


def published(stage: str) -> TrainConfig:
    return load_train_config(CONFIGS / f"{stage}.yaml")


def small(stage: str, manifest: Path, storage: Path, **sections: Any) -> TrainConfig:
    """A stage as it is published, but for its size: the small weights, and batches of two."""
    stage_config = published(stage)
    family = stage.partition("-")[0]
    optimisation = stage_config.optimisation.model_dump()
    optimisation |= {"steps": 4, "batch": 2, "micro_batch": None, "warmup_steps": 0, "peak_lr": 3e-3}
    model = {
        "checkpoint": str(WHERE[family]),
        "new": None,
        "trainable": list(stage_config.model.trainable),
        "merging_alpha": stage_config.model.merging_alpha,
    }
    data = {"window_s": WINDOW_S[family], "crop": "start", "pad_to_window": False}
    return config(
        Path(), manifest, storage, **({"model": model, "data": data, "optimisation": optimisation} | sections)
    )


def test_every_stage_has_a_file_with_the_published_settings() -> None:
    for stage, (parts, alpha) in STAGES.items():
        read = published(stage)
        assert set(read.model.trainable) == parts
        assert read.model.merging_alpha == alpha
        optimisation = read.optimisation
        assert not read.data.pad_to_window
        if stage.startswith("salmonn"):
            assert (optimisation.start_lr, optimisation.peak_lr, optimisation.end_lr) == (1e-6, 3e-5, 1e-5)
            assert (optimisation.micro_batch, optimisation.weight_decay) == (8, 0.05)
            assert (optimisation.max_text_tokens, optimisation.loss_on) == (300, "answer")
        else:
            assert (optimisation.batch, optimisation.warmup_steps, optimisation.decay) == (256, 100, "linear")
            assert optimisation.peak_lr == (1e-3 if stage == "ltu-stage1" else 1e-4)
            assert (optimisation.end_lr, optimisation.max_text_tokens) == (0.0, 108)
            assert optimisation.loss_on == "prompt and answer"
    for stage in ("salmonn-stage1", "salmonn-stage2"):
        optimisation = published(stage).optimisation
        assert (optimisation.steps, optimisation.warmup_steps) == (90_000, 3000)


def test_rate_rises_from_its_start_and_falls_in_a_line() -> None:
    settings = Optimisation(
        steps=1100, warmup_steps=100, start_lr=1e-6, peak_lr=1e-4, end_lr=0.0, decay="linear"
    )
    assert learning_rate(0, settings) == pytest.approx(1e-6 + 99e-6 / 100)
    assert learning_rate(99, settings) == pytest.approx(1e-4)
    assert learning_rate(100 + 999 // 2, settings) == pytest.approx(5e-5, rel=2e-3)
    assert learning_rate(1099, settings) == 0.0


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("sounds") / "made", 4)


@torch.no_grad()
def loss_of(trainer: Trainer, examples: Any) -> float:
    """The loss without dropout."""
    train_mode(trainer.objective.model, ())
    batch = trainer.prepare(examples)
    return float(trainer.objective(batch).words) / batch.tokens


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_trains_exactly_the_named_parts_and_lowers_the_loss(
    stage: str, sounds: Path, tmp_path: Path
) -> None:
    values = small(stage, sounds, tmp_path)
    stream, _ = streams(values)
    examples = [stream.load(spec) for spec in stream.specs(0, 2)]
    trainer = make_trainer(values, Worker(), Hooks())
    model = trainer.objective.model
    assert model.merging_alpha == STAGES[stage][1]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first = loss_of(trainer, examples)
    trainer.step(0, examples)
    assert loss_of(trainer, examples) < first
    names = {id(p): name for name, p in model.named_parameters()}
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    owner: dict[str, str] = {}
    for part, modules in model.parts().items():
        owner |= {names[id(p)]: part for module in modules for p in module.parameters()}
    assert {owner[name] for name in changed} == STAGES[stage][0]


@pytest.mark.parametrize("stage", ["salmonn-stage3", "ltu-stage4"])
def test_resumed_stage_equals_an_undisturbed_one(stage: str, sounds: Path, tmp_path: Path) -> None:
    from naturelm.training.run import run_training

    run(small(stage, sounds, tmp_path / "whole"))
    with pytest.raises(Interrupted):
        run_training(small(stage, sounds, tmp_path / "stopped"), False, StopsAt(3))
    run(small(stage, sounds, tmp_path / "stopped"), resume=True)
    whole, stopped = (RunStore(str(tmp_path / name)).weights(4) for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(stopped[name], weight, atol=1e-6, rtol=0)


def test_prompt_is_part_of_the_loss_and_of_the_longest_text(sounds: Path, tmp_path: Path) -> None:
    values = small("ltu-stage2", sounds, tmp_path)
    stream, _ = streams(values)
    examples = [stream.load(spec) for spec in stream.specs(0, 2)]
    trainer = make_trainer(values, Worker(), Hooks())
    model = trainer.objective.model
    batch = trainer.prepare(examples)
    for prompt, learnt, example in zip(batch.prompts, batch.answers, examples, strict=True):
        ((question, text),) = example.questions
        whole = (*model.prompt_tokens(question).tail, *model.answer_tokens(text))
        assert (*prompt.tail, *learnt) == whole[: 1 + 108]
        assert len(prompt.tail) == 1
    assert batch.samples == (32_000, 32_000)


def test_sounds_of_several_lengths_are_encoded_each_at_its_own(sounds: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    values = small("ltu-stage2", sounds, tmp_path)
    stream, _ = streams(values)
    first, second = (stream.load(spec) for spec in stream.specs(0, 2))
    shorter = replace(second, waveform=second.waveform[:20_000])
    trainer = make_trainer(values, Worker(), Hooks())
    train_mode(trainer.objective.model, ())
    together, alone = trainer.prepare([shorter, first]), [trainer.prepare([one]) for one in (shorter, first)]
    with torch.no_grad():
        apart = sum(float(trainer.objective(one).words) for one in alone)
        assert float(trainer.objective(together).words) == pytest.approx(apart, rel=1e-4)


def test_part_that_a_family_does_not_have_is_refused(sounds: Path, tmp_path: Path) -> None:
    values = small("ltu-stage2", sounds, tmp_path)
    with pytest.raises(NaturelmError, match=r"part_files names 'whisper', which LTU does not have"):
        check_start(values.model.model_copy(update={"part_files": {"whisper": "w"}}))
    with pytest.raises(NaturelmError, match="noise and mixup need sounds of one length"):
        small("ltu-stage2", sounds, tmp_path, data={"pad_to_window": False, "mixup_probability": 0.1})
