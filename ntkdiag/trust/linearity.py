"""`linearization`: how long the kernel of this moment describes training, step size by step size and step by step.

Training goes on for a few real steps on a copy. After each of them the network is compared with its linear model,
f(θ) + J Δθ, which is all that a kernel knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ntkdiag.data import Data, as_data
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.errors import require_number, require_positive_int
from ntkdiag.process.buckets import DEFAULT_COUNT, Buckets, BucketsLike
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.trust.kernel_comparison import KernelComparison, compare_kernels
from ntkdiag.trust.linear_model import LinearModel
from ntkdiag.trust.optimizers import OptimizerLike, Start, start_of
from ntkdiag.trust.real_steps import Weights, displacements, mean_gradient
from ntkdiag.trust.sizes import FRACTIONS, Sizes, sizes_named
from ntkdiag.trust.step_range import TOLERANCE, counted, step_range

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False, repr=False)
class Linearity:
    """How far the linear model of a network holds.

    Attributes:
        buckets: A row a bucket: bucket, log_snr; error, of one real step; largest_fraction, the largest of the fractions of
            the first real step up to which the error stays within the tolerance (0: none); good_steps, the largest number of
            real steps up to which it does (0: none), in every continuation; kernel, which kernel predicts the loss change
            better: "plain", "preconditioned", "cannot say", or "" where they were not compared.
        fractions: bucket, log_snr, fraction, error: the mean over continuations.
        steps: repeat, step, bucket, log_snr, error, true_change and predicted_change of the loss. An error is
            ‖f(θ + Δ) − f(θ) − J Δ‖ / ‖J Δ‖ over samples and outputs; NaN where J Δ is 0.
        comparison: Of the plain and the preconditioned kernel; None without a running Adam.
        optimizer: Which, and where its state is from.
        batch: Samples in a real step.
        sizes: Samples, continuations and steps.
        tolerance: See `buckets`.
        dtype: In which network and linear model were compared.
        method: How J u was computed.

    Example:
        >>> import pandas as pd
        >>> from ntkdiag.trust.sizes import sizes_named
        >>> buckets, empty = pd.DataFrame({"log_snr": [-4.0, 4.0], "good_steps": [8, 2]}), pd.DataFrame()
        >>> how = {"optimizer": "SGD", "batch": 32, "sizes": sizes_named("quick"), "tolerance": 0.1, "dtype": "float32"}
        >>> nd.trust.Linearity(buckets, empty, empty, None, method="forward mode", **how).good_steps
        2
    """

    buckets: pd.DataFrame
    fractions: pd.DataFrame
    steps: pd.DataFrame
    comparison: KernelComparison | None
    optimizer: str
    batch: int
    sizes: Sizes
    tolerance: float
    dtype: str
    method: str

    def __repr__(self) -> str:
        return f"Linearity(buckets={len(self.buckets)}, optimizer={self.optimizer!r})"

    @property
    def good_steps(self) -> int:
        """Real steps that the kernel describes in every bucket."""
        return int(self.buckets["good_steps"].min())

    @property
    def text(self) -> str:
        """What the numbers say, in plain sentences."""
        return " ".join([self.step_range, self._said_of_size(), *self._said_of_kernels()])

    @property
    def step_range(self) -> str:
        """How many of the next steps the kernel describes, in a sentence."""
        return step_range(self.buckets, self.sizes.steps, self.optimizer, self.batch, self.tolerance)

    def _said_of_size(self) -> str:
        fraction = float(self.buckets["largest_fraction"].min())
        if fraction == 0:
            return f"A step of {min(FRACTIONS):g} of the real size is already too large somewhere."
        if fraction == 1:
            return "The first real step is small enough everywhere."
        return f"A step of {fraction:g} of the real size is small enough everywhere."

    def _said_of_kernels(self) -> list[str]:
        found = self.comparison
        if found is None:
            return []
        counts = pd.Series(found.better).value_counts()
        wins = ", ".join(f"{name} in {count}" for name, count in counts.items())
        by_level = (
            f"better by noise level: {wins} of {len(found.better)}."
            if self.sizes.repeats > 1
            else "which is better at a noise level takes several continuations, as at level standard."
        )
        return [
            f"Over {counted(self.sizes.steps)} the loss changes follow the preconditioned kernel to "
            f"{found.preconditioned_explained:.0%} and the plain kernel to {found.plain_explained:.0%}; "
            + by_level
        ]


def linearization(
    denoiser: Denoiser,
    data: DataLike,
    optimizer: OptimizerLike = "adamw",
    *,
    buckets: BucketsLike = DEFAULT_COUNT,
    level: str = "standard",
    samples: int | None = None,
    repeats: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    learning_rate: float = 1e-3,
    batch: int | None = None,
    weights: Weights | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> Linearity:
    """Compare the kernel of this moment with the training steps that follow it.

    Args:
        denoiser: The network; it is not changed. With a training folder as `optimizer`, its weights are those of the last
            checkpoint instead.
        data: What training goes on with, and what the network is evaluated on; as in `measure`.
        optimizer: The optimizer of this network's parameters with its state, or several that share them; the folder of a run
            of `nd.train.train`, for the weights and AdamW's state of its last checkpoint; or a fresh "sgd", "adamw" or
            "muon" (with AdamW for what is no matrix), whose first steps are taken.
        buckets: As in `measure`.
        level: "quick", "standard" or "thorough": sizes, where they are not given.
        samples: N of every bucket.
        repeats: How often training goes on from here, with batches of its own each time.
        steps: How many real steps each time.
        seed: Of samples, noise and batches.
        learning_rate: Of a fresh optimizer.
        batch: Samples in a real step; None for the run's, or 128.
        weights: Loss weights of training, from log-SNR; None for 1.
        tolerance: Largest relative error that counts as right, above 0.
        progress: Called with (description of the work, steps done, steps in total).

    Returns:
        `Linearity`.

    Raises:
        InputError: an optimizer of another network, a folder without a fitting checkpoint, sizes out of range.
        MeasurementError: the real steps diverge, or no method for J u agrees with plain autograd.

    Example:
        >>> found = nd.trust.linearization(denoiser, data, "sgd", buckets=3, level="quick", learning_rate=1e-4)
        >>> sorted(found.steps["step"].unique().tolist())
        [1, 2, 4, 8]
        >>> bool((found.buckets["error"] < 0.1).all())
        True
    """
    require_denoiser("network", denoiser)
    require_number("tolerance", tolerance, above=0)
    require_number("learning_rate", learning_rate, above=0)
    given, base = as_data(data), sizes_named(level)
    chosen = Sizes(
        min(base.samples, len(given.train)) if samples is None else require_positive_int("samples", samples),
        base.repeats if repeats is None else require_positive_int("repeats", repeats),
        base.steps if steps is None else require_positive_int("steps", steps),
        base.gradients,
    )
    if batch is not None:
        require_positive_int("batch", batch)
    levels = Buckets.of(buckets, denoiser.schedule, extrapolate=False)
    start = start_of(denoiser, optimizer, learning_rate=learning_rate, batch=batch)
    draws = PairedDraws.draw(given.train, chosen.samples, seed, cond=given.conditions)
    model = LinearModel(start.denoiser, draws, levels)
    report = progress or (lambda stage, done, total: None)
    rows, sizes_ = _along(start, model, given, levels, weights, chosen, seed, report)
    compared = _compared(start, model, given, weights, chosen, seed, rows)
    fractions = pd.DataFrame(sizes_.groupby(["bucket", "log_snr", "fraction"])["error"].mean()).reset_index()
    return Linearity(
        _bucket_table(levels, fractions, rows, compared, tolerance),
        fractions,
        rows,
        compared,
        start.name,
        start.batch,
        chosen,
        tolerance,
        str(model.dtype).removeprefix("torch."),
        model.method,
    )


def _along(
    start: Start,
    model: LinearModel,
    data: Data,
    levels: Buckets,
    weights: Weights | None,
    sizes: Sizes,
    seed: int,
    report: Progress,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors after real steps, and at fractions of the first step."""
    before = model.losses(model.outputs)
    along, first = [], []
    for repeat in range(sizes.repeats):
        for done, moved in enumerate(displacements(start, data, weights, sizes.steps, seed, repeat), 1):
            report("real steps", repeat * sizes.steps + done, sizes.repeats * sizes.steps)
            if done not in sizes.grid:
                continue
            step = dict(zip(model.names, moved, strict=True))
            pushed, now = model.push(step), model.network(step)
            change = {
                "error": relative_error(now - model.outputs, pushed),
                "true_change": model.losses(now) - before,
                "predicted_change": model.losses(model.outputs + pushed) - before,
            }
            along += _rows(levels, change, repeat=repeat, step=done)
            if done == 1:
                for fraction in FRACTIONS:
                    part = now if fraction == 1 else model.network(step, fraction)
                    error = relative_error(part - model.outputs, fraction * pushed)
                    first += _rows(levels, {"error": error}, fraction=fraction)
    return pd.DataFrame(along), pd.DataFrame(first)


