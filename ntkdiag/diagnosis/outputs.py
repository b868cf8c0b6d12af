"""The structure of what a network predicts: Gram matrices of its predicted x0, of the best possible one, and of the data.

Ranks, alignments and neighbours are all read from them, so that a diagnosis keeps [N, N] numbers a bucket and no pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis.bayes import exact_optimal, finite_optimal
from ntkdiag.process import target as targets
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws

# Names of the Gram matrices in a diagnosis, each ⟨x0_i, x0_j⟩/D: of the network, of the best prediction, [B, N, N]; of the
# data, [N, N].
OUTPUT, BEST, DATA = "output", "output_best", "output_data"
FINITE = "the posterior of the finite training set, which memorises it"
# Where the name of the best prediction stands in `meta`.
SOURCE = "output_source"


def best_prediction(
    denoiser: Denoiser, data: Data, draws: PairedDraws, buckets: Buckets
) -> tuple[Tensor | None, str]:
    """E[y | x] of every sample [B, N, D] and whose posterior it is; None where neither is known."""
    levels = torch.tensor(buckets.centers, dtype=torch.float64)
    exact = exact_optimal(denoiser, data, draws, levels)
    if exact is not None and data.oracle is not None:
        return exact, f"{data.oracle.name}: {data.oracle.label}"
    found = finite_optimal(denoiser, data, draws, levels)
    return found, "" if found is None else FINITE


def output_grams(
    denoiser: Denoiser, draws: PairedDraws, buckets: Buckets, predictions: Tensor, best: Tensor | None
) -> dict[str, Tensor]:
    """Gram matrices of predicted x0, in float64.

    Args:
        denoiser: Its target and schedule are used.
        draws, buckets: Those of the predictions.
        predictions, best: Of the target, [B, N, D]; None where no best one is known.

    Returns:
        By the names above; without that of the best prediction where there is none.
    """
    found = {OUTPUT: _grams(denoiser, draws, buckets, predictions)}
    if best is not None:
        found[BEST] = _grams(denoiser, draws, buckets, best)
    return found | {DATA: _gram(draws.x0.double().cpu())}


def _grams(denoiser: Denoiser, draws: PairedDraws, buckets: Buckets, predictions: Tensor) -> Tensor:
    x0, noise = draws.x0.double().cpu(), draws.epsilon.double().cpu()
    grams = []
    for center, prediction in zip(buckets.centers, predictions, strict=True):
        x = denoiser.schedule.diffuse(x0, noise, center)
        given = prediction.double().cpu().reshape(x.shape)
        grams.append(_gram(targets.to_x0(denoiser.target, denoiser.schedule, center, given, x)))
    return torch.stack(grams)


def _gram(samples: Tensor) -> Tensor:
    flat = samples.flatten(1)
    return flat @ flat.T / flat.shape[1]
