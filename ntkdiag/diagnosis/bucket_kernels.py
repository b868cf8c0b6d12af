"""Kernels, predictions and residuals of one network in all buckets: everything that is computed on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ntkdiag.conditions import Conditions, repeated, rows_of
from ntkdiag.denoiser import Denoiser
from ntkdiag.kernel import CheckOnce, Gram, gram, gram_of
from ntkdiag.kernel.gram import within_denoiser
from ntkdiag.modes import evaluating
from ntkdiag.process.buckets import Buckets, PairedDraws
from ntkdiag.process.log_snr import level_like

# (what is being done, done so far, total)
Progress = Callable[[str, int, int], None]

# Samples in one forward without gradients; tuned here to keep activations small.
FORWARD_BATCH = 512
# Samples of all buckets whose trace kernel is taken at once, 128 MiB for each probe. Beyond, each bucket has its own.
MOST_TOGETHER = 4096


@dataclass(frozen=True)
class Kernels:
    """Kernels and residuals of B buckets × N samples, bucket-major.

    Attributes:
        trace: The trace kernel of each bucket, B of them.
        cross: Sums of the trace kernel over pairs of samples of two buckets, [B, B] float64; of the first few samples of
            each bucket where all would be too many.
        residual: The residual kernel over all B·N samples.
        predictions: The network's outputs [B, N, D] float64.
        wanted: The targets [B, N, D] float64.
    """

    trace: list[Gram]
    cross: Tensor
    residual: Gram
    predictions: Tensor
    wanted: Tensor

    @property
    def losses(self) -> Tensor:
        """Mean squared error of each sample, [B, N]."""
        return (self.predictions - self.wanted).square().mean(2)


def measure_kernels(
    denoiser: Denoiser,
    draws: PairedDraws,
    buckets: Buckets,
    *,
    probes: int,
    probe_seed: int,
    engine: str,
    params: str | Sequence[str] | None,
    memory: int | None,
    progress: Progress,
    name: str,
    check: bool | CheckOnce,
    sketch: int,
) -> Kernels:
    """All kernels of one network; see `measure` for the arguments."""
    count, samples = buckets.count, len(draws)
    x0, epsilon = draws.x0.repeat(count, *_ones(draws.x0)), draws.epsilon.repeat(count, *_ones(draws.x0))
    cond = repeated(denoiser.conditions_from(draws.cond), count)
    log_snr = torch.tensor(buckets.centers, dtype=torch.float64).repeat_interleave(samples)
    stage = f"kernels of the {name} network"
    parts = 1 if count * samples <= MOST_TOGETHER else count + 1
    progress(stage, 0, 2 + parts)
    predictions, wanted = predict(denoiser, x0, epsilon, log_snr, cond)
    progress(stage, 1, 2 + parts)
    shared: dict[str, Any] = {
        "engine": engine, "params": params, "epsilon": epsilon, "memory": memory, "seed": probe_seed,
        "check": check, "sketch": sketch, "cond": cond or None,
    }  # fmt: skip
    residual = gram(denoiser, x0, log_snr, kernel="residual", **shared)
    progress(stage, 2, 2 + parts)

    def trace_of(chosen: Tensor) -> Gram:
        """The trace kernel of the samples at these positions among B·N."""
        own = shared | {"epsilon": epsilon[chosen], "cond": rows_of(cond, chosen) or None}
        return gram(denoiser, x0[chosen], log_snr[chosen], kernel="trace", probes=probes, **own)

    positions = torch.arange(count * samples).reshape(count, samples)
    if parts == 1:
        together = trace_of(positions.flatten())
        traces = [_block(together, each) for each in positions]
    else:
        together = trace_of(positions[:, : MOST_TOGETHER // count].flatten())
        traces = []
        for bucket, each in enumerate(positions):
            progress(stage, 3 + bucket, 2 + parts)
            traces.append(trace_of(each))
    progress(stage, 2 + parts, 2 + parts)
    cross = together.matrix.reshape(count, -1, count, len(together.matrix) // count).sum((1, 3))
    return Kernels(
        traces, cross, residual, predictions.reshape(count, samples, -1), wanted.reshape(count, samples, -1)
    )


def _block(whole: Gram, positions: Tensor) -> Gram:
    """The kernel of some of the samples, which follow each other."""
    part = slice(int(positions[0]), int(positions[-1]) + 1)
    return replace(
        whole,
        matrix=whole.matrix[part, part],
        stderr=None if whole.stderr is None else whole.stderr[part, part],
        per_probe=None if whole.per_probe is None else whole.per_probe[:, part, part],
        log_snr=whole.log_snr[part],
    )


def gradient_energy(
    denoiser: Denoiser,
    draws: PairedDraws,
    buckets: Buckets,
    cotangents: Tensor,
    *,
    engine: str,
    params: str | Sequence[str] | None,
    memory: int | None,
    check: bool | CheckOnce,
    sketch: int,
    seed: int,
) -> Tensor:
    """‖J_iᵀ v_i / D‖² for a cotangent a sample, normalised as the diagonal of the residual kernel.

    Args:
        denoiser, draws, buckets, engine, params, memory, check, sketch: As in `measure_kernels`.
        cotangents: v, [B, N, D].
        seed: Of the sketches.

    Returns:
        [B, N].
    """
    place = next(denoiser.parameters())
    cond = denoiser.conditions_from(draws.cond)
    energies = []
    for log_snr, rows in zip(buckets.centers, cotangents, strict=True):
        x = draws.at(denoiser.schedule, log_snr).to(place)
        level = level_like(log_snr, place).expand(len(x))
        scaled = (rows / rows.shape[1]).reshape(1, *x.shape).to(place)
        found = gram_of(
            denoiser,
            denoiser.inputs(x, level, cond or None),
            scaled,
            params=within_denoiser(params),
            engine=engine,
            memory=memory,
            check=check,
            sketch=sketch,
            seed=seed,
        )
        energies.append(found[0].diagonal())
    return torch.stack(energies)


def predict(
    denoiser: Denoiser, x0: Tensor, epsilon: Tensor, log_snr: Tensor, cond: Conditions
) -> tuple[Tensor, Tensor]:
    """Predictions and targets in float64 on the CPU, flattened to [B·N, D]."""
    predictions, wanted = [], []
    with evaluating(denoiser) as parameter:
        for part in torch.arange(len(x0)).split(FORWARD_BATCH):
            clean, noise = x0[part].to(parameter), epsilon[part].to(parameter)
            level = level_like(log_snr[part], parameter)
            x, y = denoiser.training_pair(clean, noise, level)
            predictions.append(denoiser(x, level, rows_of(cond, part) or None).flatten(1).double().cpu())
            wanted.append(y.flatten(1).double().cpu())
    return torch.cat(predictions), torch.cat(wanted)


def _ones(tensor: Tensor) -> tuple[int, ...]:
    return (1,) * (tensor.ndim - 1)
