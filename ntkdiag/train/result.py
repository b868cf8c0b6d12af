"""What training gives back: the averaged network, the history, and where the run stands."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ntkdiag.denoiser import Denoiser
from ntkdiag.process.buckets import Buckets
from ntkdiag.train.config import TrainConfig


@dataclass(frozen=True)
class TrainResult:
    """The result of training.

    Attributes:
        denoiser: A copy of the denoiser with the moving average of its weights, and with its buffers as they are at the end:
            sample from this one and measure it.
        history: A row for every `log_every` steps, with means since the previous row: step, loss (unweighted),
            weighted_loss, grad_norm (before clipping), align_loss (of a run that aligns features; part of no other
            loss), loss_bucket_0 ... (unweighted; NaN if no sample was in that bucket), weight_bucket_0 ... (the weight in
            force at the centre of each; not for constant weights), seconds (spent in training since its start).
        buckets: The buckets of the history's columns.
        config: The settings.
        step: Number of steps done.

    Example:
        >>> config = nd.train.TrainConfig(steps=4, batch=8, log_every=2)
        >>> start = nd.Denoiser(nd.models.build("mlp", (2,), width=8), nd.schedules.cosine(), "v", call="log_snr")
        >>> result = nd.train.train(start, data, None, config)
        >>> result.step, len(result.history)
        (4, 2)
    """

    denoiser: Denoiser
    history: pd.DataFrame
    buckets: Buckets
    config: TrainConfig
    step: int
