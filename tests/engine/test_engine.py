"""The engine answers as the plain path does, whatever is batched with what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naturelm.engine import engine as engine_module
from naturelm.engine.buffer import DecodeBuffer, GraphedDecodeBuffer
from naturelm.engine.decoder import Decoder
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery, QueryExample
from naturelm.engine.search import _draw
from naturelm.errors import NaturelmError
from naturelm.models import Answer, NatureLM
from tests.paths import REPO, SMALL_MODEL, SMALL_PARITY

PROMPTS = (
    "What is the common name for the focal species in the audio? Answer:",
    "Caption the audio, using the common name for any animal species.",
    "Which of these, if any, are present in the audio recording? Single pulse gibbon call, Gibbon duet, None.",
    "Anything?",
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def golden() -> dict[str, Any]:
    return json.loads((SMALL_PARITY / "golden.json").read_text())


@cache
def model() -> NatureLM:
    return NatureLM.from_pretrained(SMALL_MODEL)


@cache
def early_ending_model() -> NatureLM:
    """The same, but with ends among its frequent tokens, so that answers have all lengths."""
    loaded = NatureLM.from_pretrained(SMALL_MODEL)
    loaded.end_token_ids = (*loaded.end_token_ids, 127, 235, 189)
    return loaded


@cache
def windows() -> np.ndarray:
    """The golden windows, and as many of noise."""
    golden_windows = np.load(SMALL_PARITY / "golden.npz")["wav"]
    noise = np.random.default_rng(7).normal(0, 0.1, golden_windows.shape).astype(np.float32)
    return np.concatenate([golden_windows, noise])


@cache
def plain(window: int, prompt: str, max_new_tokens: int, beams: int, early: bool = True) -> Answer:
    asked = early_ending_model() if early else model()
    return asked.generate(
        torch.from_numpy(windows()[window : window + 1]),
        [prompt],
        max_new_tokens=max_new_tokens,
        num_beams=beams,
    )[0]


def assert_same(ours: Answer, theirs: Answer) -> None:
    assert ours.token_ids == theirs.token_ids
    assert ours.text == theirs.text
    assert ours.score == pytest.approx(theirs.score, abs=1e-5)
    assert ours.token_scores == pytest.approx(theirs.token_scores, abs=1e-5)
    assert ours.token_ends == theirs.token_ends


# -- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 2])
def test_all_queries_about_all_windows_at_once_give_the_published_ids(beams: int) -> None:
    queries = [EngineQuery(prompt, max_new_tokens=24) for prompt in golden()["prompts"]]
    answers = Engine(model(), queries, num_beams=beams).answer(windows()[:3])
    for i, ids in enumerate(golden()["generated"][f"beams{beams}_ids"]):
        assert list(answers[i][i].token_ids) == ids


query_lists = st.lists(
    st.builds(EngineQuery, st.sampled_from(PROMPTS), st.sampled_from([1, 3, 12])), min_size=1, max_size=4
)


@settings(max_examples=settings.default.max_examples // 2)
@given(
    order=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    queries=query_lists,
    batch_size=st.integers(1, 9),
    beams=st.sampled_from([1, 1, 2, 3]),
)
def test_any_batch_split_order_and_mix_of_queries_answers_as_the_plain_path(
    order: list[int], queries: list[EngineQuery], batch_size: int, beams: int
) -> None:
    engine = Engine(early_ending_model(), queries, num_beams=beams, batch_size=batch_size)
    answers = engine.answer(windows()[order])
    assert len(answers) == len(order)
    for window, row in zip(order, answers, strict=True):
        for query, answer in zip(queries, row, strict=True):
            assert_same(answer, plain(window, query.prompt, query.max_new_tokens, beams))


def test_answers_of_the_plain_path_here_have_many_lengths() -> None:
    lengths = {len(plain(window, prompt, 12, 1).token_ids) for window in range(6) for prompt in PROMPTS}
    assert len(lengths) >= 5  # or the test above would show little about rows that finish early


def test_scores_are_those_of_the_logits_of_one_pass_over_prompt_and_answer() -> None:
    query = EngineQuery(PROMPTS[1], max_new_tokens=9)
    answer = Engine(model(), [query]).answer(windows()[:1])[0][0]
    asked = model()
    tokens = asked.prompt_tokens(query.prompt)
    with torch.inference_mode():
        audio = asked.encode_audio(torch.from_numpy(windows()[:1]))[0]
        row = torch.cat(
            [asked.embed_tokens(tokens.head), audio, asked.embed_tokens([*tokens.tail, *answer.token_ids])]
        )
        log_probs = asked.llama(inputs_embeds=row[None]).logits[0].double().log_softmax(-1)
    start = len(tokens.head) + len(audio) + len(tokens.tail) - 1
    expected = [log_probs[start + i, token].exp().item() for i, token in enumerate(answer.token_ids)]
    assert answer.token_scores == pytest.approx(expected, abs=1e-5)
    assert answer.score == pytest.approx(np.exp(np.mean(np.log(expected))), rel=1e-4)


def test_a_query_that_says_itself_where_the_sound_goes_is_answered_beside_others() -> None:
    prompts = ["Listen: <Audio><AudioHere></Audio> what is it?", PROMPTS[0]]
    engine = Engine(early_ending_model(), [EngineQuery(prompt, 8) for prompt in prompts])
    for window, row in enumerate(engine.answer(windows()[:2])):
        for prompt, answer in zip(prompts, row, strict=True):
            assert_same(answer, plain(window, prompt, 8, 1))


def examples(count: int) -> tuple[QueryExample, ...]:
    return tuple(
        QueryExample(windows()[5 - number], ("Owl", "None", "Frog")[number]) for number in range(count)
    )


@pytest.mark.parametrize("count", [1, 3])
def test_a_query_with_examples_is_answered_as_the_plain_formula_says(count: int) -> None:
    """Everything in one row: text, first sound, its answer, ... the window's sound, the question."""
    shown = examples(count)
    queries = [EngineQuery(PROMPTS[0], 8, examples=shown), EngineQuery(PROMPTS[0], 8)]
    loaded = early_ending_model()
    found = Engine(loaded, queries).answer(windows()[:3])
    text = "".join(f"<Audio><AudioHere></Audio> {PROMPTS[0]} {one.answer}\n" for one in shown)
    first, last = loaded.layout.template.split("{}")
    whole = f"{first}{text}<Audio><AudioHere></Audio> {PROMPTS[0]}{last}"
    parts = whole.split("<AudioHere>")
    for window, (with_examples, without) in enumerate(found):
        assert_same(without, plain(window, PROMPTS[0], 8, 1))
        with torch.inference_mode():
            sounds = [*(one.waveform for one in shown), windows()[window]]
            audio = [loaded.encode_audio(torch.from_numpy(sound[None]))[0] for sound in sounds]
            ids = [loaded.tokenizer(part, add_special_tokens=False).input_ids for part in parts]
            row = [loaded.embed_tokens([loaded.tokenizer.bos_token_id, *ids[0]])]
            for sound, after in zip(audio, ids[1:], strict=True):
                row += [sound, loaded.embed_tokens(after)]
            expected = []
            while len(expected) < 8 and (not expected or expected[-1] not in loaded.end_token_ids):
                logits = loaded.llama(
                    inputs_embeds=torch.cat([*row, loaded.embed_tokens(expected)])[None]
                ).logits
                expected.append(int(logits[0, -1].argmax()))
        if expected[-1] in loaded.end_token_ids:
            expected.pop()
        assert list(with_examples.token_ids) == expected


