"""Principal directions: both routes from points agree, and images too large for a D×D matrix pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ntkdiag.process import schedules
from ntkdiag.process.bayes import GaussianOracle
from ntkdiag.process.bayes.principal import Principal


def points(count: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.1, 2.0, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
    return 3 + scale * torch.randn(count, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("count", [2, 5, 11, 12, 13, 40])
def test_the_covariance_comes_back_from_few_points_and_from_many(count: int) -> None:
    data = points(count, 3, 4)
    found = Principal.of_points(data)
    rebuilt = (found.directions * found.variances) @ found.directions.mT
    torch.testing.assert_close(rebuilt, torch.cov(data.flatten(1).mT, correction=0), rtol=1e-12, atol=1e-12)
    identity = torch.eye(min(count, 12), dtype=torch.float64)
    torch.testing.assert_close(found.directions.mT @ found.directions, identity, rtol=0, atol=1e-12)
    assert (found.variances >= 0).all()
    assert (found.variances.diff() <= 0).all()


def test_an_oracle_of_few_points_is_that_of_their_covariance() -> None:
    data = points(5, 3, 4)
    few = GaussianOracle.fit(data)
    whole = GaussianOracle(data.mean(0), torch.cov(data.flatten(1).mT, correction=0))
    levels = torch.tensor([-8.0, -1.0, 0.0, 3.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(few.mmse(levels), whole.mmse(levels), rtol=1e-9, atol=1e-12)
    x = points(7, 3, 4)
    for level in levels:
        alpha, sigma = schedules.cosine().alpha(level), schedules.cosine().sigma(level)
        torch.testing.assert_close(few.posterior_mean(x, alpha, sigma), whole.posterior_mean(x, alpha, sigma))
        torch.testing.assert_close(
            few.posterior_variance(x, alpha, sigma),
            whole.posterior_variance(x, alpha, sigma),
            rtol=1e-6,
            atol=1e-9,
        )
    drawn = few.sample(20_000, torch.Generator().manual_seed(1)).flatten(1)
    torch.testing.assert_close(
        torch.cov(drawn.mT), torch.cov(data.flatten(1).mT, correction=0), rtol=0.1, atol=0.1
    )


def test_large_images_do_not_need_a_matrix_over_their_pixels() -> None:
    data = points(6, 3, 256, 256)  # a matrix over pixels would take 288 GiB
    oracle = GaussianOracle.fit(data)
    variance = float((data - data.mean(0)).square().mean())
    assert float(oracle.mmse(torch.tensor(-40.0))) == pytest.approx(variance, rel=1e-6)


def test_leading_directions_hold_the_share_asked_for_and_not_one_more() -> None:
    scale = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    data = signs * scale + 5  # variances 9, 4, 1
    for share, count in ((0.5, 1), (9 / 14 + 1e-9, 2), (0.9, 2), (0.95, 3), (1.0, 3)):
        leading = Principal.of_points(data).leading(share)
        assert leading.shape == (3, count)
        torch.testing.assert_close(leading.abs(), torch.eye(3, dtype=torch.float64)[:, :count])


def test_constant_data_has_no_leading_direction() -> None:
    data = torch.arange(6.0).expand(8, 6)
    assert Principal.of_points(data).leading(0.9).shape == (6, 0)
