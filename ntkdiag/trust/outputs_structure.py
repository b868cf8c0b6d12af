"""`outputs`: the structure of a network's predicted x0 at every noise level, without measuring a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ntkdiag.claims.distortion import Distortion, distortion
from ntkdiag.claims.ends import ENDS
from ntkdiag.conditions import repeated
from ntkdiag.data import as_data
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.diagnosis.bucket_kernels import predict
from ntkdiag.diagnosis.outputs import BEST, DATA, OUTPUT, best_prediction, output_grams
from ntkdiag.errors import InputError, require_int
from ntkdiag.process.buckets import DEFAULT_COUNT, Buckets, BucketsLike
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.spectra import effective_rank, eigenvalues
from ntkdiag.spectra.dense.centred import centred

# Share of the target below which the error of the best prediction is no more than rounding of the network's dtype.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class Outputs:
    """Predicted x0 at every noise level.

    Attributes:
        table: A row a bucket: bucket, log_snr, output_rank, best_rank, data_rank (centred effective ranks of the predicted
            x0, of the best possible prediction and of the data), and loss_over_best: E‖x̂0 − m‖² / E‖x0 − m‖² with the best
            prediction m, the error of the network beside the error that remains for all; NaN where the best prediction is x0
            itself, as that of a finite training set is at little noise.
        distortion: Structure beside that of the best prediction, with intervals; see `ntkdiag.claims.distortion`.
        source: Whose posterior the best prediction is of.
        samples: N.

    Example:
        >>> found = nd.trust.outputs(denoiser, data, buckets=3, samples=8)
        >>> found.samples, len(found.table)
        (8, 3)
    """

    table: pd.DataFrame
    distortion: Distortion
    source: str
    samples: int

    def __repr__(self) -> str:
        return f"Outputs(buckets={len(self.table)}, {self.distortion!r})"

    @property
    def text(self) -> str:
        """What the numbers say, in plain sentences."""
        said = []
        for end in ENDS:
            rows = self.distortion.ends[self.distortion.ends["end"] == end]
            words = [f"{row['structure']}: {_WORDS[row['word']]}" for row in rows.to_dict("records")]
            said.append(
                f"At the {end} end, beside the best possible prediction ({self.source}): {'; '.join(words)}."
            )
        return " ".join(said)


_WORDS = {
    "falls": "the network has less",
    "rises": "the network has more",
    "absent": "no difference",
    "cannot say": "cannot say",
}


def outputs(
    denoiser: Denoiser,
    data: DataLike,
    *,
    buckets: BucketsLike = DEFAULT_COUNT,
    samples: int = 128,
    seed: int = 0,
) -> Outputs:
    """Compare the structure of a network's predicted x0 with that of the best possible prediction.

    Args:
        denoiser: The network.
        data: As in `measure`. The best prediction is that of its oracle; without one, of the finite training set.
        buckets, samples, seed: As in `measure`.

    Returns:
        `Outputs`.

    Raises:
        InputError: no best prediction is known, too few buckets or samples, or as `measure`.

    Example:
        >>> found = nd.trust.outputs(denoiser, data, buckets=3, samples=16)
        >>> found.distortion.ends["structure"].unique().tolist()
        ['rank', 'alignment with x0', 'neighbours of x0']
    """
    require_denoiser("network", denoiser)
    require_int("samples", samples, at_least=1)
    given = as_data(data)
    levels = Buckets.of(buckets, denoiser.schedule, extrapolate=False)
    draws = PairedDraws.draw(given.train, samples, seed, cond=given.conditions)
    best, source = best_prediction(denoiser, given, draws, levels)
    if best is None:
        raise InputError(
            "data",
            expected="data whose posterior is known, or training samples in memory, few enough to go through",
            got=given.name,
        )
    count = len(levels)
    x0, noise = (part.repeat(count, *(1,) * (part.ndim - 1)) for part in (draws.x0, draws.epsilon))
    log_snr = torch.tensor(levels.centers, dtype=torch.float64).repeat_interleave(samples)
    cond = repeated(denoiser.conditions_from(draws.cond), count)
    found, wanted = (part.reshape(best.shape) for part in predict(denoiser, x0, noise, log_snr, cond))
    grams = {name: one.numpy() for name, one in output_grams(denoiser, draws, levels, found, best).items()}
    compared = distortion(np.array(levels.centers), grams[OUTPUT], grams[BEST], grams[DATA])
    left = (wanted - best).square().mean((1, 2))
    known = left > _ROUNDING * wanted.square().mean((1, 2))
    error = torch.where(known, (found - best).square().mean((1, 2)) / left, torch.nan)
    table = pd.DataFrame(
        {
            "bucket": range(count),
            "log_snr": levels.centers,
            "output_rank": [_rank(one) for one in grams[OUTPUT]],
            "best_rank": [_rank(one) for one in grams[BEST]],
            "data_rank": _rank(grams[DATA]),
            "loss_over_best": error.tolist(),
        }
    )
    return Outputs(table, compared, source, samples)


def _rank(gram: np.ndarray) -> float:
    return effective_rank(eigenvalues(centred(gram)))
