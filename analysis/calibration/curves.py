"""Verdicts on recipes whose statistics are smooth random curves over log-SNR: how often is a definite word wrong?

A curve is a Gaussian process over the bucket centres. Its length is the distance in log-SNR at which its correlation is
e^(−1/2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

import ntkdiag as nd
from ntkdiag.claims.ends import contrast
from ntkdiag.claims.recipe import MARGIN, between_targets, decide, over_seeds
from ntkdiag.recoverability import amplitude

Array = NDArray[np.float64]
TARGETS = ("epsilon", "x0", "v")


def recipes(config: dict[str, Any]) -> pd.DataFrame:
    """One row a test and length of the curves; shares in %."""
    axis = np.linspace(-9, 9, config["buckets"])
    level = torch.from_numpy(axis)
    rulers = np.stack([amplitude(name, nd.schedules.cosine(), level).log().numpy() for name in TARGETS])
    rows = []
    for length in config["lengths"]:
        curves = _Curves(axis, length, np.random.default_rng(length))
        for test, share in {
            "permuted buckets, one network: supported by a curve of nothing": _permuted(
                curves, rulers[2], config
            ),
            "recipe, at the margin ×1.1: supported": _ends(curves, MARGIN, "supported", config),
            "recipe, at the margin ×1/1.1: contradicted": _ends(curves, -MARGIN, "contradicted", config),
            "recipe, at the margin ×1.1: absent": _ends(curves, MARGIN, "absent", config),
            "recipe, planted ×1.5: supported": _ends(curves, np.log(1.5), "supported", config),
            "between targets, no slope: supported": _slopes(curves, rulers, 0.0, 0.0, config),
            "between targets, no slope, a curve of each target's own: supported": _slopes(
                curves, rulers, 0.0, config["spread"], config
            ),
            "between targets, planted ×1.25: supported": _slopes(curves, rulers, np.log(1.25), 0.0, config),
        }.items():
            rows.append({"test": test, "length": length, "share": 100 * share})
    return pd.DataFrame(rows).pivot(index="test", columns="length", values="share").round(1).reset_index()


class _Curves:
    """Smooth random curves of standard deviation 1."""

    def __init__(self, axis: Array, length: float, rng: np.random.Generator) -> None:
        covariance = np.exp(-np.square(np.subtract.outer(axis, axis) / length) / 2)
        values, vectors = np.linalg.eigh(covariance)
        self.axis, self._rng = axis, rng
        self._root = vectors * np.sqrt(np.clip(values, 0, None))

    def draw(self, *shape: int) -> Array:
        """[*shape, B]."""
        drawn: Array = self._rng.standard_normal((*shape, len(self.axis))) @ self._root.T
        return drawn


def _permuted(curves: _Curves, ruler: Array, config: dict[str, Any]) -> float:
    """Kendall's τ of one curve with the amplitude of v, tested against permuted buckets at 5%: the test of version 0.1.0."""
    p_values = [
        kendalltau(ruler, one, alternative="greater").pvalue for one in curves.draw(config["repeats"])
    ]
    return float(np.mean(np.array(p_values) <= 0.05))


def _ends(curves: _Curves, mean: float, word: str, config: dict[str, Any]) -> float:
    """Share of recipes that get a word for the noisy end, where effects vary over seeds around a mean."""
    weights = contrast(curves.axis, "noisy")
    drawn = config["spread"] * curves.draw(config["repeats"], config["seeds"]) @ weights + mean
    return float(np.mean([decide({"noisy": over_seeds(one)})["noisy"] == word for one in drawn]))


def _slopes(curves: _Curves, rulers: Array, planted: float, own: float, config: dict[str, Any]) -> float:
    """Share of recipes in which ln S is said to follow the ruler between targets, at 5%.

    All targets share a curve of the noise level; every network has a curve of its own. `planted` is the effect at the bucket
    where the rulers of the targets differ most.
    """
    count, seeds, targets = config["repeats"], config["seeds"], len(rulers)
    slope = planted / float(np.ptp(rulers, axis=0).max())
    networks = config["spread"] * curves.draw(count, targets, seeds)
    logs = (
        curves.draw(count, 1, 1) + own * curves.draw(count, targets, 1) + networks + slope * rulers[:, None]
    )
    return float(
        np.mean([over_seeds(between_targets(one, rulers)[:, 0], least=0).p_supported <= 0.05 for one in logs])
    )