def relative_error(true: Tensor, linear: Tensor) -> Tensor:
    """‖true − linear‖ / ‖linear‖ over samples and outputs, [B, N, D] → [B]; NaN where the linear change is 0."""
    size = linear.flatten(1).norm(dim=1)
    return torch.where(size > 0, (true - linear).flatten(1).norm(dim=1) / size, torch.nan)


def _rows(levels: Buckets, values: dict[str, Tensor], **fixed: float) -> list[dict[str, float]]:
    columns = {name: value.double().tolist() for name, value in values.items()}
    return [
        {**fixed, "bucket": bucket, "log_snr": center, **{name: one[bucket] for name, one in columns.items()}}
        for bucket, center in enumerate(levels.centers)
    ]


def _compared(
    start: Start,
    model: LinearModel,
    data: Data,
    weights: Weights | None,
    sizes: Sizes,
    seed: int,
    rows: pd.DataFrame,
) -> KernelComparison | None:
    """The plain and the preconditioned kernel beside the loss changes of the last real step."""
    scale = start.preconditioner
    if scale is None:
        return None
    gradient = dict(zip(model.names, mean_gradient(start, data, weights, sizes.gradients, seed), strict=True))
    residual = model.outputs - model.wanted
    plain, preconditioned = (
        (2 * residual * model.push(direction)).mean((1, 2)).double().cpu().numpy()
        for direction in (
            {name: -part for name, part in gradient.items()},
            {name: -part / scale[name] for name, part in gradient.items()},
        )
    )
    last = rows[rows["step"] == sizes.steps]
    true = last.pivot(index="repeat", columns="bucket", values="true_change").to_numpy()
    return compare_kernels(true, plain, preconditioned)


def _bucket_table(
    levels: Buckets,
    fractions: pd.DataFrame,
    rows: pd.DataFrame,
    compared: KernelComparison | None,
    tolerance: float,
) -> pd.DataFrame:
    worst = rows.groupby(["bucket", "step"])["error"].max()
    table = []
    for bucket, center in enumerate(levels.centers):
        own = fractions[fractions["bucket"] == bucket].sort_values("fraction")
        table.append(
            {
                "bucket": bucket,
                "log_snr": center,
                "error": float(own["error"].iloc[-1]),
                "largest_fraction": float(_last_good(own["fraction"], own["error"], tolerance)),
                "good_steps": int(_last_good(worst[bucket].index, worst[bucket], tolerance)),
                "kernel": "" if compared is None else compared.better[bucket],
            }
        )
    return pd.DataFrame(table)


def _last_good(places: object, errors: object, tolerance: float) -> float:
    """The last place up to which all errors are within the tolerance; 0 for none. A change of 0 is predicted rightly."""
    found = 0.0
    for place, error in zip(np.asarray(places), np.asarray(errors), strict=True):
        if error > tolerance:
            break
        found = float(place)
    return found
