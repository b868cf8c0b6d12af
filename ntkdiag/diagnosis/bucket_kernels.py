"""Kernels, predictions and residuals of one network in all buckets: everything that is computed on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ntkdiag.conditions import Conditions, repeated, rows_of
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis.steps import DIRECTION, FORWARD, PROBE, Steps
from ntkdiag.distributed import Processes, Share
from ntkdiag.kernel import CheckOnce, Gram, gram, gram_of
from ntkdiag.kernel.gram import within_denoiser
from ntkdiag.modes import evaluating
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.log_snr import level_like
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.provenance import KeyedParts

# Samples in one forward without gradients; tuned here to keep activations small.
FORWARD_BATCH = 512
# By how much predictions may differ from those of an interrupted run, relative to their norm: rounding of bfloat16.
SAME_NETWORK = 1e-2
# Samples of all buckets whose trace kernel is taken at once, 128 MiB for each probe. Beyond, each bucket has its own.
MOST_TOGETHER = 4096
# Floating point operations of the trace kernels of a network, some ten seconds of a core, beyond which each bucket has its
# own too: an interruption then loses one bucket at most, and no products between buckets are formed that nobody needs.
MOST_AT_ONCE = 1e12
# Beyond, one of so many samples of each bucket is taken for the kernel between buckets, and at least two.
_ONE_OF = 8


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
    steps: Steps,
    name: str,
    check: bool | CheckOnce,
    sketch: int,
    most_together: int = MOST_TOGETHER,
    processes: Processes | None = None,
    parts: KeyedParts | None = None,
) -> Kernels:
    """All kernels of one network; see `measure` for the arguments.

    Args:
        most_together: See `samples_together`.
        processes: They share the samples; None for this one alone.
        parts: Finished ones are taken from an interrupted run.
    """
    kept = parts or KeyedParts()
    count, samples = buckets.count, len(draws)
    x0, epsilon = draws.x0.repeat(count, *_ones(draws.x0)), draws.epsilon.repeat(count, *_ones(draws.x0))
    cond = repeated(denoiser.conditions_from(draws.cond), count)
    log_snr = torch.tensor(buckets.centers, dtype=torch.float64).repeat_interleave(samples)
    of_network, rows = f"of the {name} network", count * samples
    positions = torch.arange(count * samples).reshape(count, samples)

    def predicted(chosen: Tensor, batches: int = 1) -> dict[str, Any]:
        values, targets = predict(
            denoiser, x0[chosen], epsilon[chosen], log_snr[chosen], rows_of(cond, chosen), batches
        )
        return {"predictions": values, "wanted": targets}

    def all_predicted() -> dict[str, Any]:
        if processes is None:
            return predicted(positions.flatten())
        share = Share(processes, rows)
        batches = -(-share.largest // FORWARD_BATCH)  # as many in each, which may hold the network together
        found = predicted(positions.flatten()[share.ran], batches)
        return {name: share.of_every(each) for name, each in found.items()}

    def same_network(stored: dict[str, Any]) -> bool:
        """Whether the network still predicts what it did: weights say nothing of the code that uses them."""
        some = positions[:, 0]
        return all(
            bool((now - stored[each][some]).norm() <= SAME_NETWORK * now.norm())
            for each, now in predicted(some).items()
        )

    outputs = steps.take(
        f"predictions {of_network}", rows * FORWARD, kept, "predictions", all_predicted, same_network
    )
    shared: dict[str, Any] = {
        "engine": engine, "params": params, "epsilon": epsilon, "memory": memory, "seed": probe_seed,
        "check": check, "sketch": sketch, "cond": cond or None,
        "distributed": processes is not None,
    }  # fmt: skip

    def of_residual() -> dict[str, Any]:
        return vars(gram(denoiser, x0, log_snr, kernel="residual", **shared))

    residual = Gram(**steps.take(f"gradients {of_network}", rows * DIRECTION, kept, "residual", of_residual))

    def trace_of(chosen: Tensor) -> dict[str, Any]:
        """Fields of the trace kernel of the samples at these positions among B·N."""
        own = shared | {"epsilon": epsilon[chosen], "cond": rows_of(cond, chosen) or None}
        return vars(gram(denoiser, x0[chosen], log_snr[chosen], kernel="trace", probes=probes, **own))

    def together(chosen: Tensor) -> tuple[Gram, Tensor]:
        whole = Gram(**trace_of(chosen))
        return whole, whole.matrix.reshape(count, -1, count, len(whole.matrix) // count).sum((1, 3))

    def of_all() -> dict[str, Any]:
        whole, cross = together(positions.flatten())
        return {"cross": cross, "traces": [vars(_block(whole, each)) for each in positions]}

    stage = f"kernels {of_network}"
    if rows <= most_together:
        found = steps.take(stage, rows * probes * PROBE, kept, "trace", of_all)
        cross, traces = found["cross"], [Gram(**each) for each in found["traces"]]
    else:
        traces = []
        for bucket, each in enumerate(positions):
            place = f"{stage}, noise level {bucket + 1} of {count}"
            traces.append(
                Gram(
                    **steps.take(
                        place, samples * probes * PROBE, kept, f"trace {bucket}", partial(trace_of, each)
                    )
                )
            )
        some = positions[:, : max(1, most_together // count)].flatten()
        cross = steps.take(
            f"{stage}, between noise levels",
            len(some) * probes * PROBE,
            kept,
            "cross",
            lambda: {"cross": together(some)[1]},
        )["cross"]
    shape = (count, samples, -1)
    return Kernels(
        traces, cross, residual, outputs["predictions"].reshape(shape), outputs["wanted"].reshape(shape)
    )


def samples_together(buckets: int, samples: int, probes: int, operations: int) -> int:
    """Most samples of all buckets whose trace kernel is taken at once.

    Args:
        buckets, samples, probes: B, N and R.
        operations: Floating point operations of the forward of one sample; 0 if they are not known.

    Returns:
        `MOST_TOGETHER`; of a large network that of two or more samples a bucket.
    """
    if 2 * buckets * samples * probes * operations <= MOST_AT_ONCE:  # a backward is about two forwards
        return MOST_TOGETHER
    return min(MOST_TOGETHER, buckets * max(2, samples // _ONE_OF))


def work_of_kernels(buckets: int, samples: int, probes: int, most_together: int) -> int:
    """What `measure_kernels` counts for one network, see `Steps`."""
    rows = buckets * samples
    between = 0 if rows <= most_together else buckets * max(1, most_together // buckets) * probes * PROBE
    return rows * (FORWARD + DIRECTION + probes * PROBE) + between


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
    processes: Processes | None = None,
) -> Tensor:
    """‖J_iᵀ v_i / D‖² for a cotangent a sample, normalised as the diagonal of the residual kernel.

    Args:
        denoiser, draws, buckets, engine, params, memory, check, sketch, processes: As in `measure_kernels`.
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
            distributed=processes is not None,
        )
        energies.append(found[0].diagonal())
    return torch.stack(energies)


def predict(
    denoiser: Denoiser, x0: Tensor, epsilon: Tensor, log_snr: Tensor, cond: Conditions, batches: int = 1
) -> tuple[Tensor, Tensor]:
    """Predictions and targets in float64 on the CPU, flattened to [B·N, D], by at least so many forwards."""
    predictions, wanted = [], []
    size = min(FORWARD_BATCH, -(-len(x0) // batches))
    with evaluating(denoiser) as parameter:
        for part in torch.arange(len(x0)).split(size):
            clean, noise = x0[part].to(parameter), epsilon[part].to(parameter)
            level = level_like(log_snr[part], parameter)
            x, y = denoiser.training_pair(clean, noise, level)
            predictions.append(denoiser(x, level, rows_of(cond, part) or None).flatten(1).double().cpu())
            wanted.append(y.flatten(1).double().cpu())
    return torch.cat(predictions), torch.cat(wanted)


def _ones(tensor: Tensor) -> tuple[int, ...]:
    return (1,) * (tensor.ndim - 1)
