"""Networks are in the mode that is asked for, and afterwards as they were before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ntkdiag.modes import evaluating, in_mode


class Counting(nn.Module):
    """Counts its calls in a buffer, in any mode, and keeps its last input."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.linear = nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x
        return self.linear(x)


@pytest.mark.parametrize("training", [True, False])
def test_every_submodule_has_its_own_mode_again_even_after_an_error(training: bool) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.Dropout()))
    net[1].eval()
    before = [part.training for part in net.modules()]
    with pytest.raises(ZeroDivisionError), in_mode(net, training):
        assert all(part.training == training for part in net.modules())
        raise ZeroDivisionError
    assert [part.training for part in net.modules()] == before


def test_a_network_that_is_trained_keeps_what_it_learned() -> None:
    net = nn.BatchNorm1d(2)
    with in_mode(net, training=True):
        net(torch.randn(8, 2))
    assert net.num_batches_tracked == 1


def test_an_evaluation_has_no_gradients_and_leaves_no_trace() -> None:
    net = Counting()
    with evaluating(net) as like:
        assert like.dtype == torch.float64 and not net.training
        assert not net(torch.ones(3, 2).to(like)).requires_grad
        assert net.calls == 1
    assert net.calls == 0 and net.training and not hasattr(net, "last")


def test_a_network_without_parameters_can_be_evaluated() -> None:
    with evaluating(nn.Identity()) as like:
        assert like.dtype == torch.get_default_dtype()