def test_examples_are_read_once_and_counted() -> None:
    loaded = model()
    shown = EngineQuery(PROMPTS[0], 8, examples=examples(3))
    engine = Engine(loaded, [shown])
    alone = EngineQuery(PROMPTS[0], 8)
    more = engine.prompt_tokens(shown) - engine.prompt_tokens(alone)
    assert more > 3 * loaded.audio_tokens
    # A window's own tokens are as many as without examples.
    assert engine.tokens_read == Engine(loaded, [alone]).tokens_read


def test_model_merging_is_that_of_the_moment_the_engine_is_made() -> None:
    asked = NatureLM.from_pretrained(SMALL_MODEL, merging_alpha=0.5)
    engine = Engine(asked, [EngineQuery(PROMPTS[0], 12)])
    expected = asked.generate(torch.from_numpy(windows()[:1]), [PROMPTS[0]], max_new_tokens=12, num_beams=1)[
        0
    ]
    asked.merging_alpha = 1.0
    assert_same(engine.answer(windows()[:1])[0][0], expected)
    assert expected.token_ids != plain(0, PROMPTS[0], 12, 1, early=False).token_ids


# -- asking --------------------------------------------------------------------------------------------------------


def test_no_windows_have_no_answers() -> None:
    assert Engine(model(), [EngineQuery("Anything?")]).answer(np.zeros((0, 160000), np.float32)) == []


