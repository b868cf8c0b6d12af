"""Gram matrices of the empirical NTK: the result type, and the two functions users call for it.

`gram(denoiser, x0, log_snr)` diffuses data, picks probes by kernel name and reports mean and standard error;
`gram_of(module, inputs, cotangents)` is the primitive under it, for any module.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.distributed import Processes, in_step
from ntkdiag.errors import InputError, MeasurementError, require_one_of, require_type
from ntkdiag.kernel import engines
from ntkdiag.kernel.check import CheckOnce
from ntkdiag.kernel.directions import given, residual
from ntkdiag.kernel.parameters import pattern_list, select_parameters
from ntkdiag.kernel.probes import all_outputs, mean_probe, orthonormal_probes, sign_probes
from ntkdiag.kernel.sharded import gathered
from ntkdiag.notebook import html_facts
from ntkdiag.process.log_snr import level_like
from ntkdiag.randomness import generator

KERNELS = ("trace", "full", "subspace", "pseudo", "residual")


@dataclass(frozen=True, repr=False)
class Gram:
    """A measured kernel.

    Attributes:
        matrix: [M, M] float64 on the CPU, symmetric. M = N samples, except N·D (full) and N·R (subspace),
            ordered sample-major.
        stderr: [M, M] standard error of each entry from the spread over probes; zero where the probes are
            exhaustive; None where there is one probe, or the kernel is not an estimate.
        per_probe: [R, N, N], the Gram of each random probe (trace kernel only), else None.
        kernel: trace | full | subspace | pseudo | residual.
        engine: What computed it.
        coverage: Parameter name → how its gradient was obtained.
        outputs: D, outputs per sample.
        parameters: P, number of scalar parameters the kernel is over.
        log_snr: [N].
        groups: Group label → [M, M]; they add up to `matrix`. Empty unless asked for.

    Example:
        >>> denoiser = nd.Denoiser(nd.models.build("mlp", (2,)), nd.schedules.cosine(), "v", call="log_snr")
        >>> nd.gram(denoiser, torch.zeros(5, 2), 0.0).log_snr.shape
        torch.Size([5])
    """

    matrix: Tensor
    stderr: Tensor | None
    per_probe: Tensor | None
    kernel: str
    engine: str
    coverage: dict[str, str]
    outputs: int
    parameters: int
    log_snr: Tensor
    groups: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Gram(kernel={self.kernel!r}, engine={self.engine!r}, shape={tuple(self.matrix.shape)}, "
            f"outputs={self.outputs}, parameters={self.parameters})"
        )

    def _repr_html_(self) -> str:
        counts = Counter(self.coverage.values())
        rows = {
            "kernel": self.kernel,
            "entries": " × ".join(map(str, self.matrix.shape)),
            "outputs": f"{self.outputs:,}",
            "parameters": f"{self.parameters:,}",
            "engine": self.engine,
            "gradients": ", ".join(f"{count} by {way}" for way, count in counts.most_common()),
            "trace": float(self.matrix.trace()),
        }
        return html_facts("Gram", rows)


def gram(
    denoiser: Denoiser,
    x0: Tensor,
    log_snr: Tensor | float,
    *,
    probes: int = 8,
    kernel: str = "trace",
    engine: str = "auto",
    params: str | Sequence[str] | None = None,
    seed: int = 0,
    epsilon: Tensor | None = None,
    cond: Any = None,
    memory: int | None = None,
    groups: Callable[[str], str] | None = None,
    preconditioner: dict[str, Tensor] | None = None,
    check: bool | CheckOnce = True,
    sketch: int = engines.SKETCH,
    distributed: bool = False,
) -> Gram:
    """The NTK of a denoiser between noisy samples, J = ∂prediction/∂θ in the network's own target.

    Kernels, with D outputs a sample, J_i [D, P]:
        trace: (1/D) tr J_i J_jᵀ, estimated without bias from `probes` random ±1 vectors shared by all samples.
        full: J_i J_jᵀ for all outputs, [N·D, N·D].
        subspace: Vᵀ J_i J_jᵀ V for `probes` orthonormal output directions V, [N·R, N·R].
        pseudo: the kernel of the mean output, v = 1/√D; not the trace kernel.
        residual: g_i · g_j with g_i = J_iᵀ r_i / D and r the residual, half the gradient of the mean-squared loss.

    Args:
        denoiser: Network, schedule and target.
        x0: Clean data [N, *shape].
        log_snr: One log-SNR for all samples, or one for each [N] (buckets together: the cross-bucket kernel).
        probes: R. From D upwards the trace kernel is exact.
        kernel: One of the above.
        engine: "auto" or "streaming" for the fast one, "exact" or "autograd" for slow ones, "sketch" for many samples;
            see `gram_of`. In the trace kernel with 2 to D − 1 probes, "auto" sketches more samples than memory holds in one
            sweep (then `engine` of the result is "sketch", and the coverage says why).
        params: Name patterns of the parameters to differentiate by; None takes the trainable ones. Names
            are those of the network inside the denoiser.
        seed: Seed of the probes and of the sketches, and of ε where none is given.
        epsilon: Noise [N, *shape]; drawn from `seed` if None.
        cond: Conditions of the network: by name, each [N, ...]; a tensor where it takes a single one; None calls it without.
        memory: Bytes to work in; None takes most of what the device has free.
        groups: Parameter name → group label, for kernels by layer or block that add up to the whole: by layer
            `lambda name: name.rpartition(".")[0]`.
        preconditioner: Parameter name → positive p of its shape: the kernel Σ g_i g_j / p; with p = √v̂ + eps
            the one that training by Adam follows (`ntkdiag.kernel.preconditioner.adam`).
        check: Compare the engine with plain autograd, see `gram_of`. A `CheckOnce` shared by several calls of one network
            checks the first of them.
        sketch: k of the engine "sketch". Entries stay unbiased. Every probe has a sketch of its own, so that `stderr` and
            intervals from `per_probe` hold the error of the sketch too. Statistics that are linear in the entries are
            unbiased (trace, gradient signal), and so are the sums in pair statistics from `per_probe`, whose products are
            taken between different probes (`participation_ratio_pairs`). Eigenvalues, and ranks from them, are not: noise
            spreads them. The other kernels have one sketch, and no estimate of its error.
        distributed: Share the samples out over the processes of `torch.distributed`, see `gram_of`.

    Returns:
        A `Gram`.

    Raises:
        InputError: shapes that do not fit, unknown names, missing conditions, no samples, non-finite data.
        MeasurementError: the kernel came out non-finite, or samples are not independent of each other.

    Example:
        >>> denoiser = nd.Denoiser(nd.models.build("mlp", (2,)), nd.schedules.cosine(), "v", call="log_snr")
        >>> gram(denoiser, torch.zeros(5, 2), 0.0).matrix.shape
        torch.Size([5, 5])
    """
    processes = Processes() if distributed else None
    with in_step(processes), gathered(processes, denoiser):
        require_denoiser("network", denoiser)
        require_one_of("kernel", kernel, KERNELS)
        place = next(iter(select_parameters(denoiser.network, params).values()))
        x0, level, noise = _checked_inputs(x0, log_snr, epsilon, seed, place)
        x, wanted = denoiser.training_pair(x0, noise, level)
        inputs = denoiser.inputs(x, level, cond)
        shape, device = x.shape[1:], place.device
        options: dict[str, Any] = {
            "params": within_denoiser(params),
            "engine": engine,
            "memory": memory,
            "group": None if groups is None else lambda name: groups(_bare(name)),
            "preconditioner": _prefixed(preconditioner),
            "check": check,
            "sketch": sketch,
            "seed": seed,
            "distributed": distributed,
        }
        if kernel == "full":
            found = _row_kernel(denoiser, inputs, all_outputs(shape, x.dtype).to(device), options)
        elif kernel == "subspace":
            basis = orthonormal_probes(shape, probes, seed, x.dtype)
            found = _row_kernel(denoiser, inputs, basis.to(device), options)
        elif kernel == "residual":
            found = engines.run(denoiser, inputs, residual(wanted), **options)
        else:
            trace = kernel == "trace"
            chosen = mean_probe(shape, x.dtype)
            if trace:
                chosen = sign_probes(shape, probes, seed, x.dtype, exhaust=engine != "sketch")
            noisy = trace and 2 <= probes < math.prod(shape)
            found = engines.run(denoiser, inputs, given(chosen.to(device)), may_sketch=noisy, **options)
        return _finished(found, kernel, shape, level)


def gram_of(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    *,
    params: str | Sequence[str] | None = None,
    engine: str = "auto",
    memory: int | None = None,
    preconditioner: dict[str, Tensor] | None = None,
    check: bool | CheckOnce = True,
    sketch: int = engines.SKETCH,
    seed: int = 0,
    distributed: bool = False,
) -> Tensor:
    """Gram matrices of J_iᵀ v for any module.

    Args:
        module: Called as module(*inputs); returns [N, *out]. Measured in eval mode, restored afterwards.
        inputs: Tensors [N, ...].
        cotangents: [R, N, *out], or [R, *out] shared by all samples.
        params: Name patterns; None takes the trainable parameters.
        engine: "streaming" (also "auto"): one forward and a backward for each probe, with the exact engine for
            parameters that no rule serves; "exact": torch.func; "autograd": plain autograd, one sample at a time on the
            module as it is, the slow truth; "sketch": for thousands of samples, each of which runs once: an unbiased
            estimate from short rows, random projections of the gradients.
        memory: Bytes to work in; None takes most of what the device has free.
        preconditioner: Parameter name → positive p of its shape: entries become Σ g_i g_j / p. A sketch takes one that is a
            factor for each row times one for each column of every parameter.
        check: Compare, for the first and the last sample and the first direction, the share of every parameter with plain
            autograd of the module as it is. A parameter that differs is left to a slower engine. With a sketch, autograd's
            gradients are sketched too.
        sketch: k of the engine "sketch". The gradient G_i [p, q] of a parameter is replaced by Sᵀ G_i R, with S [p, k] and
            R [q, k] of independent ±1/√k, the same for all samples and anew for each direction r. Vectors, sides of at most
            k, and parameters of at most k² elements stay as they are. With p, q > k the variance of a parameter's share is
            about (1/k)[(1 + 1/k)(‖G_iG_jᵀ‖² + ‖G_iᵀG_j‖²) + 2 tr((G_iG_jᵀ)²) + (1/k)(‖G_i‖²‖G_j‖² + ⟨G_i,G_j⟩²)], its value
            for normal entries; signs have less of it on the diagonals. The variances of the parameters add up. Memory: N k²
            numbers for a parameter and a direction; on a CPU, on disk (TMPDIR) where they do not fit into half of `memory`.
        seed: Of the signs of the sketches.
        distributed: Share the samples out over the processes of the default group of `torch.distributed`. Every process
            calls this with the same arguments, and gets the same result. None of them runs another's samples or holds the
            gradients of all. `memory` is that of each process. What fails in one process raises the same error in all. Of a
            network sharded by `fully_shard`, a process holds one unit of parameters at a time and those around it; all of
            them only while a slow engine runs, which the coverage says.

    Returns:
        [R, N, N] float64 on the CPU: entry (r, i, j) = (J_iᵀ v_ri) · (J_jᵀ v_rj).

    Raises:
        InputError: shapes that do not fit, unknown engine, nothing to differentiate by.
        MeasurementError: samples are not independent of each other.

    Example:
        >>> network = torch.nn.Linear(3, 2, bias=False)
        >>> x = torch.eye(3)
        >>> gram_of(network, (x,), torch.eye(2)).sum(dim=0)  # of a linear map it is 2 x·x'
        tensor([[2., 0., 0.],
                [0., 2., 0.],
                [0., 0., 2.]], dtype=torch.float64)
    """
    return engines.run(
        module,
        inputs,
        given(cotangents, engines.require_batch(inputs)),
        params=params,
        engine=engine,
        memory=memory,
        preconditioner=preconditioner,
        check=check,
        sketch=sketch,
        seed=seed,
        distributed=distributed,
    ).per_probe


def _row_kernel(
    denoiser: Denoiser, inputs: tuple[Tensor, ...], directions: Tensor, options: dict[str, Any]
) -> engines.Measured:
    """The kernel over all (sample, direction) rows: each sample is taken once a direction."""
    count = directions.shape[0]
    repeated = tuple(tensor.repeat_interleave(count, 0) for tensor in inputs)
    rows = directions.repeat(inputs[0].shape[0], *(1,) * (directions.ndim - 1)).unsqueeze(0)
    return engines.run(denoiser, repeated, given(rows), **options)


def within_denoiser(params: str | Sequence[str] | None) -> list[str] | None:
    """Name patterns of the network's parameters as the denoiser knows them."""
    if params is None:
        return None
    return [f"network.{pattern}" for pattern in pattern_list(params)]


