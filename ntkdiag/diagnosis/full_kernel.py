"""The full kernel of each bucket from products alone: top eigenfunctions, moments, density, alignment with the target.

Every output of every sample is one row of the full kernel; the trace kernel sums over outputs. Eigenvalues are those of
Θ/(N·D), so that their sum is the trace of the trace kernel K/N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis.steps import Steps
from ntkdiag.distributed import Processes
from ntkdiag.errors import InputError
from ntkdiag.kernel.operator import NTKOperator
from ntkdiag.modes import evaluating
from ntkdiag.process.bayes.principal import Principal
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.provenance import KeyedParts
from ntkdiag.spectra.operators.block_lanczos import TopEigenpairs, top_eigenpairs
from ntkdiag.spectra.operators.product import Apply
from ntkdiag.spectra.operators.quadrature import density, entropy_effective_rank, lanczos_quadrature
from ntkdiag.spectra.operators.signal import signal_spectrum
from ntkdiag.spectra.operators.stochastic_trace import trace_estimates

# Share of the data's variance that its leading covariance modes must hold to count as "the data's modes".
DATA_MODES = 0.9
# Points of contraction curves, in units of 1/e_1, and of densities.
TIMES = np.logspace(-2, 6, 81)
GRID_POINTS = 121


@dataclass(frozen=True)
class FullSettings:
    """How accurately, and at what cost, the full kernel of each bucket is measured.

    Attributes:
        top_k: Number of eigenpairs.
        tolerance: Largest residual of an eigenpair, relative to the top eigenvalue.
        trace_vectors: Number of random vectors in each half of Hutch++.
        quadrature_vectors: Number of random vectors of Lanczos quadrature; 0 omits density and effective rank.
        quadrature_steps: Lanczos steps from each of them.
        contraction_steps: Lanczos steps from the residual.
        chunk: Number of samples whose autograd graph is in memory at a time; None keeps a whole bucket.

    Example:
        >>> FullSettings(top_k=8).quadrature_vectors
        6
    """

    top_k: int = 16
    tolerance: float = 1e-4
    trace_vectors: int = 16
    quadrature_vectors: int = 6
    quadrature_steps: int = 30
    contraction_steps: int = 40
    chunk: int | None = None


@dataclass
class FullKernel:
    """Result of `measure_full`; every table has a `bucket` and a `log_snr` column.

    Attributes:
        summary: trace, participation_ratio, stable_rank, effective_rank, the first two and the last with _low and _high
            (90%); products, method.
        spectra: index, eigenvalue, residual (an eigenvalue lies within it), target_alignment and residual_alignment
            ((u·y)²/‖y‖² and the same for the residual), data_share (energy of the eigenfunction in the data's leading
            covariance modes).
        density: log_eigenvalue, density (eigenvalues per unit ln e), low, high; empty without quadrature.
        contraction: time (gradient flow, in 1/e), low and high (bounds on the share of the residual's energy that is left;
            exact where they are equal).
        eigenfunctions: [B, top_k, N, *shape], unit norm over (N, *shape).

    Example:
        >>> settings = nd.FullSettings(top_k=2, trace_vectors=3, quadrature_vectors=2)
        >>> full = nd.measure(denoiser, data, 2, samples=4, full=settings).full
        >>> full.eigenfunctions.shape  # two buckets, two eigenfunctions, four samples in the plane
        torch.Size([2, 2, 4, 2])
    """

    summary: pd.DataFrame
    spectra: pd.DataFrame
    density: pd.DataFrame
    contraction: pd.DataFrame
    eigenfunctions: Tensor


def measure_full(
    denoiser: Denoiser,
    data: Tensor,
    draws: PairedDraws,
    buckets: Buckets,
    settings: FullSettings | None = None,
    *,
    seed: int = 0,
    steps: Steps | None = None,
    name: str = "given",
    parts: KeyedParts | None = None,
    processes: Processes | None = None,
) -> FullKernel:
    """Measure the full kernel of each bucket without forming the matrix.

    Args:
        denoiser: The network.
        data: Training samples [M, *shape], whose covariance modes eigenfunctions are compared with.
        draws: Paired draws, shared by all buckets.
        buckets: Log-SNR buckets, measured at their centres.
        settings: Accuracy and cost.
        seed: Seed of all random vectors.
        steps: Counts the work, `work_of_full` for each bucket.
        name: Name of the network in progress messages.
        parts: Finished buckets are kept there, and taken from there.
        processes: They share the buckets, of which each has one at a time; None for this one alone.

    Returns:
        `FullKernel`.

    Raises:
        InputError: more eigenpairs than the kernel has rows.
    """
    chosen = settings or FullSettings()
    rows_ = draws.x0.numel()
    if chosen.top_k > rows_:
        raise InputError("top_k", expected=f"at most the {rows_} rows of the kernel", got=chosen.top_k)
    modes = Principal.of_points(data).leading(DATA_MODES)
    kept = parts or KeyedParts()
    count = steps or Steps(lambda what, done, total: None, 0)
    work, found = work_of_full(chosen, len(draws)), []

    def one_of(bucket: int) -> dict[str, Any]:
        return _bucket(denoiser, draws, modes, buckets.centers[bucket], chosen, seed)

    make = one_of if processes is None else _shared_out(one_of, buckets.count, processes)
    for b, log_snr in enumerate(buckets.centers):
        what = f"full kernel of the {name} network, noise level {b + 1} of {buckets.count}"
        one = count.take(what, work, kept, f"full {b}", partial(make, b))
        found.append(one | {"place": {"bucket": b, "log_snr": log_snr}})
    return FullKernel(
        summary=pd.DataFrame([one["place"] | one["summary"] for one in found]),
        spectra=_joined(found, "spectra"),
        density=_joined(found, "density"),
        contraction=_joined(found, "contraction"),
        eigenfunctions=torch.stack([one["eigenfunctions"] for one in found]),
    )


def _shared_out(
    one_of: Callable[[int], dict[str, Any]], count: int, processes: Processes
) -> Callable[[int], dict[str, Any]]:
    """What is measured of a bucket; when all ask for one, each process measures another, and tells the others."""
    ready: dict[int, dict[str, Any]] = {}

    def make(bucket: int) -> dict[str, Any]:
        if bucket not in ready:
            own = bucket + processes.rank
            with processes.in_step():
                measured = one_of(own) if own < count else {}
            ready.update(enumerate(processes.each_says("full kernels", measured), bucket))
        return ready.pop(bucket)

    return make


def work_of_full(settings: FullSettings, samples: int) -> int:
    """About what the full kernel of a bucket counts, see `Steps`: a product costs some three forwards a sample."""
    products = 3 * settings.trace_vectors + settings.contraction_steps + 8 * settings.top_k
    products += settings.quadrature_vectors * settings.quadrature_steps
    return 3 * products * samples


def _joined(found: list[dict[str, Any]], name: str) -> pd.DataFrame:
    """One table of all buckets that have it; without rows, as a density is without quadrature, where none has."""
    parts = [pd.DataFrame(one[name]).assign(**one["place"]) for one in found if one[name] is not None]
    if parts:
        return pd.concat(parts, ignore_index=True)
    return pd.DataFrame(columns=["bucket", "log_snr", "log_eigenvalue", "density", "low", "high"])


def _bucket(
    denoiser: Denoiser,
    draws: PairedDraws,
    modes: Tensor,
    log_snr: float,
    settings: FullSettings,
    seed: int,
) -> dict[str, Any]:
    """What is measured of one bucket in plain values: the row of the summary, columns of the tables, the eigenfunctions."""
    x = draws.at(denoiser.schedule, log_snr)
    cond = denoiser.conditions_from(draws.cond) or None
    operator = NTKOperator(denoiser, x, log_snr, cond=cond, chunk=settings.chunk)
    size = operator.shape[0]

    def apply(vectors: Tensor) -> Tensor:
        return operator.apply(vectors) / size

    top = top_eigenpairs(apply, operator.like, size, settings.top_k, tolerance=settings.tolerance, seed=seed)
    row, curve, products = _moments(apply, operator, top, settings, seed)
    wanted, residual = _signals(denoiser, draws, x, log_snr)
    peak = float(top.values[0])
    shrinking, spent = _contraction(apply, residual.to(operator.like), settings.contraction_steps, peak)
    spectra = _spectra(top, wanted, residual, modes, len(draws))
    return {
        "summary": row | {"products": products + spent, "method": operator.method},
        "spectra": spectra.to_dict("list"),
        "density": None if curve is None else curve.to_dict("list"),
        "contraction": shrinking.to_dict("list"),
        "eigenfunctions": top.vectors.T.reshape(settings.top_k, *draws.x0.shape).float().cpu(),
    }


def _moments(
    apply: Apply, operator: NTKOperator, top: TopEigenpairs, settings: FullSettings, seed: int
) -> tuple[dict[str, object], pd.DataFrame | None, int]:
    """Columns of the summary, the density (None without quadrature), and the number of products, those of `top` included."""
    size, like = operator.shape[0], operator.like
    traces = trace_estimates(apply, like, size, settings.trace_vectors, seed=seed)
    row: dict[str, object] = {"top_eigenvalue": float(top.values[0]), "converged": bool(top.converged)}
    for name, one in (("trace", traces.trace), ("participation_ratio", traces.participation_ratio)):
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    row["stable_rank"] = traces.trace.value / float(top.values[0]) if top.values[0] > 0 else 0.0
    products = top.products + traces.products
    if not settings.quadrature_vectors:
        return row, None, products
    rule = lanczos_quadrature(
        apply,
        like,
        size,
        vectors=settings.quadrature_vectors,
        steps=settings.quadrature_steps,
        seed=seed,
        known=top,
    )
    rank = entropy_effective_rank(rule)
    row |= {"effective_rank": rank.value, "effective_rank_low": rank.low, "effective_rank_high": rank.high}
    products += rule.products
    peak = float(top.values[0])
    if peak <= 0:
        return row, None, products
    grid = np.linspace(np.log(peak) - 16, np.log(peak) + 1, GRID_POINTS)
    mean, low, high = density(rule, grid)
    curve = pd.DataFrame({"log_eigenvalue": grid, "density": mean, "low": low, "high": high})
    return row, curve, products


def _signals(denoiser: Denoiser, draws: PairedDraws, x: Tensor, log_snr: float) -> tuple[Tensor, Tensor]:
    """Target and residual, [N·D] float64 on the CPU."""
    with evaluating(denoiser) as place:
        cond = denoiser.conditions_from(draws.cond) or None
        predicted = denoiser(x.to(place), log_snr, cond).double().cpu()
    level = torch.tensor(log_snr, dtype=torch.float64)
    _, wanted = denoiser.training_pair(draws.x0.double(), draws.epsilon.double(), level)
    return wanted.cpu().flatten(), (predicted - wanted.cpu()).flatten()


def _spectra(
    top: TopEigenpairs, wanted: Tensor, residual: Tensor, modes: Tensor, samples: int
) -> pd.DataFrame:
    vectors = top.vectors.double().cpu()
    images = vectors.T.reshape(len(top.values), samples, -1)

    def share(signal: Tensor) -> np.ndarray:
        total = signal.square().sum()
        return (
            ((vectors.T @ signal).square() / total).numpy() if total > 0 else np.full(len(top.values), np.nan)
        )

    return pd.DataFrame(
        {
            "index": np.arange(1, len(top.values) + 1),
            "eigenvalue": top.values.numpy(),
            "residual": top.residuals.numpy(),
            "target_alignment": share(wanted),
            "residual_alignment": share(residual),
            "data_share": (images @ modes).square().sum((1, 2)).numpy(),
        }
    )


def _contraction(apply: Apply, residual: Tensor, steps: int, peak: float) -> tuple[pd.DataFrame, int]:
    """Bounds on the residual's energy under gradient flow, and the number of products; no rows if either is zero."""
    empty = pd.DataFrame({"time": [], "low": [], "high": []})
    found = signal_spectrum(apply, residual, steps=steps) if peak > 0 else None
    if found is None:
        return empty, 0
    times = TIMES / peak
    low, high = found.left(times)
    return pd.DataFrame({"time": times, "low": low, "high": high}), found.products
