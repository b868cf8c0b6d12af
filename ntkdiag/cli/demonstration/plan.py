"""How large the demo is, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.train import BucketValues, TrainResult
    from ntkdiag.weights import WeightTable

RUNS = ("constant", "erd")


@dataclass(frozen=True)
class Plan:
    """How large everything is.

    Attributes:
        network: Options of the DiT.
        steps, batch: Of each of the two training runs.
        buckets, samples, probes: Of the measurement, over log-SNR -10 to 10.
        generated: Samples drawn from each network.
        sampler_steps: Of Heun's method.
    """

    network: dict[str, int]
    steps: int
    batch: int
    buckets: int
    samples: int
    probes: int
    generated: int
    sampler_steps: int


FULL = Plan({"width": 48, "depth": 3}, 1500, 128, 10, 64, 8, 512, 24)
QUICK = Plan({"width": 16, "depth": 1, "heads": 2, "frequencies": 8}, 30, 32, 5, 12, 3, 24, 4)


@dataclass(frozen=True)
class Outcome:
    """What the demo found, before it is written.

    Attributes:
        diagnosis: The network trained with constant weights, beside the same network before training.
        table: The ERD weights.
        results: Of each run.
        losses: Held-out losses of each run, on the same draws.
        samples: Real data and samples of each run, from the same noise; arrays.
        quality: run, metric, value, low, high.
        verdicts: A row a claim.
    """

    diagnosis: Diagnosis
    table: WeightTable
    results: dict[str, TrainResult]
    losses: dict[str, BucketValues]
    samples: dict[str, Any]
    quality: pd.DataFrame
    verdicts: pd.DataFrame
