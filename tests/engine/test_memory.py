"""The batch is planned by what it needs, and what does not fit is refused in one sentence or waited for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naturelm.engine import engine as engine_module
from naturelm.engine.engine import GPU_BATCH_SIZE, Engine
from naturelm.engine.memory import BatchNeeds, plan_batch, too_little, wait_for_memory
from naturelm.engine.queries import EngineQuery
from naturelm.errors import NaturelmError
from naturelm.synthetic.stand_ins import QUESTIONS, made_up_labels, random_full_size

# What a process takes of a card before any tensor: the CUDA context.
CONTEXT_BYTES = 500 << 20
# Encoding 32 windows: the widest are a layer's 32 x 496 x 3072 numbers and the position convolution's inputs.
ENCODE_BYTES = 1 << 30
SHIPPED = tuple(EngineQuery(question, 36) for question in QUESTIONS[:2])


@cache
def full_size() -> Engine:
    """An engine of the released model's shapes, without their memory."""
    return Engine(random_full_size("meta", torch.bfloat16), SHIPPED, take_weights=True)


def needs(*queries: EngineQuery) -> BatchNeeds:
    engine = full_size()
    engine.ask(queries)
    return replace(engine._needs(), encode_bytes=ENCODE_BYTES)


def weight_bytes() -> int:
    return sum(parameter.nbytes for parameter in full_size().model.parameters())


def planned(card_gb: int, *queries: EngineQuery) -> int:
    return plan_batch((card_gb << 30) - CONTEXT_BYTES - weight_bytes(), needs(*queries), GPU_BATCH_SIZE)


def test_the_released_model_has_the_bytes_of_its_weights_once() -> None:
    assert weight_bytes() / 1e9 == pytest.approx(16.4, abs=0.2)


@pytest.mark.parametrize(
    ("card_gb", "least", "most"),
    [(8, 0, 0), (12, 0, 0), (16, 0, 0), (20, 16, 127), (24, 64, 255), (80, 256, 256)],
)
def test_cards_of_these_sizes_answer_the_shipped_queries_in_such_batches(
    card_gb: int, least: int, most: int
) -> None:
    assert least <= planned(card_gb, *SHIPPED) <= most


def test_a_large_list_and_many_queries_are_planned_smaller() -> None:
    one = planned(24, EngineQuery(QUESTIONS[0], 8))
    four = planned(24, *(EngineQuery(question, 8) for question in QUESTIONS[:4]))
    long_list = planned(24, EngineQuery(QUESTIONS[2], labels=made_up_labels(1000)))
    assert one > four > 0
    assert one > long_list > 0


@given(
    free=st.integers(0, 1 << 36),
    most=st.integers(1, 512),
    rows_per_window=st.integers(0, 8),
    list_window_bytes=st.sampled_from([0, 1 << 24]),
)
def test_a_planned_batch_fits_and_one_window_more_does_not(
    free: int, most: int, rows_per_window: int, list_window_bytes: int
) -> None:
    asked = BatchNeeds(
        encode_bytes=1 << 28,
        window_bytes=1 << 20,
        rows_per_window=rows_per_window,
        slots=97,
        kv_bytes=1 << 17,
        vocabulary=1 << 17,
        prompt_tokens=61,
        token_bytes=1 << 17,
        list_window_bytes=list_window_bytes,
    )
    batch = plan_batch(free, asked, most)
    if batch:
        assert asked.bytes_of(batch) <= free
    if batch < most:
        assert asked.bytes_of(batch + 1) > free


def test_memory_that_comes_back_is_waited_for_and_memory_that_does_not_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    free = iter([10, 20, 30, 100])
    slept: list[float] = []
    assert wait_for_memory(50, lambda: next(free), sleep=slept.append)
    assert len(slept) == 3
    assert len(caplog.messages) == 1
    assert "waiting up to 60 s" in caplog.messages[0]
    slept.clear()
    assert not wait_for_memory(50, lambda: 10, wait_s=5.0, sleep=slept.append)
    assert sum(slept) == 5.0
    assert wait_for_memory(50, lambda: 50, sleep=slept.append)
    assert sum(slept) == 5.0


def test_the_refusal_names_what_is_needed_what_is_free_and_what_to_do() -> None:
    assert str(too_little(3_210_000_000, 400_000_000)) == (
        "one window needs 3.2 GB of GPU memory beside the model's weights and 0.4 GB are free; end other programs on "
        "the GPU or use a larger one"
    )


class _Card:
    """Memory of a card, as the engine sees it: so much is free each time it looks."""

    def __init__(self, *free_gb: float) -> None:
        self._free = [int(gb * 1e9) for gb in free_gb]

    def __call__(self, device: torch.device) -> int:
        return self._free.pop(0) if len(self._free) > 1 else self._free[0]


def test_a_card_with_too_little_memory_is_refused_when_the_engine_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = full_size()
    monkeypatch.setattr(engine_module, "free_bytes", _Card(0.4))
    monkeypatch.setattr(engine_module, "wait_for_memory", lambda needed, free: free() >= needed)
    monkeypatch.setattr(engine, "_device", torch.device("cuda"))
    monkeypatch.setattr(engine, "_encode_bytes", ENCODE_BYTES)
    with pytest.raises(
        NaturelmError, match=r"one window needs .* GB .* and 0.4 GB are free; end other programs"
    ):
        engine._find_batch_size()
    monkeypatch.setattr(engine_module, "free_bytes", _Card(0.4, 9.0))  # another program has ended
    assert engine._find_batch_size() > 0
