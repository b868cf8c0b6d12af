"""What one call found out about the forward serves the next: other data, other numbers of samples, other weights."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, Case
from kernel_networks import normal
from references import brute_gram, relative_error
from streaming_truth import cotangents_for, streamed
from torch import Tensor, nn

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel import gram_of
from ntkdiag.kernel.check import CheckOnce
from ntkdiag.kernel.streaming import engine as engine_room

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_later_call_with_more_samples_and_in_tiles_agrees(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = CheckOnce()
    module, inputs = case(seed=1, samples=3)
    first = streamed(module, inputs, cotangents_for(module, inputs), check=once)
    _, others = case(seed=2, samples=7)
    cotangents = cotangents_for(module, others)
    truth = brute_gram(module, others, cotangents)
    for fit in (9, 4):
        monkeypatch.setattr(engine_room, "samples_that_fit", lambda *ignored, fit=fit: fit)
        found = streamed(module, others, cotangents, check=once)
        assert relative_error(found.per_probe, truth) < 1e-10
        assert found.coverage == first.coverage


BATCHES: list[int] = []


class Counting(nn.Module):
    """Two layers; by `wide` it takes other operations. Notes the size of each batch in `BATCHES`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.wide = False

    def forward(self, x: Tensor) -> Tensor:
        BATCHES.append(len(x))
        y = self.first(x).tanh()
        if self.wide:
            y = y + self.first(y).tanh()
        return self.second(y)


@pytest.mark.parametrize("engine", ["streaming", "sketch"])
def test_a_later_call_runs_the_network_once(engine: str) -> None:
    net, once = Counting().double(), CheckOnce()
    for samples in (4, 6):
        BATCHES.clear()
        gram_of(net, (normal(samples, 4),), torch.ones(2, 2), engine=engine, check=once)
    assert BATCHES == [6]


@pytest.mark.parametrize("engine", ["streaming", "sketch"])
def test_a_network_that_takes_other_operations_is_looked_at_again(engine: str) -> None:
    net, once, x = Counting().double(), CheckOnce(), normal(5, 4)
    gram_of(net, (x,), torch.ones(2, 2), engine=engine, check=once, sketch=9)
    net.wide = True
    found = gram_of(net, (x,), torch.ones(2, 2), engine=engine, check=once, sketch=9)
    truth = brute_gram(net, (x,), torch.ones(2, 1, 2).expand(-1, 5, -1))
    assert relative_error(found, truth) < 1e-12


def test_a_later_call_still_says_that_the_output_is_not_finite() -> None:
    net, once, x = Counting().double(), CheckOnce(), normal(5, 4)
    gram_of(net, (x,), torch.ones(2, 2), check=once)
    x[2, 1] = torch.nan
    with pytest.raises(MeasurementError, match="NaN or infinity in the output"):
        gram_of(net, (x,), torch.ones(2, 2), check=once)
