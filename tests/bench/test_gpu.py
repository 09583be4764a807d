"""One command measures a GPU: what fails is reported and the rest runs; only what a GPU does is left out on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from naturelm.bench import gpu, gpu_checks
from naturelm.bench.gpu import GpuBench, Part, bench_gpu, failures
from naturelm.cli import main
from naturelm.errors import NaturelmError
from naturelm.models.parts.beats import PositionConv

CPU = torch.device("cpu")


def part(name: str, expected_s: float = 0.0, error: Exception | None = None) -> Part:
    def run() -> dict[str, float]:
        if error is not None:
            raise error
        return {"rate": 3.0}

    return Part(name, expected_s, run, lambda result: f"{result['rate']:.0f} windows/s")


@pytest.mark.parametrize("check", gpu_checks.CHECKS, ids=lambda check: check.__name__)
def test_every_check_agrees_where_both_ways_are_right(check: gpu_checks.Check) -> None:
    result = check(CPU, False)
    assert result["ok"], result
    assert "left_out" in result or result["difference"] < 0.1


def test_a_wrong_path_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = PositionConv._multiply
    monkeypatch.setattr(PositionConv, "_multiply", lambda conv, x_BPD: right(conv, x_BPD).roll(1, dims=1))
    result = gpu_checks.position_convolution(CPU, False)
    assert not result["ok"]
    assert result["difference"] > 10 * result["plain_difference"]
    assert failures({"checks": {"checks": {"position_convolution": result}}}) == ["position_convolution"]


def test_not_a_number_agrees_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PositionConv, "_multiply", lambda conv, x_BPD: x_BPD * float("nan"))
    assert not gpu_checks.position_convolution(CPU, False)["ok"]


def test_a_part_that_fails_is_reported_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [
        part("model"),
        part("broken", error=torch.OutOfMemoryError("CUDA out of memory\nand more")),
        part("long", expected_s=3600),
        part("short"),
    ]
    monkeypatch.setattr(GpuBench, "parts", lambda self: parts)
    lines: list[str] = []
    results = bench_gpu(tmp_path, minutes=1, device="cpu", report=lines.append)
    assert [line.split("] ", 1)[1] for line in lines] == [
        "model: 3 windows/s",
        "broken: failed: OutOfMemoryError: CUDA out of memory",
        "long: left out: no time left",
        "short: 3 windows/s",
    ]
    assert failures(results) == ["broken"]
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8")) == results
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| short | 3 windows/s |" in table
    assert "| broken | failed: OutOfMemoryError: CUDA out of memory |" in table


def test_the_command_measures_what_a_cpu_can_and_leaves_out_the_rest(tmp_path: Path) -> None:
    arguments = [
        "bench",
        "gpu",
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--model",
        "pocket",
        "--windows",
        "2",
    ]
    only = ["checks", "encode", "1 query, 8 tokens", "24 GB", "FP8: 12 GB"]
    done = CliRunner().invoke(main, [*arguments, *(word for name in only for word in ("--only", name))])
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(results) == ["model", *only]
    assert results["1 query, 8 tokens"]["windows_per_s"] > 0
    assert results["encode"]["ms_per_window"] > 0
    assert results["24 GB"]["left_out"] == results["FP8: 12 GB"]["left_out"] == "needs a GPU"


def test_a_machine_without_a_gpu_and_an_unknown_part_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NaturelmError, match=r"finds no GPU here; .* --device cpu"):
        bench_gpu(tmp_path / "out")
    with pytest.raises(NaturelmError, match="--only has no part 'encoding'; the parts are model; "):
        bench_gpu(tmp_path / "out", device="cpu", only=["encoding"])
    assert not (tmp_path / "out").exists()


def test_a_smaller_card_is_simulated_by_occupying_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60_000, 80_000))
    assert gpu._occupy(24_000, CPU).nbytes == 80_000 - 24_000
    with pytest.raises(NaturelmError, match="is not simulated"):
        gpu._occupy(19_000, CPU)
    with pytest.raises(NaturelmError, match="is not simulated"):
        gpu._occupy(96_000, CPU)


def test_a_model_is_made_peaked_and_flat_again() -> None:
    weight = torch.randn(4, 4).bfloat16()
    before = weight.clone()
    with gpu._scaled(weight, 8.0):
        assert torch.equal(weight, before * 8)
    assert torch.equal(weight, before)
