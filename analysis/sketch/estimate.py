"""Is the sketched kernel unbiased, and do intervals from its probes hold its error? On small networks, over many seeds."""

from __future__ import annotations

from typing import Any

import torch
from scipy import stats
from torch import Tensor

import ntkdiag as nd
from analysis.sketch.networks import build
from ntkdiag.kernel.probes import all_outputs
from ntkdiag.spectra import effective_rank

LEVEL = 0.9


def checked(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """One row: the estimates of all seeds against the exact trace kernel.

    Each seed has its own probes, each probe its own sketch; all of them are directions of one call.

    Returns:
        largest_z, mean_z2: of the mean over all seeds, entry by entry, in its own standard errors; mean_z2 should be 1.
        relative_sd: standard deviation of an entry by one probe as a share of √(K_ii K_jj), mean over entries;
            relative_sd_unsketched: by a probe without a sketch.
        coverage: share of entries and seeds whose 90% interval holds the exact entry.
        square_bias: Σ_{i≠j} K_ij² over its exact value, minus 1, by squares of mean entries;
            square_bias_between_probes: by products of different probes; square_bias_error: its standard error.
        effective_rank_exact, effective_rank_mean: of the exact kernel, and of those of the seeds in the mean.
    """
    seeds, probes = config["seeds"], config["probes"]
    module, inputs = build(name, config["samples"])
    with torch.no_grad():
        shape = module(*inputs).shape[1:]
    outputs = shape.numel()
    exact = nd.gram_of(module, inputs, all_outputs(shape, torch.float64)).mean(0)
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (seeds * probes, *shape), generator=generator).double() * 2 - 1
    options: dict[str, Any] = {"engine": "sketch", "sketch": config["k"]}
    found = nd.gram_of(module, inputs, signs, **options) / outputs
    plain = nd.gram_of(module, inputs, signs[: 4 * probes]) / outputs
    by_seed = found.reshape(seeds, probes, *exact.shape)
    mean, error = by_seed.mean(1), by_seed.std(1) / probes**0.5
    z = (found.mean(0) - exact) / (found.std(0) / len(found) ** 0.5)
    inside = ((mean - exact).abs() <= stats.t.ppf((1 + LEVEL) / 2, probes - 1) * error).double()
    upper = torch.ones_like(exact, dtype=torch.bool).triu()
    scale = (exact.diagonal()[:, None] * exact.diagonal()).sqrt()
    squares, products = _squares(mean), _between_probes(by_seed)
    ranks = torch.tensor([float(effective_rank(one)) for one in mean[: config["ranks"]]])
    return {
        "network": name,
        "k": config["k"],
        "seeds": seeds,
        "probes": probes,
        "largest_z": float(z[upper].abs().max()),
        "mean_z2": float(z[upper].square().mean()),
        "relative_sd": float((found.std(0) / scale).mean()),
        "relative_sd_unsketched": float((plain.std(0) / scale).mean()),
        "coverage": float(inside[:, upper].mean()),
        "square_bias": float(squares.mean() / _squares(exact) - 1),
        "square_bias_between_probes": float(products.mean() / _squares(exact) - 1),
        "square_bias_error": float(products.std() / seeds**0.5 / _squares(exact)),
        "effective_rank_exact": float(effective_rank(exact)),
        "effective_rank_mean": float(ranks.mean()),
    }


def _squares(grams: Tensor) -> Tensor:
    """Σ_{i≠j} K_ij², [...]."""
    return grams.square().sum((-1, -2)) - grams.diagonal(dim1=-2, dim2=-1).square().sum(-1)


def _between_probes(grams: Tensor) -> Tensor:
    """Σ_{i≠j} of the mean over r ≠ s of K_ij^(r) K_ij^(s); grams [..., R, N, N]."""
    count = grams.shape[-3]
    return (_squares(grams.sum(-3)) - _squares(grams).sum(-1)) / (count * (count - 1))
