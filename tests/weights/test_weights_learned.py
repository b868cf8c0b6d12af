"""Weights learned from losses: their minimum, mean 1, and exact resume."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.models import build
from ntkdiag.process import schedules
from ntkdiag.train import TrainConfig, train
from ntkdiag.weights import LearnedUncertainty, LearnsFromLosses, WeightSource

COSINE = schedules.cosine()


def shown(weights: LearnedUncertainty, steps: int, seed: int = 0) -> None:
    """Show it exponential losses of mean e^{−λ/2}, λ drawn as training does."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        level = COSINE.sample(256, generator)
        noise = -torch.rand(256, generator=generator, dtype=torch.float64).log()
        weights.observe(level, (-level / 2).exp() * noise)


def test_it_learns_the_logarithm_of_the_expected_loss() -> None:
    weights = LearnedUncertainty("v", COSINE, seed=3)
    shown(weights, 700)
    level = torch.linspace(-4, 4, 9, dtype=torch.float64)
    assert (weights.log_uncertainty(level) + level / 2).abs().max() < 0.35
    ratio = weights(level[-1:]) / weights(level[:1])
    assert float(ratio) == pytest.approx(math.exp(4), rel=0.6)


def test_the_mean_weight_is_one_whatever_it_has_learned() -> None:
    weights = LearnedUncertainty("v", COSINE)
    shown(weights, 300)
    level = COSINE.quantile((torch.arange(4096, dtype=torch.float64) + 0.5) / 4096)
    assert float(weights(level).mean()) == pytest.approx(1, rel=0.05)
    assert float(weights(level).max() / weights(level).min()) > 5
    now = weights.table
    assert now.target == "v" and float(now(level[::50]).mean()) == pytest.approx(1, rel=0.06)
    weights.observe(level[:8], level[:8].exp())
    assert not torch.equal(weights.table.weight, now.weight)


def test_the_steps_of_a_discrete_schedule_one_of_them_of_snr_zero() -> None:
    found = schedules.from_table([3.0, 0.0, -2.0, -math.inf])
    weights = LearnedUncertainty("epsilon", found)
    table = weights.table
    assert len(table.weight) < 256 and torch.isfinite(table.log_snr).all()
    weights.observe(torch.tensor([-math.inf, 0.0, 3.0]), torch.tensor([3.0, 0.5, 0.1]))
    counts = weights._counts / weights._counts.sum()
    assert float((counts * weights.table.weight).sum()) == pytest.approx(1)


def test_one_step_is_adams_on_the_gradient_in_closed_form() -> None:
    """At u = 0 the gradient in a coefficient is mean((1 − L) φ), and Adam's first step is −rate · its sign."""
    weights = LearnedUncertainty("v", COSINE, features=5, learning_rate=0.1, seed=1)
    level, loss = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([4.0, 0.1, 0.3])
    features = weights._features(level.double())
    slope = ((1 - loss.double())[:, None] * features).mean(0)
    weights.observe(level, loss)
    moved = torch.tensor(weights.state_dict()["coefficients"], dtype=torch.float64)
    torch.testing.assert_close(moved, -0.1 * slope.sign(), rtol=1e-5, atol=0)


def test_shape_dtype_and_infinite_levels() -> None:
    weights = LearnedUncertainty("v", COSINE)
    shown(weights, 20)
    level = torch.tensor([[-math.inf, 0.0], [3.0, math.inf]])
    found = weights(level)
    assert found.dtype == torch.float32 and found.shape == (2, 2)
    assert torch.isfinite(found).all() and (found > 0).all()
    assert isinstance(weights, WeightSource) and isinstance(weights, LearnsFromLosses)


def trained(tmp_path: Any, name: str, steps: tuple[int, ...]) -> tuple[dict[str, Tensor], LearnedUncertainty]:
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(3))
    weights = None
    for count, upto in enumerate(steps):
        network = build("mlp", (2,), 0, width=8, depth=1, frequencies=2)
        weights = LearnedUncertainty("v", COSINE, features=8)
        result = train(
            Denoiser(network, COSINE, "v", call="log_snr"),
            Data("points", points),
            weights,
            TrainConfig(steps=upto, batch=8),
            out=tmp_path / name,
            resume=count > 0,
        )
    assert weights is not None
    return result.denoiser.state_dict(), weights


def test_a_run_shows_it_the_losses_and_one_that_was_interrupted_ends_the_same(tmp_path: Any) -> None:
    straight, whole = trained(tmp_path, "a", (12,))
    parts, resumed = trained(tmp_path, "b", (5, 12))
    assert all(torch.equal(value, parts[name]) for name, value in straight.items())
    assert whole.state_dict() == resumed.state_dict() and any(whole.state_dict()["coefficients"])
    json.dumps(whole.state_dict(), allow_nan=False)


def test_a_state_of_other_weights_is_refused() -> None:
    weights = LearnedUncertainty("v", COSINE, features=4)
    shown(weights, 2)
    state = weights.state_dict()
    with pytest.raises(InputError, match="expected the settings"):
        LearnedUncertainty("v", COSINE, features=5).load_state_dict(state)
    for broken in (
        {"coefficients": [1.0]},
        {"exp_avg": [math.nan] * 4},
        {"exp_avg_sq": None},
        {"steps": "x"},
    ):
        with pytest.raises(InputError, match="learned weights in the checkpoint"):
            LearnedUncertainty("v", COSINE, features=4).load_state_dict(state | broken)
    for bad in ({"features": 0}, {"learning_rate": 0.0}):
        with pytest.raises(InputError):
            LearnedUncertainty("v", COSINE, **bad)
