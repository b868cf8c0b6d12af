"""Weights in a plain loop around accelerate's own Accelerator: steps, accumulation, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from integrations_cases import Recorder, refresher

from ntkdiag.integrations.accelerate import LoopWeights
from ntkdiag.weights import WeightSource, rule

accelerate = pytest.importorskip("accelerate")


def accelerator(accumulation: int = 1):
    accelerate.state.AcceleratorState._reset_state(True)
    return accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulation)


def train(weights: LoopWeights, run, batches: range, model: torch.nn.Module) -> None:
    """A loop as accelerate's documentation has it."""
    optimizer = run.prepare(torch.optim.SGD(model.parameters(), lr=0.05))
    for batch in batches:
        draw = torch.Generator().manual_seed(batch)
        log_snr = torch.randn(8, generator=draw) * 3
        with run.accumulate(model):
            losses = (model(log_snr[:, None])[:, 0] - torch.sin(log_snr)).square()
            run.backward((weights(log_snr) * losses).mean())
            optimizer.step()
            weights.step()
            optimizer.zero_grad()


def linear() -> torch.nn.Module:
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, 0.3)
    torch.nn.init.zeros_(model.bias)
    return model


@pytest.mark.parametrize(("accumulation", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (3, [1, 2])])
def test_optimiser_steps_are_counted_not_batches(accumulation: int, steps: list[int]) -> None:
    run, recorder = accelerator(accumulation), Recorder()
    weights = LoopWeights(run, recorder)
    model = run.prepare(linear())
    train(weights, run, range(6), model)
    assert recorder.steps == steps and weights.steps == len(steps)


def test_weights_enter_the_loss() -> None:
    run = accelerator()
    weights = LoopWeights(run, rule("min_snr", "v"))
    level = torch.tensor([-3.0, 2.0])
    assert isinstance(weights, WeightSource) and weights.target == "v"
    assert torch.equal(weights(level), rule("min_snr", "v")(level))


def test_a_run_resumed_from_accelerates_checkpoint_is_the_run_that_went_on(tmp_path: Path) -> None:
    def begin():
        run = accelerator()
        model = run.prepare(linear())
        return run, model, LoopWeights(run, refresher(every=2))

    run, whole, weights = begin()
    train(weights, run, range(9), whole)

    run, model, first = begin()
    train(first, run, range(5), model)
    run.save_state(str(tmp_path / "state"))
    run, resumed, second = begin()
    run.load_state(str(tmp_path / "state"))
    second.source._score = first.source._score  # type: ignore[attr-defined] # goes on counting where it was
    assert second.steps == 5
    train(second, run, range(5, 9), resumed)
    assert torch.equal(resumed.weight, whole.weight) and torch.equal(resumed.bias, whole.bias)
    assert repr(second.source.history) == repr(weights.source.history)  # type: ignore[attr-defined]
