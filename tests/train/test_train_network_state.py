"""What a network holds besides parameters, and networks that cannot be copied plainly: averaged and resumed exactly."""

from __future__ import annotations

import os
import signal
import warnings

import pandas as pd
import pytest
import torch
from torch import nn
from train_cases import QUICK, Doubling, small_data

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.train import train
from ntkdiag.train.network_state import Follower, copied, held_tensors, hold


class Body(nn.Module):
    """A small network whose hidden layer is seen by `remember`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.a(x) + log_snr[:, None] / 10)
        if self.training:
            with torch.no_grad():
                self.remember(hidden.mean(0))
        return self.b(hidden - self.remembered())

    def remember(self, mean: torch.Tensor) -> None:
        self.m = 0.9 * self.m + 0.1 * mean

    def remembered(self) -> torch.Tensor:
        return self.m


class Assigned(Body):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(8))


class AssignedOutsideTheStateDict(Body):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(8), persistent=False)


class WrittenInto(AssignedOutsideTheStateDict):
    def remember(self, mean: torch.Tensor) -> None:
        self.m.data.mul_(0.9).add_(mean, alpha=0.1)  # which counts as no change to autograd


class PlainAttribute(Body):
    def __init__(self) -> None:
        super().__init__()
        self.m = torch.zeros(8)


class Broadcast(Body):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(()))


class Expanded(Body):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(1).expand(8), persistent=False)


class WiderNumbers(AssignedOutsideTheStateDict):
    def remember(self, mean: torch.Tensor) -> None:
        self.m = 0.9 * self.m + 0.1 * mean.double()

    def remembered(self) -> torch.Tensor:
        return self.m.float()


class SetLater(Body):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("m", None, persistent=False)

    def remember(self, mean: torch.Tensor) -> None:
        self.m = mean if self.m is None else 0.9 * self.m + 0.1 * mean


class Masked(Assigned):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((2,), -torch.inf))


class OldWeightNorm(Assigned):
    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.b = nn.utils.weight_norm(self.b)


class OldSpectralNorm(Assigned):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.spectral_norm(self.a)


class KeepsItsOutput(Assigned):
    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        found = super().forward(x, log_snr)
        self.last = {"outputs": [found]}
        return found


KINDS = [
    Assigned,
    AssignedOutsideTheStateDict,
    WrittenInto,
    PlainAttribute,
    Broadcast,
    Expanded,
    WiderNumbers,
    SetLater,
    Masked,
    OldWeightNorm,
    OldSpectralNorm,
    KeepsItsOutput,
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def fresh(kind: type[Body]) -> Denoiser:
    return Denoiser(kind(), schedules.cosine(), "v", call="log_snr")


def everything(denoiser: Denoiser) -> dict[str, torch.Tensor]:
    return {**denoiser.state_dict(), **held_tensors(denoiser)}


def assert_same_bytes(left: Denoiser, right: Denoiser) -> None:
    x = torch.linspace(-1, 1, 6).reshape(3, 2)
    assert torch.equal(
        left.eval()(x, 0.5), right.eval()(x, 0.5)
    )  # what a forward computes anew is now new in both
    one, other = everything(left), everything(right)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        assert value.shape == other[name].shape, name
        assert (
            value.detach().contiguous().numpy().tobytes()
            == other[name].detach().contiguous().numpy().tobytes()
        ), name


@every_kind
def test_the_average_has_averaged_weights_and_the_current_buffers(kind: type[Body]) -> None:
    denoiser = fresh(kind)
    result = train(denoiser, small_data(), Doubling(), QUICK)
    live, average = denoiser.network.m, result.denoiser.network.m
    assert live is not average and live.abs().max() > 1e-3
    assert torch.equal(live, average)
    assert not torch.equal(denoiser.network.a.bias, result.denoiser.network.a.bias)
    kept = held_tensors(result.denoiser)
    for name, value in held_tensors(denoiser).items():
        assert torch.equal(kept[name], value) and kept[name].data_ptr() != value.data_ptr(), name


@every_kind
@pytest.mark.parametrize("stop", [1, 7])
def test_a_resumed_run_ends_in_the_same_bytes(kind: type[Body], stop: int, tmp_path) -> None:  # type: ignore[no-untyped-def]
    whole, first, resumed = fresh(kind), fresh(kind), fresh(kind)
    straight = train(whole, small_data(), Doubling(), QUICK)

    def interrupt(step: int) -> None:
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(first, small_data(), Doubling(interrupt), QUICK, out=out)
    found = train(resumed, small_data(), Doubling(), QUICK, out=out, resume=True)
    assert_same_bytes(resumed, whole)
    assert_same_bytes(found.denoiser, straight.denoiser)
    pd.testing.assert_frame_equal(
        found.history.drop(columns="seconds"), straight.history.drop(columns="seconds"), check_exact=True
    )


def test_the_plain_average_of_weight_norm_is_that_of_its_parts() -> None:
    """The layer's `weight` is computed from averaged parts, not averaged or left behind itself."""
    denoiser = fresh(OldWeightNorm)
    average = train(denoiser, small_data(), None, QUICK).denoiser
    x = torch.randn(5, 2)
    average(x, 0.0)
    layer = average.network.b
    parts = layer.weight_g * layer.weight_v / layer.weight_v.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer.weight, parts)
    assert not torch.allclose(layer.weight, denoiser.network.b.weight, atol=1e-4)


def test_a_copy_shares_nothing_and_computes_the_same() -> None:
    network = KeepsItsOutput()
    network(torch.randn(3, 2), torch.zeros(3))
    loop: list[object] = [network.last]
    loop.append(loop)
    network.loop = loop
    twin = copied(network)
    assert torch.equal(twin.last["outputs"][0], network.last["outputs"][0])
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in network.parameters()}
    x = torch.randn(4, 2)
    assert torch.equal(twin.eval()(x, torch.zeros(4)), network.eval()(x, torch.zeros(4)))


def test_a_module_that_appears_during_training_is_refused_in_a_line() -> None:
    with pytest.raises(
        InputError, match=r"network: expected the same modules .*Create every module in __init__"
    ):
        hold(Assigned(), {"new.m": torch.zeros(2)})


def test_state_that_is_no_tensor_is_refused_in_a_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    class Extra(Assigned):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 1}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    with pytest.raises(
        InputError, match=r"state of Extra: expected tensors alone; got dict in _extra_state\. Keep"
    ):
        train(fresh(Extra), small_data(), None, QUICK, out=tmp_path / "run")


@torch.no_grad()
def test_a_follower_takes_over_what_hold_would() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network.cache = None
    quick, slow = copied(network), copied(network)
    follow = Follower(network, quick)
    changes = [
        lambda: network[1].running_mean.data.add_(1),
        lambda: setattr(network, "cache", torch.ones(2)),
        lambda: setattr(network, "cache", torch.zeros(3, 2)),
        lambda: setattr(network[0], "new", torch.ones(1).expand(4)),
        lambda: network[0].register_buffer("later", torch.ones(2)),
        lambda: network.__setitem__(1, nn.BatchNorm1d(2)),
        lambda: network[1].running_var.mul_(2),
    ]
    for change in changes:
        change()
        follow()
        hold(slow, held_tensors(network))
        expected, found = held_tensors(slow), held_tensors(quick)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert not any(found[name] is value for name, value in held_tensors(network).items())
