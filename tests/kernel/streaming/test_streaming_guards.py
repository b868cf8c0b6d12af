"""Networks that no kernel between samples can be measured of, and the words they are refused with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks.case import Net
from operator_truth import gram_by
from torch import Tensor, nn
from torch.nn import functional

from ntkdiag.errors import MeasurementError

X = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0))
X[-1] *= 0.3  # the sample that is looked at alone must not be the one that holds the batch's maximum


@pytest.fixture(params=["streaming", "exact", "operator"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def measured(net: nn.Module, engine: str = "streaming", x: Tensor = X, **options: Any) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        out = net.eval()(x.clone())
        return gram_by(engine, net, (x,), torch.ones(1, *out.shape[1:]), **options)


class Body(nn.Module):
    """A layer below the top, to be named in errors."""

    def __init__(self, apply: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.apply_it = apply
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.apply_it(x))


def nested(apply: Callable[[Tensor], Tensor]) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"body": Body(apply)})["body"])


DROPOUTS: list[Callable[[Tensor], Tensor]] = [
    functional.dropout,
    lambda x: functional.dropout(x, 0.1),
    lambda x: functional.dropout(x, p=0.3, training=True, inplace=True),
    lambda x: functional.dropout1d(x, 0.5),
    lambda x: functional.alpha_dropout(x, 0.5, True),
    lambda x: functional.feature_alpha_dropout(x, 0.5, training=True),
    lambda x: torch.dropout(x, 0.5, True),
    lambda x: torch.dropout(x, 0.5, train=True),
    lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
    lambda x: functional.scaled_dot_product_attention(x, x, x, None, 0.1),
]


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_dropout_that_stays_on_is_refused_and_its_layer_named(
    dropout: Callable[[Tensor], Tensor], engine: str
) -> None:
    words = r"dropout that is on in eval mode in 1 \(Body\)\. Call it with training=self\.training"
    with pytest.raises(MeasurementError, match=words):
        measured(nested(dropout), engine)


@pytest.mark.parametrize(
    "harmless",
    [
        lambda x: functional.dropout(x, 0.0),
        lambda x: functional.dropout(x, 0.5, False),
        lambda x: torch.dropout(x, 0.5, False),
        lambda x: functional.scaled_dot_product_attention(x, x, x),
        nn.Dropout(0.5).eval(),
    ],
)
def test_dropout_that_is_off_is_not(harmless: Callable[[Tensor], Tensor], engine: str) -> None:
    assert measured(nested(harmless), engine).shape == (1, 4, 4)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.BatchNorm1d(3, affine=False, track_running_stats=False),
    ],
    ids=["affine", "plain"],
)
def test_batch_norm_without_running_statistics_is_refused_and_named(norm: nn.Module, engine: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), norm))
    words = r"batch norm on the batch's own statistics in 1\.1 \(BatchNorm1d\)\. Give it running statistics"
    with pytest.raises(MeasurementError, match=words):
        measured(net, engine)


def test_functional_batch_norm_on_batch_statistics_is_refused(engine: str) -> None:
    with pytest.raises(MeasurementError, match=r"in 1 \(Body\)"):
        measured(nested(lambda x: functional.batch_norm(x, None, None, training=True)), engine)


def test_batch_norm_in_train_mode_is_measured_in_eval_mode(engine: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(3)).train()
    found = gram_by(engine, net, (X,), torch.ones(1, 3, 4))
    assert net.training
    assert net[1].training
    assert int(net[1].num_batches_tracked) == 0
    assert torch.equal(found, gram_by(engine, net.eval(), (X,), torch.ones(1, 3, 4)))


def mixing_first(m: Net, x: Tensor) -> Tensor:
    return m.layer(x - x.mean(0))


def mixing_between(m: Net, x: Tensor) -> Tensor:
    y = m.layer(x)
    return m.layer(y / y.abs().amax())


def mixing_last(m: Net, x: Tensor) -> Tensor:
    y = m.layer(x)
    return y - y.mean(0)


def mixing_neighbours(m: Net, x: Tensor) -> Tensor:
    return m.layer(x).roll(1, 0)


def noise_first(m: Net, x: Tensor) -> Tensor:
    return m.layer(x + torch.randn_like(x))


def noise_last(m: Net, x: Tensor) -> Tensor:
    return m.layer(x) + torch.rand_like(x)


def noise_scaled_by_a_parameter(m: Net, x: Tensor) -> Tensor:
    return m.layer(x) + m.scale * torch.randn(1, 3, 4)


def no_rule_and_mixing(m: Net, x: Tensor) -> Tensor:
    """No parameter is left for the streaming engine; it checks all the same."""
    y = torch.einsum("ntc,ntc,cd->ntd", x, x, m.layer.weight) * (1 + 0 * m.scale.sum().detach())
    return y - y.mean(0)


MIXING = [mixing_first, mixing_between, mixing_last, mixing_neighbours, noise_first, noise_last, noise_scaled_by_a_parameter,
          no_rule_and_mixing]  # fmt: skip


@pytest.mark.parametrize("forward", MIXING, ids=lambda f: f.__name__)
def test_samples_that_depend_on_their_batch_or_on_chance_are_refused(forward: Any, engine: str) -> None:
    net = Net(forward, layer=nn.Linear(4, 4), scale=torch.ones(4))
    with pytest.raises(
        MeasurementError, match="expected each sample's values to be its own and the same every time"
    ):
        measured(net, engine)


def test_the_layer_behind_which_samples_are_mixed_is_named() -> None:
    net = Net(mixing_between, layer=nn.Linear(4, 4))
    with pytest.raises(
        MeasurementError, match=r"behind the layer with layer\.bias, layer\.weight, they differ by"
    ):
        measured(net)


def test_mixing_is_found_in_tiles_too() -> None:
    net = Net(mixing_last, layer=nn.Linear(4, 4))
    with pytest.raises(MeasurementError, match="in the output"):
        measured(net, memory=1)


def test_one_sample_has_nothing_to_mix_with(engine: str) -> None:
    assert measured(Net(mixing_first, layer=nn.Linear(4, 4)), engine, X[:1]).shape == (1, 1, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named_as_such(bad: float, engine: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[0, 0] = bad
    with pytest.raises(MeasurementError, match="NaN or infinity"):
        measured(net, engine, torch.zeros(3, 4))


def test_masks_of_minus_infinity_are_not_mistaken_for_it() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        scores = (x @ x.mT).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
        return (scores + m.bias).softmax(-1) @ x

    assert torch.isfinite(measured(Net(forward, bias=torch.randn(3, 3)))).all()


def test_a_network_that_writes_into_its_own_parameters_is_refused(engine: str) -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        with torch.no_grad():
            m.layer.weight.copy_(functional.normalize(m.layer.weight, dim=1))
        return m.layer(x)

    net = Net(forward, layer=nn.Linear(4, 4))
    measured_once = net(X)  # normalised now: the values do not change any more
    with pytest.raises(MeasurementError, match=r"got a change of layer\.weight\. Do that in train mode only"):
        measured(net, engine)
    assert torch.allclose(net(X), measured_once)


def test_an_activation_overwritten_after_a_layer_used_it_is_refused() -> None:
    """As in training, where autograd refuses it."""

    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.first(x)
        z = m.second(y)
        y.mul_(2)
        return z

    net = Net(forward, first=nn.Linear(4, 4), second=nn.Linear(4, 4))
    with pytest.raises(MeasurementError, match="one was changed in place after a layer had used it"):
        measured(net)


# --- both ends of the batch


def forgotten_batch_first(reverse: bool) -> Net:
    """An LSTM that takes the samples for time steps, from the first to the last or the other way."""

    def forward(m: Net, x: Tensor) -> Tensor:
        out = m.lstm(x.flip(0) if reverse else x)[0]
        return m.out(out.flip(0) if reverse else out)

    return Net(forward, lstm=nn.LSTM(4, 4), out=nn.Linear(4, 2))


def cumulative(reverse: bool) -> Net:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.layer(x)
        return y.flip(0).cumsum(0).flip(0) if reverse else y.cumsum(0)

    return Net(forward, layer=nn.Linear(4, 2))


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("build", [forgotten_batch_first, cumulative])
@pytest.mark.parametrize("either", ["streaming", "exact", "autograd", "operator"])
def test_samples_taken_for_time_steps_are_refused_in_either_direction(
    build: Any, reverse: bool, check: bool, samples: int, either: str
) -> None:
    with pytest.raises(MeasurementError, match="expected each sample's values to be its own"):
        measured(build(reverse), either, X[:samples], check=check)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: functional.embedding(x, m.table, scale_grad_by_freq=True),
        lambda m, x: torch.embedding(m.table, x, -1, True),
        lambda m, x: functional.embedding_bag(x, m.table, scale_grad_by_freq=True, mode="sum"),
    ],
)
def test_gradients_scaled_by_the_frequency_in_the_batch_are_refused(forward: Any, engine: str) -> None:
    net, x = Net(forward, table=torch.randn(5, 3)), torch.tensor([[0, 1], [1, 1], [2, 3]])
    with pytest.raises(MeasurementError, match=r"scale_grad_by_freq=True in .*Set it to False"):
        gram_by(engine, net, (x,), torch.ones(1, *net(x).shape[1:]))