def test_a_window_shorter_than_the_model_hears_is_one_padded_with_silence() -> None:
    engine = Engine(model(), [EngineQuery("Anything?", 6)])
    short = windows()[:1, :100_000]
    padded = np.pad(short, ((0, 0), (0, 60_000)))
    assert engine.answer(short) == engine.answer(padded)


def test_other_queries_can_be_asked_of_the_same_engine() -> None:
    engine = Engine(early_ending_model(), [EngineQuery(PROMPTS[0], 3)])
    engine.answer(windows()[:2])
    engine.ask([EngineQuery(PROMPTS[2], 12), EngineQuery(PROMPTS[3], 12)])
    assert_same(engine.answer(windows()[:1])[0][1], plain(0, PROMPTS[3], 12, 1))


class Crowded:
    """A model whose device has room for so many windows."""

    def __init__(self, within: NatureLM, room: int, error: Exception) -> None:
        self._within, self.room, self._error = within, room, error
        self.refused: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._within, name)

    def encode_audio(self, waveforms_BS: torch.Tensor, pad_to_window: bool) -> torch.Tensor:
        if len(waveforms_BS) > self.room:
            self.refused.append(len(waveforms_BS))
            raise self._error
        return self._within.encode_audio(waveforms_BS, pad_to_window)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: out of memory (cudaErrorMemoryAllocation)"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
    ids=["allocator", "driver", "cublas"],
)
def test_running_out_of_memory_halves_the_batch_and_loses_no_window(error: Exception) -> None:
    crowded = Crowded(early_ending_model(), 2, error)
    engine = Engine(crowded, [EngineQuery(PROMPTS[0], 12)], batch_size=6)  # type: ignore[arg-type]
    for window, row in enumerate(engine.answer(windows())):
        assert_same(row[0], plain(window, PROMPTS[0], 12, 1))
    assert crowded.refused == [6, 3]
    assert engine.batch_size == 1


@pytest.mark.parametrize("room", [2, 6])
def test_batches_encoded_ahead_by_another_thread_give_the_same_answers(room: int) -> None:
    crowded = Crowded(early_ending_model(), room, torch.OutOfMemoryError("CUDA out of memory"))
    engine = Engine(crowded, [EngineQuery(PROMPTS[0], 12)], batch_size=4)  # type: ignore[arg-type]
    engine._encode_thread = ThreadPoolExecutor(1)  # as on a GPU
    for window, row in enumerate(engine.answer(windows())):
        assert_same(row[0], plain(window, PROMPTS[0], 12, 1))
    assert engine.batch_size == min(room, 4)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    crowded = Crowded(early_ending_model(), 2, RuntimeError("device-side assert"))
    engine = Engine(crowded, [EngineQuery(PROMPTS[0], 12)], batch_size=6)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="device-side assert"):
        engine.answer(windows())
    assert crowded.refused == [6]


