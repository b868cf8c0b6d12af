"""How much a verification measures of a network, and what its passes cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ntkdiag as nd
from ntkdiag.claims.effects import MIN_PROBES, MIN_SAMPLES
from ntkdiag.claims.ends import MIN_BUCKETS
from ntkdiag.claims.levels import LEVELS, QUICK_WORK, SMALLER, Level, fitting
from ntkdiag.diagnosis.work import forward_operations, seconds_of_pass
from ntkdiag.errors import InputError


def test_quick_is_smaller_for_more_work_and_never_below_what_limits_need() -> None:
    sizes = [fitting("quick", 10**digits) for digits in range(13)]
    assert sizes[0] == fitting("quick", 0) == LEVELS["quick"] and sizes[-1] == SMALLER[-1]
    passes = [one.passes for one in sizes]
    assert passes == sorted(passes, reverse=True) and len(set(passes)) > 2
    for one in SMALLER:
        assert one.samples >= MIN_SAMPLES and one.probes >= MIN_PROBES and one.buckets >= MIN_BUCKETS
        assert one.controls == LEVELS["quick"].controls
    for digits, one in enumerate(sizes):
        assert 3 * one.passes * 10**digits <= QUICK_WORK or one == SMALLER[-1]
    assert fitting("standard", 10**12) == LEVELS["standard"]
    with pytest.raises(InputError, match="level"):
        fitting("slow", 1)


def test_what_is_given_stays() -> None:
    assert fitting("quick", 10**12, samples=100, controls=0) == Level(100, 3, 0, 3)
    assert fitting("quick", 10**9, samples=None).passes > fitting("quick", 10**9, buckets=12).passes / 4
    assert fitting("thorough", 0, buckets=7) == Level(256, 24, 8, 7)


class Convolution(nn.Module):
    """One convolution and one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(5, 5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x))
        return out


def made(network: nn.Module) -> tuple[nd.Denoiser, nd.data.Data]:
    data = nd.data.Data("noise", torch.randn(6, 2, 4, 5, generator=torch.Generator().manual_seed(0)))
    return nd.Denoiser(network, nd.schedules.cosine(), "v"), data


def test_operations_are_those_of_the_products() -> None:
    denoiser, data = made(Convolution())
    # 4·5 places, 2 outputs of 2·9 inputs; 8 rows, 5 outputs of 5 inputs; two operations for each product
    assert forward_operations(denoiser, data) == 2 * (20 * 2 * 18 + 8 * 5 * 5)
    assert denoiser.training and all(one.grad is None for one in denoiser.parameters())


def test_a_pass_takes_time_and_leaves_nothing() -> None:
    denoiser, data = made(Convolution())
    before = torch.random.get_rng_state()
    seconds = seconds_of_pass(denoiser, data)
    assert seconds is not None and 0 < seconds < 1
    assert all(one.grad is None for one in denoiser.parameters())
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_network_that_fails_has_no_work() -> None:
    class Fails(Convolution):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            raise KeyError("no")

    class Detached(Convolution):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return super().forward(x, time).detach()

    assert forward_operations(*made(Fails())) == 0 and seconds_of_pass(*made(Fails())) is None
    assert forward_operations(*made(Detached())) > 0 and seconds_of_pass(*made(Detached())) is None


def test_quick_measures_less_of_a_large_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def record(denoiser: Any, data: Any, buckets: Any, **given: Any) -> None:
        seen.update(given, buckets=buckets)
        raise InterruptedError

    monkeypatch.setattr("ntkdiag.claims.verification.measure", record)
    monkeypatch.setattr("ntkdiag.claims.levels.QUICK_WORK", 1.0)
    for given in ({}, {"buckets": 4}):
        with pytest.raises(InterruptedError):
            nd.verify(*made(Convolution()), level="quick", **given)  # type: ignore[arg-type]
        assert (seen["samples"], seen["probes"]) == (6, 3)  # no more samples than there are
        assert len(nd.Buckets.of(seen["buckets"], nd.schedules.cosine())) == given.get("buckets", 3)
