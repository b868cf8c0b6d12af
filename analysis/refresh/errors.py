"""By how much does the sketch of a refresh move its score, beside another probe and another probe batch?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ntkdiag.cli.inputs.loading import LoadedModel
from ntkdiag.denoiser import Denoiser
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.train import TrainConfig
from ntkdiag.train import train as run_training
from ntkdiag.weights.refresh.kernel_probe import PROBED, SKETCH, probe_score


def errors(start: LoadedModel, config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per score and cause: root mean square change of the amplitudes over buckets, as a share of them.

    Of a network after `error_steps` steps with the preset. "sketch": the default against the exact kernel of the same
    batch and probe. "probe", "batch": exact kernels with other probes, or with other samples and noise, about their mean.
    """
    preset = TrainConfig.preset("digits", steps=config["error_steps"])
    run_training(start.denoiser, start.data, None, preset)
    denoiser, count = start.denoiser, config["error_draws"]
    batches = [PairedDraws.draw(start.data.train, config["error_samples"], seed) for seed in range(count)]
    rows = []
    for score in PROBED:
        exact = torch.stack([_score(denoiser, batch, score, seed=0, engine="streaming") for batch in batches])
        sketched = torch.stack([_score(denoiser, batch, score, seed=0) for batch in batches])
        probes = [_score(denoiser, batches[0], score, seed=seed, engine="streaming") for seed in range(count)]
        found = {
            "sketch": (sketched / exact - 1).square().mean().sqrt(),
            "probe": _spread(torch.stack(probes)),
            "batch": _spread(exact),
        }
        rows += [
            {"score": score, "cause": cause, "k": SKETCH, "change": float(change)}
            for cause, change in found.items()
        ]
    return rows


def _score(denoiser: Denoiser, batch: PairedDraws, score: str, **options: Any) -> Tensor:
    return probe_score(denoiser, batch, 10, score, **options)()[1]


def _spread(scores: Tensor) -> Tensor:
    """Standard deviation over draws as a share of the mean, root mean square over buckets."""
    return (scores.std(0) / scores.mean(0)).square().mean().sqrt()
