"""How close generated pictures are to real ones, by vectors that stand for them: pixels, or features of a network.

Every distance is for samples against held-out data; beside it stands the floor, the same distance for as many real
training samples, which a perfect sampler would have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.randomness import generator

NEIGHBOURS = 5


def frechet_distance(left: Tensor, right: Tensor) -> float:
    """‖μ − ν‖² + tr(S + T − 2 (S T)^½), the distance of two normal distributions (Dowson & Landau 1982).

    S T has the eigenvalues of S^½ T S^½, which are real and not negative. With estimated covariances it is biased upward,
    the more so the fewer samples there are: compare it at equal numbers only.

    Args:
        left: [N, *shape], N ≥ 2.
        right: [M, *shape], M ≥ 2.

    Returns:
        Distance ≥ 0 up to rounding, in squared units of the vectors.

    Raises:
        InputError: fewer than two samples, or vectors of different sizes.

    Example:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(x, x + 2), 3)  # the means are 2 apart in three coordinates
        12.0
    """
    x, y = _vectors(left, right, least=2)
    covariances = x.T.cov().reshape(x.shape[1], -1), y.T.cov().reshape(y.shape[1], -1)
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp_min(0).sqrt()
    traces = covariances[0].trace() + covariances[1].trace()
    return float((x.mean(0) - y.mean(0)).square().sum() + traces - 2 * roots.sum())


def polynomial_mmd(left: Tensor, right: Tensor) -> float:
    """Squared maximum mean discrepancy for the kernel (x·y/d + 1)³, as a U-statistic.

    Unbiased at any number of samples, so that it is negative in half of all cases where the distributions are equal. With
    Inception features it is known as KID (Bińkowski et al. 2018, arXiv 1801.01401).

    Args:
        left: [N, *shape], N ≥ 2.
        right: [M, *shape], M ≥ 2.

    Raises:
        InputError: fewer than two samples, or vectors of different sizes.

    Example:
        >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> abs(polynomial_mmd(x[:200], x[200:])) < 0.1 < polynomial_mmd(x[:200], x[200:] + 2)
        True
    """
    x, y = _vectors(left, right, least=2)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        whole = kernel(a, a)
        return (whole.sum() - whole.trace()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def sliced_wasserstein(left: Tensor, right: Tensor, directions: int = 256, seed: int = 0) -> float:
    """Root of the mean over random directions of the squared 2-Wasserstein distance of the projections.

    In one dimension that distance is ∫ (F⁻¹ − G⁻¹)², computed exactly for any two numbers of samples (Bonneel et al. 2015,
    doi 10.1007/s10851-014-0506-3). Two samples of one distribution are not at 0: compare it with its floor.

    Args:
        left: [N, *shape], N ≥ 1.
        right: [M, *shape], M ≥ 1.
        directions: Number of directions, uniform on the sphere.
        seed: Of the directions.

    Returns:
        Distance ≥ 0, in units of the vectors.

    Raises:
        InputError: no samples, or vectors of different sizes.

    Example:
        >>> x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
        >>> round(sliced_wasserstein(x, x + 2), 6)  # in one dimension the only direction
        2.0
    """
    x, y = _vectors(left, right, least=1)
    count = require_positive_int("directions", directions)
    turned = torch.randn(x.shape[1], count, generator=generator(seed, "directions"), dtype=torch.float64)
    turned = turned / turned.norm(dim=0)
    a, b = ((side @ turned).sort(dim=0).values for side in (x, y))
    # Both inverse distribution functions are constant between these shares.
    ends = torch.cat([torch.arange(1, len(side) + 1, dtype=torch.float64) / len(side) for side in (x, y)])
    ends = ends.sort().values
    widths = ends.diff(prepend=ends.new_zeros(1))
    middles = ends - widths / 2
    a, b = (side[(middles * len(side)).long().clamp(max=len(side) - 1)] for side in (a, b))
    return float((widths @ (a - b).square()).mean().sqrt())


def neighbour_shares(samples: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage of samples, by balls around points that reach to their k-th neighbour.

    precision: share of samples inside a ball of real points. recall: share of real points inside a ball of samples
    (Kynkäänniemi et al. 2019, arXiv 1904.06991). density: mean number of balls of real points around a sample, over k, which
    one outlier cannot raise. coverage: share of real points whose ball holds a sample (Naeem et al. 2020, arXiv 2002.09797).

    Args:
        samples: [N, *shape], N > k.
        real: [M, *shape], M > k.
        neighbours: k.

    Raises:
        InputError: too few samples, or vectors of different sizes.

    Example:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> neighbour_shares(x[:100] + 50, x[100:])["precision"]
        0.0
    """
    k = require_positive_int("neighbours", neighbours)
    x, y = _vectors(samples, real, least=k + 1)
    across = _distances(x, y)  # [N, M]
    near_real = across <= _radii(y, k)[None, :]
    near_sample = across <= _radii(x, k)[:, None]
    return {
        "precision": float(near_real.any(1).double().mean()),
        "recall": float(near_sample.any(0).double().mean()),
        "density": float(near_real.double().sum(1).mean() / k),
        "coverage": float(near_real.any(0).double().mean()),
    }


def _radii(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th nearest other point; the nearest is the point itself."""
    return _distances(points, points).kthvalue(k + 1, dim=1).values


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Those of points that are equal are exactly 0, and those of a pair the same from either side."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _vectors(left: Tensor, right: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both sides as float64 [N, d]."""
    for side in (left, right):
        if len(side) < least:
            raise InputError("samples to compare", expected=f"at least {least} on each side", got=len(side))
    if left.shape[1:] != right.shape[1:]:
        raise InputError(
            "samples to compare",
            expected=f"vectors of shape {tuple(left.shape[1:])} on both sides",
            got=tuple(right.shape[1:]),
        )
    x, y = (side.detach().cpu().double().flatten(1) for side in (left, right))
    return x, y
