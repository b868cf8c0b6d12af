"""TF32 without a card: a layer that rounds as TF32 does, differently for each batch size, on tensors taken for a card's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from references import brute_gram, relative_error
from torch import Tensor, nn

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel import gram_of, precision
from ntkdiag.kernel.agreement import tolerance_of

DIRECTIONS = torch.ones(1, 4)


class Rounded(nn.Module):
    """A linear layer with an error of 2·10⁻³ of its largest output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        error = torch.empty_like(y).uniform_(-1, 1, generator=torch.Generator().manual_seed(len(x)))
        return y + 2e-3 * y.detach().abs().amax() * error


@pytest.fixture
def _on_a_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(precision, "_on_card", lambda tensor: True)
    kept = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = kept


def network() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(Rounded(), nn.Tanh(), nn.Linear(4, 4)), torch.randn(6, 3)


@pytest.mark.usefixtures("_on_a_card")
@pytest.mark.parametrize("engine", ["streaming", "exact", "autograd", "sketch"])
def test_its_rounding_is_no_dependence_on_the_batch(engine: str) -> None:
    module, x = network()
    found = gram_of(module, (x,), DIRECTIONS, engine=engine)
    assert relative_error(found, brute_gram(module, (x,), DIRECTIONS[:, None].expand(-1, 6, -1))) < 0.01


def test_float32_rounds_less() -> None:
    module, x = network()
    with pytest.raises(MeasurementError, match="between two batches"):
        gram_of(module, (x,), DIRECTIONS)


@pytest.mark.usefixtures("_on_a_card")
def test_float32_on_a_card_is_computed_in_what_the_settings_say() -> None:
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert precision.computed_in(single) == precision.TF32
    assert precision.computed_in(double) == torch.float64
    torch.backends.cudnn.allow_tf32 = False
    assert precision.computed_in(single) == torch.float32


@pytest.mark.usefixtures("_on_a_card")
def test_the_check_allows_for_it_and_still_sees_an_error_of_a_parameter() -> None:
    allowed = tolerance_of([torch.zeros(1)])
    assert allowed.of_parameter == 0.05
    assert 5e-4**2 < allowed.of_kernel < 1e-4
