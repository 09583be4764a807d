"""One step's arithmetic: what trains, at which rate, and that parts, questions and workers add up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from naturelm.errors import NaturelmError
from naturelm.models.parts.beats import Beats, BeatsConfig
from naturelm.training.data import Loaded
from naturelm.training.initial_model import cosine_filters, train_mode
from naturelm.training.loop import Hooks, make_trainer
from naturelm.training.objective import Objective
from naturelm.training.run import streams
from naturelm.training.settings import Optimisation
from naturelm.training.step import StepResult, Trainer, Worker, decays, learning_rate
from tests.training.runs import QUESTION, config, make_shape


@pytest.fixture
def make(shape, manifest, tmp_path):
    """Makes a trainer of the tiny model and the examples of its steps; every trainer begins alike."""

    def made(**sections) -> tuple[Trainer, list[Sequence[Loaded]]]:
        values = config(sections.pop("shape", shape), manifest, tmp_path, **sections)
        stream, _ = streams(values)
        batch = values.optimisation.batch
        steps = [[stream.load(spec) for spec in stream.specs(step, batch)] for step in range(3)]
        return make_trainer(values, Worker(), Hooks()), steps

    return made


def take(trainer: Trainer, steps: Sequence[Sequence[Loaded]]) -> list[StepResult]:
    return [trainer.step(number, examples) for number, examples in enumerate(steps)]


def losses(trainer: Trainer, steps: Sequence[Sequence[Loaded]]) -> list[float]:
    return [result.loss for result in take(trainer, steps)]


# -- rate and decay --------------------------------------------------------------------------------------------


def test_rate_rises_in_a_line_and_falls_as_a_cosine():
    published = Optimisation(steps=500_000)
    assert learning_rate(0, published) == pytest.approx(9e-5 / 5000)
    assert learning_rate(4999, published) == pytest.approx(9e-5)
    assert learning_rate(5000, published) == pytest.approx(9e-5)
    middle = 5000 + (500_000 - 1 - 5000) / 2
    assert learning_rate(round(middle), published) == pytest.approx((9e-5 + 2e-5) / 2, rel=1e-4)
    assert learning_rate(499_999, published) == pytest.approx(2e-5)


def test_norms_and_biases_do_not_decay(make):
    trainer, _ = make()
    kept = {name for name, parameter in trainer.trained.items() if not decays(name, parameter)}
    assert "model.beats.patch_norm.weight" in kept
    assert "model.beats.layers.0.attention.q_proj.bias" in kept
    assert "model.beats.relative_bias.weight" in kept
    assert "model.llama.base_model.model.model.norm.weight" in kept
    assert "model.beats.patch_embedding.weight" not in kept
    assert not any("lora_" in name or name.endswith("mlp.up_proj.weight") for name in kept)
    decaying, still = trainer.optimizer.param_groups
    assert decaying["weight_decay"] == 0.05
    assert still["weight_decay"] == 0
    assert len(still["params"]) == len(kept)


def test_layers_of_beats_pass_back_a_part_of_their_gradient(tmp_path):
    """As published: layer_wise_gradient_decay_ratio, from layer to layer."""
    waveforms_BS = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 32_000)).astype(np.float32))
    norms = []
    for ratio in (1.0, 0.5):
        torch.manual_seed(0)
        beats = Beats(
            BeatsConfig(
                encoder_layers=2,
                encoder_embed_dim=32,
                encoder_ffn_embed_dim=32,
                encoder_attention_heads=2,
                embed_dim=16,
                conv_pos=8,
                conv_pos_groups=4,
                layer_wise_gradient_decay_ratio=ratio,
            )
        ).train()
        output_BPD = beats(waveforms_BS)
        output_BPD.square().sum().backward()
        parts = (beats.patch_projection, beats.layers[0].fc1, beats.layers[1].fc1)
        norms.append([output_BPD.sum().item(), *(part.weight.grad.norm().item() for part in parts)])
    (plain, *of_plain), (scaled, *of_scaled) = norms
    assert scaled == plain
    assert of_scaled == pytest.approx([of_plain[0] / 4, of_plain[1] / 2, of_plain[2]], rel=1e-4)


# -- what trains -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts", [("beats", "qformer", "projection", "lora"), ("lora",), ("qformer", "projection")]
)
def test_only_the_parts_asked_for_change(make, parts):
    trainer, steps = make(model={"trainable": parts})
    before = {name: p.detach().clone() for name, p in trainer.objective.model.named_parameters()}
    take(trainer, steps)
    model = trainer.objective.model
    # A part may hold the modules of a later one, which then belong to the later one.
    part_of = {
        parameter: part
        for part, modules in model.parts().items()
        for module in modules
        for parameter in module.parameters()
    }
    changed = {part_of[p] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(parts)
    assert tuple(model.parts()) == model.part_names()
    assert set(part_of.values()) == set(model.part_names())


def test_frozen_parts_have_no_dropout_and_no_layerdrop(tmp_path, make):
    noisy = make_shape(
        tmp_path / "noisy",
        lora_dropout=0.5,
        beats_cfg={
            "input_patch_size": 32,
            "embed_dim": 16,
            "encoder_layers": 2,
            "encoder_embed_dim": 32,
            "encoder_ffn_embed_dim": 64,
            "encoder_attention_heads": 2,
            "conv_pos": 8,
            "conv_pos_groups": 4,
            "dropout": 0.5,
            "encoder_layerdrop": 0.5,
        },
        qformer={"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
    )
    trainer, (examples, *_) = make(shape=noisy, model={"trainable": ["projection"]})
    batch = trainer.prepare(examples)
    model = trainer.objective.model

    def loss(*trainable):
        train_mode(model, trainable)
        return trainer.objective(batch).words.item()

    with torch.no_grad():
        model.eval()
        still = trainer.objective(batch).words.item()
        assert loss("projection") == still
        for part in ("beats", "qformer"):
            assert loss(part) != loss(part)


def test_dropout_of_a_step_depends_on_its_number_alone(tmp_path, make):
    noisy = make_shape(
        tmp_path / "noisy", qformer={"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    )
    trainer, steps = make(shape=noisy)
    first = losses(trainer, steps)
    again, _ = make(shape=noisy)
    torch.rand(7)  # whatever was drawn before
    assert losses(again, steps) == first


# -- sums ------------------------------------------------------------------------------------------------------


def test_loss_is_that_of_the_model(make):
    trainer, (examples, *_) = make()
    model = trainer.objective.model
    waveforms = torch.from_numpy(np.stack([example.waveform for example in examples]))
    prompts, texts = zip(*(example.questions[0] for example in examples), strict=True)
    with torch.no_grad():
        expected = model.loss(waveforms, prompts, texts).item()
        batch = trainer.prepare(examples)
        sums = trainer.objective(batch)
    assert sums.words.item() / batch.tokens == pytest.approx(expected, rel=1e-6)
    assert sums.each_B.sum().item() == pytest.approx(sums.words.item(), rel=1e-6)


def test_accumulated_gradients_equal_those_of_the_whole_batch(make):
    whole = losses(*make())
    assert losses(*make(optimisation={"micro_batch": 1})) == pytest.approx(whole, abs=1e-5)
    assert losses(*make(optimisation={"micro_batch": 3})) == pytest.approx(whole, abs=1e-5)


def test_recomputed_activations_change_nothing(make):
    assert losses(*make(run={"activation_checkpointing": True})) == pytest.approx(losses(*make()), abs=1e-5)


def test_questions_about_one_sound_equal_examples_with_one_each(make):
    trainer, (examples, *_) = make()
    asked = ((QUESTION, "Owl, Frog"), ("Is it one of these? " + "Chainsaw, " * 20, "None"))
    together = [replace(example, questions=asked) for example in examples]
    apart = [replace(example, questions=(question,)) for example in examples for question in asked]
    assert losses(trainer, [together]) == pytest.approx(losses(make()[0], [apart]), abs=1e-5)


def test_long_answers_are_cut_and_keep_their_end(make):
    trainer, (examples, *_) = make(optimisation={"max_text_tokens": 5})
    long = [replace(examples[0], questions=((QUESTION, "Owl, " * 30), (QUESTION, "Owl")))]
    first, second = trainer.prepare(long).answers
    assert len(first) == 5
    assert first[-1] == second[-1]
    assert len(second) < 5


# -- losses that are not finite --------------------------------------------------------------------------------


def broken(examples: Sequence[Loaded]) -> list[Loaded]:
    silent = np.full_like(examples[1].waveform, np.nan)
    return [examples[0], replace(examples[1], waveform=silent), *examples[2:]]


def test_step_without_a_finite_loss_is_skipped_and_counted(make):
    trainer, steps = make()
    before = trainer.weights()
    result = trainer.step(0, broken(steps[0]))
    assert result.skipped
    assert not math.isfinite(result.loss)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.weights().items())
    assert (trainer.skipped, trainer.skipped_in_a_row) == (1, 1)
    assert not trainer.step(1, steps[1]).skipped
    assert (trainer.skipped, trainer.skipped_in_a_row) == (1, 0)


def test_three_in_a_row_stop_and_name_the_example(make):
    trainer, steps = make()
    take(trainer, [broken(steps[0]), broken(steps[1])])
    with pytest.raises(NaturelmError, match="not finite 3 times in a row") as stopped:
        trainer.step(2, broken(steps[2]))
    named = str(stopped.value)
    assert steps[2][1].id in named
    assert steps[2][0].id not in named


# -- auxiliary layers ------------------------------------------------------------------------------------------


def test_auxiliary_layers_teach_alone_then_beside_the_words_then_not_at_all(make):
    labels = {"labels": ["Owl", "Frog", "Bat"], "steps": 2, "alone_steps": 1}
    first, second, third = take(*make(auxiliary=labels))
    assert math.isnan(first.words)
    assert first.loss == pytest.approx(first.auxiliary)
    assert second.loss == pytest.approx(second.words + second.auxiliary)
    assert third.loss == third.words
    assert math.isnan(third.auxiliary)


def test_example_without_known_labels_is_none_of_them(make):
    trainer, (examples, *_) = make(auxiliary={"labels": ["Owl", "Frog"], "steps": 1})
    heard = [
        replace(examples[0], labels=labels) for labels in ((), ("frog", "owl"), ("Whale",), ("Owl", "Whale"))
    ]
    present = trainer.prepare(heard).present_BL
    assert present is not None
    assert present.tolist() == [[0, 0, 1], [0.5, 0.5, 0], [0, 0, 1], [1, 0, 0]]


def test_objective_without_labels_has_no_layers_of_its_own(make):
    trainer, _ = make()
    assert not list(Objective(trainer.objective.model).heads.parameters())


def test_cosine_filters_are_orthogonal_and_need_a_square():
    filters = cosine_filters(16, 8).flatten(1)
    products = filters @ filters.T
    assert torch.allclose(products - torch.diag(products.diagonal()), torch.zeros(16, 16), atol=1e-5)
    with pytest.raises(NaturelmError, match="square of a number up to 8"):
        cosine_filters(20, 8)
