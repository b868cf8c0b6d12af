"""Effective rank against N, to thousands of samples, in each bucket of log-SNR: kernels that only a sketch can afford."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import ntkdiag as nd
from analysis.sketch.cost import processor_seconds
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.spectra import effective_rank, participation_ratio, participation_ratio_pairs


def images(source: str) -> nd.Data:
    """The digits, or the training images of a folder of idx files, as MNIST comes."""
    if source == "digits":
        return nd.data.load("digits")
    if not Path(source).exists():
        raise SystemExit(f"no {source}: Debian's package dataset-fashion-mnist lays Fashion-MNIST there")
    return nd.data.as_data(source)


def ranks(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per bucket and N of a DiT: ranks of the kernel of the first N of the samples.

    The network is trained for `steps` steps on the preset of digits. Draws are paired: the same images and noise in every
    bucket.
    """
    data, network = images(config["data"]), config["network"]
    module = nd.models.build("dit", data.shape, seed=0, **network)
    denoiser = nd.Denoiser(module, nd.schedules.cosine(), "v")
    nd.train.train(denoiser, data, None, nd.train.TrainConfig.preset("digits", steps=config["steps"]))
    draws = PairedDraws.draw(data.train, min(config["samples"], len(data.train)), 0)
    buckets = nd.Buckets.of(config["buckets"], denoiser.schedule)
    rows = []
    check = nd.kernel.CheckOnce()
    for level in buckets.centers:
        found: list[nd.Gram] = []

        def measure(level: float = level, found: list[nd.Gram] = found) -> None:
            options: dict[str, Any] = {"epsilon": draws.epsilon, "probes": config["probes"], "check": check}
            found.append(nd.gram(denoiser, draws.x0, level, engine="sketch", sketch=config["k"], **options))

        seconds = processor_seconds(measure)
        gram = found[0]
        assert gram.per_probe is not None
        for count in [*(n for n in config["curve"] if n < len(draws)), len(draws)]:
            matrix, probes = gram.matrix[:count, :count], gram.per_probe[:, :count, :count]
            rows.append(
                {
                    "log_snr": level,
                    "N": count,
                    "effective_rank": float(effective_rank(matrix)),
                    "participation_ratio": float(participation_ratio(matrix)),
                    "participation_ratio_pairs": float(participation_ratio_pairs(matrix, per_probe=probes)),
                    "processor_seconds_of_all": seconds,
                }
            )
        print(f"log-SNR {level:6.2f}: {seconds:.1f} s for {len(draws)} samples", flush=True)
    torch.manual_seed(0)
    return rows
