"""The stopwatch and the ways that every benchmark shares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ntkdiag as nd
from analysis.stopwatch import (
    exponent,
    interleaved,
    machine,
    relative_error,
    repeated,
)
from analysis.ways import Case, dit_case, float64_truth, streaming, torch_func, training_step

ROOT = Path(__file__).parents[2]


def tiny_case(probes: int = 1) -> Case:
    return dit_case(samples=3, patch=4, side=8, width=16, depth=1, heads=2, probes=probes)


def test_rounds_are_interleaved_and_start_with_another_call_each_time() -> None:
    seen: list[str] = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    times = interleaved(calls, rounds=3, warmup=1)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(second >= 0 for values in times.values() for second in values)


def test_repeats_stop_at_the_budget_but_not_below_the_least() -> None:
    assert len(repeated(lambda: None, budget=0.0, least=2)) == 2
    assert len(repeated(lambda: None, budget=1e9, most=5)) == 5


@pytest.mark.parametrize("power", [0.0, 1.0, 1.7])
def test_exponent_of_an_exact_power_law(power: float) -> None:
    sizes = np.array([1, 3, 10, 50])
    slope, error = exponent(sizes, 2.5 * sizes**power)
    assert slope == pytest.approx(power, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-7)


def test_standard_error_of_an_exponent_agrees_with_repeated_noise() -> None:
    rng, sizes = np.random.default_rng(0), np.array([1.0, 2, 4, 8, 16, 32])
    fits = [exponent(sizes, sizes * np.exp(0.1 * rng.standard_normal(6))) for _ in range(4000)]
    slopes, errors = np.array(fits).T
    assert np.sqrt((errors**2).mean()) == pytest.approx(slopes.std(), rel=0.05)


def test_two_points_have_a_slope_but_no_error() -> None:
    slope, error = exponent(np.array([1, 2]), np.array([1, 8]))
    assert slope == pytest.approx(3)
    assert np.isnan(error)


def test_peak_memory_remembers_what_was_given_back() -> None:
    script = (
        "import numpy as np; from analysis.stopwatch import peak_mib, resident_mib;"
        "before = resident_mib(); held = np.ones(100 * 2**20 // 8); held = None;"
        "print(before, resident_mib(), peak_mib())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    before, after, peak = map(float, answer.stdout.split())
    assert peak - before == pytest.approx(100, abs=5)
    assert after - before < 5


def test_machine_names_the_processor_and_its_cores() -> None:
    found = machine()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0


def test_relative_error_is_one_for_zero() -> None:
    truth = np.diag([3.0, 4.0])
    assert relative_error(np.zeros((2, 2)), truth) == 1
    assert relative_error(truth, truth) == 0


def test_truth_is_the_exact_engines_kernel() -> None:
    exact = nd.gram_of(*_parts(tiny_case().to(torch.float64)), engine="exact")[0]
    torch.testing.assert_close(float64_truth(tiny_case()), exact, rtol=1e-12, atol=0)


@pytest.mark.parametrize("written_out", [False, True])
def test_every_way_gives_the_same_kernel(written_out: bool) -> None:
    truth = float64_truth(tiny_case()).numpy()
    streamed, contracted = streaming(tiny_case())(), torch_func(tiny_case(), written_out)()
    assert streamed is not None
    assert contracted is not None
    assert relative_error(streamed[0].numpy(), truth) < 1e-5
    assert relative_error(contracted.numpy(), truth) < 1e-5


def test_a_step_fills_the_gradients_of_a_mean_squared_loss() -> None:
    case = Case(nn.Linear(2, 1, bias=False), (torch.tensor([[1.0, 2.0]]),), torch.ones(1, 1))
    training_step(case)()
    gradient = case.module.weight.grad
    assert gradient is not None
    torch.testing.assert_close(gradient, 2 * case.module(case.inputs[0]).detach() * case.inputs[0])


def test_fewer_probes_are_the_first_ones() -> None:
    case = tiny_case(probes=3)
    assert torch.equal(case.first(2).probes, case.probes[:2])


def _parts(case: Case) -> tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]:
    return case.module, case.inputs, case.probes