def on_card(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, free: int, wait: Callable[[int, Callable[[], int]], bool]
) -> None:
    """Have an engine believe that it runs on a GPU with so many bytes free."""
    monkeypatch.setattr(engine, "_device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(engine, "_free_memory", lambda: None)
    monkeypatch.setattr(engine_module, "free_bytes", lambda device: free)
    monkeypatch.setattr(engine_module, "wait_for_memory", wait)


@pytest.mark.parametrize(("free", "refused"), [(0, [2]), (1 << 40, [2, 1, 2, 1])], ids=["full", "free"])
def test_a_window_that_does_not_fit_a_gpu_is_refused_in_one_sentence(
    free: int, refused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded = Crowded(early_ending_model(), 0, torch.OutOfMemoryError("CUDA out of memory"))
    engine = Engine(crowded, [EngineQuery(PROMPTS[0], 12)], batch_size=2)  # type: ignore[arg-type]
    on_card(engine, monkeypatch, free, lambda needed, free: free() >= needed)
    with pytest.raises(NaturelmError, match=r"one window needs .* GB are free"):
        engine.answer(windows()[:2])
    assert crowded.refused == refused


def test_memory_that_another_program_held_for_a_while_makes_no_batch_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowded = Crowded(early_ending_model(), 0, torch.OutOfMemoryError("CUDA out of memory"))
    engine = Engine(crowded, [EngineQuery(PROMPTS[0], 12)], batch_size=6)  # type: ignore[arg-type]

    def wait(needed: int, free: Callable[[], int]) -> bool:
        assert free() < needed
        crowded.room = 6
        monkeypatch.setattr(engine, "_device", torch.device("cpu"))
        return True

    on_card(engine, monkeypatch, 0, wait)
    for window, row in enumerate(engine.answer(windows())):
        assert_same(row[0], plain(window, PROMPTS[0], 12, 1))
    assert crowded.refused == [6]
    assert engine.batch_size == 6


# -- weights -------------------------------------------------------------------------------------------------------


def stored_bytes(*holders: object) -> int:
    """Bytes of all tensors that objects hold, each part of a storage once."""
    spans: set[tuple[int, int]] = set()
    for holder in holders:
        tensors = (
            [*holder.parameters(), *holder.buffers()]
            if isinstance(holder, torch.nn.Module)
            else list(_tensors_in(vars(holder).values()))
        )
        spans |= {
            (t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) for t in tensors if t.numel()
        }
    return sum(size for _, size in spans)


def _tensors_in(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors_in(value)
        elif type(value).__module__ in ("naturelm.engine.decoder", "naturelm.models.parts.weights"):
            found += _tensors_in(vars(value).values()) if hasattr(value, "__dict__") else []
    return found


def test_an_engine_that_takes_the_weights_stores_none_of_them_twice() -> None:
    taken = NatureLM.from_pretrained(SMALL_MODEL)
    before = stored_bytes(taken)
    engine = Engine(taken, [EngineQuery(PROMPTS[0], 12)], take_weights=True)
    assert stored_bytes(taken, engine.decoder) == before


def test_an_engine_that_shares_its_model_stores_only_what_is_merged_beside_it() -> None:
    shared = NatureLM.from_pretrained(SMALL_MODEL)
    before = stored_bytes(shared)
    engine = Engine(shared, [EngineQuery(PROMPTS[0], 12)])
    merged = sum(
        parameter.nbytes for name, parameter in shared.named_parameters() if "base_layer.weight" in name
    )
    assert merged > 0
    assert stored_bytes(shared, engine.decoder) == before + merged


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_an_engine_that_takes_the_weights_answers_the_same_and_leaves_the_model_as_quick(
    alpha: float,
) -> None:
    queries = [EngineQuery(prompt, 12) for prompt in PROMPTS[:2]]
    expected = Engine(NatureLM.from_pretrained(SMALL_MODEL, merging_alpha=alpha), queries).answer(
        windows()[:3]
    )
    taken = NatureLM.from_pretrained(SMALL_MODEL, merging_alpha=alpha)
    answers = Engine(taken, queries, take_weights=True).answer(windows()[:3])
    again = Engine(taken, queries, take_weights=True).answer(windows()[:3])
    for rows in zip(answers, again, expected, strict=True):
        for ours, second, theirs in zip(*rows, strict=True):
            assert_same(ours, theirs)
            assert_same(second, theirs)
    # The plain path too: the adapters' product is in the base now, and no longer added.
    waveforms = torch.from_numpy(windows()[:1])
    assert_same(taken.generate(waveforms, [PROMPTS[0]], max_new_tokens=12, num_beams=1)[0], expected[0][0])


def test_a_model_whose_weights_were_taken_is_neither_merged_differently_nor_saved(tmp_path: Path) -> None:
    taken = NatureLM.from_pretrained(SMALL_MODEL)
    Engine(taken, [EngineQuery(PROMPTS[0], 12)], take_weights=True)
    taken.merging_alpha = 1.0
    with pytest.raises(NaturelmError, match="merged for good at 1; load the model again"):
        taken.merging_alpha = 0.5
    with pytest.raises(NaturelmError, match="merged for good and cannot be saved"):
        taken.save_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Engine(model(), []), "no queries"),
        (lambda: Engine(model(), [EngineQuery(" ")]), "no text"),
        (lambda: EngineQuery("Anything?", max_new_tokens=0), "max_new_tokens 0"),
        (lambda: Engine(model(), [EngineQuery("Anything?")], num_beams=0), "num_beams is 0"),
        (lambda: Engine(model(), [EngineQuery("Anything?")], batch_size=0), "batch_size 0"),
        (lambda: Engine(model(), [EngineQuery("Anything?")], num_beams=2, do_sample=True), "one beam"),
        (lambda: Engine(model(), [EngineQuery("Anything?")], temperature=0.0), "temperature is 0"),
        (lambda: Engine(model(), [EngineQuery("Anything?")], weights="fp8"), "'fp8' need a GPU"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(NaturelmError, match=words):
        make()


@pytest.mark.parametrize(
    ("waveforms", "rate", "words"),
    [
        (np.zeros((1, 160_000), np.float32), 48_000, "48000 Hz"),
        (np.zeros(160_000, np.float32), 16_000, r"shape \[160000\]"),
        (np.zeros((1, 160_000), np.int16), 16_000, "int16"),
        (np.zeros((1, 160_001), np.float32), 16_000, "160001 samples"),
    ],
)
def test_sound_the_model_would_not_hear_whole_is_refused(
    waveforms: np.ndarray, rate: int, words: str
) -> None:
    with pytest.raises(NaturelmError, match=words):
        Engine(model(), [EngineQuery("Anything?")]).answer(waveforms, rate)


def test_the_example_in_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (REPO / "docs/explanation/engine.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1], {})
    assert len(capsys.readouterr().out.splitlines()) == 4


# -- sampling ------------------------------------------------------------------------------------------------------


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_batch() -> None:
    queries = [EngineQuery(PROMPTS[3], 12), EngineQuery(PROMPTS[0], 12)]

    def sample(seed: int, batch_size: int, order: list[int]) -> list[list[tuple[int, ...]]]:
        engine = Engine(early_ending_model(), queries, do_sample=True, seed=seed, batch_size=batch_size)
        rows = engine.answer(windows()[order])
        return [[answer.token_ids for answer in rows[order.index(window)]] for window in range(6)]

    together = sample(1, 6, [0, 1, 2, 3, 4, 5])
    assert sample(1, 2, [5, 3, 1, 0, 2, 4]) == together
    assert sample(2, 6, [0, 1, 2, 3, 4, 5]) != together


def test_a_low_temperature_draws_the_likeliest_tokens() -> None:
    queries = [EngineQuery(PROMPTS[0], 12)]
    cold = Engine(early_ending_model(), queries, do_sample=True, temperature=1e-4)
    for window, row in enumerate(cold.answer(windows()[:3])):
        assert_same(row[0], plain(window, PROMPTS[0], 12, 1))


def test_tokens_are_drawn_as_often_as_the_model_thinks_them_likely() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(3)) * 2
    draws = 20_000
    evenly = (torch.arange(draws) + 0.5) / draws
    drawn = _draw(logits.expand(draws, -1), evenly)
    often = torch.bincount(drawn, minlength=50) / draws
    assert often.numpy() == pytest.approx(logits[0].softmax(-1).numpy(), abs=2 / draws)


# -- decode steps --------------------------------------------------------------------------------------------------


class _NotRecorded(GraphedDecodeBuffer):
    """Runs what a GPU would replay."""

    def _record(self, step: Callable[[], None]) -> Any:
        return SimpleNamespace(replay=step)


@pytest.mark.parametrize("beams", [1, 3])
def test_steps_as_a_gpu_replays_them_answer_the_same(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [EngineQuery(prompt, 12) for prompt in PROMPTS]
    made = []

    def on(decoder: Decoder, rows: int, slots: int) -> DecodeBuffer:
        made.append(_NotRecorded(decoder, rows, slots))
        return made[-1]

    monkeypatch.setattr(DecodeBuffer, "on", on)
    engine = Engine(early_ending_model(), queries, num_beams=beams, batch_size=5)
    for window, row in enumerate(engine.answer(windows())):
        for query, answer in zip(queries, row, strict=True):
            assert_same(answer, plain(window, query.prompt, 12, beams))
    assert len(made) == 1
    assert made[0].rows > 5 * len(queries) * beams  # some rows were padding


@pytest.mark.gpu
def test_on_a_gpu_most_answers_are_those_of_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    queries = [EngineQuery(prompt, 12) for prompt in PROMPTS]
    on_gpu = Engine(NatureLM.from_pretrained(SMALL_MODEL, device="cuda", dtype=torch.float32), queries)
    for ours, theirs in zip(
        on_gpu.answer(windows()), Engine(model(), queries).answer(windows()), strict=True
    ):
        for a, b in zip(ours, theirs, strict=True):
            assert a.token_ids[:1] == b.token_ids[:1]
            assert a.token_scores[0] == pytest.approx(b.token_scores[0], abs=1e-3)