def _prefixed(preconditioner: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    return None if preconditioner is None else {f"network.{n}": p for n, p in preconditioner.items()}


def _bare(name: str) -> str:
    return name.removeprefix("network.")


def _checked_inputs(
    x0: Tensor, log_snr: Tensor | float, epsilon: Tensor | None, seed: int, place: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x0, log_snr [N] and ε in the dtype and on the device of `place`; log_snr in float32 or wider."""
    if isinstance(x0, np.ndarray):
        x0 = torch.as_tensor(x0)
    require_type("x0", x0, Tensor, "a tensor [N, ...]")
    if x0.ndim < 2 or x0.shape[0] == 0:
        raise InputError("x0", expected="at least one sample, shape [N, ...]", got=f"shape {tuple(x0.shape)}")
    for name, given_numbers in (("x0", x0), ("log_snr", log_snr), ("epsilon", epsilon)):
        if isinstance(given_numbers, Tensor) and given_numbers.is_complex():
            raise InputError(name, expected="real numbers", got="complex numbers")
    x0 = x0.to(place)
    level = level_like(log_snr, place)
    if level.ndim > 1 or (level.ndim == 1 and level.shape[0] != x0.shape[0]):
        raise InputError(
            "log_snr", expected=f"one number or {x0.shape[0]} of them", got=f"shape {tuple(level.shape)}"
        )
    level = level.expand(x0.shape[0])
    if epsilon is None:
        epsilon = torch.randn(x0.shape, generator=generator(seed, "epsilon"))
    if epsilon.shape != x0.shape:
        raise InputError("epsilon", expected=f"the shape of x0 {tuple(x0.shape)}", got=tuple(epsilon.shape))
    noise = epsilon.to(place)
    for name, values in (("x0", x0), ("log_snr", level), ("epsilon", noise)):
        if not torch.isfinite(values).all():
            raise InputError(name, expected="finite values", got="NaN or infinity")
    return x0, level, noise


def _standard_error(per_probe: Tensor, estimate: bool) -> Tensor | None:
    if not estimate:
        return torch.zeros_like(per_probe[0])
    count = per_probe.shape[0]
    return per_probe.std(0) / math.sqrt(count) if count > 1 else None


def _finished(found: engines.Measured, kernel: str, shape: torch.Size, level: Tensor) -> Gram:
    per_probe, outputs = found.per_probe, math.prod(shape)
    if not torch.isfinite(per_probe).all():
        raise MeasurementError(
            "kernel: expected finite entries; got NaN or infinity. Check the network's weights and its output."
        )
    estimate = kernel == "trace" and (found.sketched or per_probe.shape[0] < outputs)
    return Gram(
        matrix=_symmetric_mean(per_probe),
        stderr=_standard_error(per_probe, estimate) if kernel == "trace" else None,
        per_probe=per_probe if estimate else None,
        kernel=kernel,
        engine=found.engine,
        coverage={_bare(name): how for name, how in found.coverage.items()},
        outputs=outputs,
        parameters=found.parameters,
        log_snr=level.detach().double().cpu(),
        groups={label: _symmetric_mean(part) for label, part in found.groups.items()},
    )


def _symmetric_mean(per_probe: Tensor) -> Tensor:
    """Mean over probes, with rounding's asymmetry removed."""
    mean = per_probe.mean(0)
    return (mean + mean.T) / 2
