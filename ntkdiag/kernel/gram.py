"""Gram matrices of the empirical NTK: the result type, and the two functions users call for it.

`gram(denoiser, x0, log_snr)` diffuses data, picks probes by kernel name and reports mean and standard error;
`gram_of(module, inputs, cotangents)` is the primitive under it, for any module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError, MeasurementError, require_one_of
from ntkdiag.kernel.exact import block_gram_exact, gram_exact
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.probes import all_outputs, mean_probe, orthonormal_probes, sign_probes
from ntkdiag.process import target as targets

KERNELS = ("trace", "full", "subspace", "pseudo", "residual")
ENGINES = ("auto", "exact")


@dataclass(frozen=True)
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
        log_snr: One log-SNR for all, or one a sample [N] (buckets together: the cross-bucket kernel).
        probes: R. From D upwards the trace kernel is exact.
        kernel: One of the above.
        engine: "exact", or "auto" for the best one that covers the network.
        params: Name patterns of the parameters to differentiate by; None takes the trainable ones. Names
            are those of the network inside the denoiser.
        seed: Seed of the probes, and of ε where none is given.
        epsilon: Noise [N, *shape]; drawn from `seed` if None.
        cond: Conditioning tensor [N, ...] handed to the network.
        memory: Bytes the per-sample gradients may take.

    Returns:
        A `Gram`.

    Raises:
        InputError: shapes that do not fit, unknown names, no samples, non-finite data.
        MeasurementError: the kernel came out non-finite.
    """
    require_one_of("kernel", kernel, KERNELS)
    device = next(denoiser.parameters()).device
    x0, level, noise = _checked_inputs(denoiser, x0, log_snr, epsilon, seed, device)
    x = denoiser.schedule.diffuse(x0, noise, level)
    inputs = (x, level) if cond is None else (x, level, cond)
    names = (
        None
        if params is None
        else [f"network.{p}" for p in ([params] if isinstance(params, str) else params)]
    )
    shape = x.shape[1:]

    if kernel in ("full", "subspace"):
        chosen = (
            all_outputs(shape, x.dtype)
            if kernel == "full"
            else orthonormal_probes(shape, probes, seed, x.dtype)
        )
        matrix = _block_gram(denoiser, inputs, chosen.to(device), names, engine, memory)
        return _finished(denoiser, matrix, None, None, kernel, shape, level, names)

    if kernel == "residual":
        per_probe = _residual_gram(denoiser, inputs, x0, noise, level, names, engine, memory)
    else:
        chosen = (
            mean_probe(shape, x.dtype) if kernel == "pseudo" else sign_probes(shape, probes, seed, x.dtype)
        )
        per_probe = gram_of(denoiser, inputs, chosen.to(device), params=names, engine=engine, memory=memory)
    estimate = kernel == "trace" and per_probe.shape[0] < math.prod(shape)
    stderr = _standard_error(per_probe, estimate) if kernel == "trace" else None
    return _finished(
        denoiser, per_probe.mean(0), stderr, per_probe if estimate else None, kernel, shape, level, names
    )


def gram_of(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    *,
    params: str | Sequence[str] | None = None,
    engine: str = "auto",
    memory: int | None = None,
) -> Tensor:
    """Gram matrices of J_iᵀ v for any module.

    Args:
        module: Called as module(*inputs); returns [N, *out]. Measured in eval mode, restored afterwards.
        inputs: Tensors [N, ...].
        cotangents: [R, N, *out], or [R, *out] shared by all samples.
        params: Name patterns; None takes the trainable parameters.
        engine: "exact", or "auto" for the best engine that covers the module.
        memory: Bytes the per-sample gradients may take.

    Returns:
        [R, N, N] float64 on the CPU: entry (r, i, j) = (J_iᵀ v_ri) · (J_jᵀ v_rj).

    Raises:
        InputError: shapes that do not fit, unknown engine, nothing to differentiate by.
    """
    require_one_of("engine", engine, ENGINES)
    with measuring(module):
        rows = _per_sample(module, inputs, cotangents)
        return gram_exact(module, select_parameters(module, params), inputs, rows, memory)


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """The module in eval mode for the block; each submodule's own mode is restored, also after an error."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _block_gram(
    denoiser: Denoiser,
    inputs: tuple[Tensor, ...],
    directions: Tensor,
    names: list[str] | None,
    engine: str,
    memory: int | None,
) -> Tensor:
    require_one_of("engine", engine, ENGINES)
    with measuring(denoiser):
        rows = _per_sample(denoiser, inputs, directions)
        return block_gram_exact(denoiser, select_parameters(denoiser, names), inputs, rows, memory)


def _residual_gram(
    denoiser: Denoiser,
    inputs: tuple[Tensor, ...],
    x0: Tensor,
    noise: Tensor,
    level: Tensor,
    names: list[str] | None,
    engine: str,
    memory: int | None,
) -> Tensor:
    with torch.no_grad(), measuring(denoiser):
        wanted = targets.value(denoiser.target, denoiser.schedule, level, x0, noise)
        residual = denoiser(*inputs) - wanted
    cotangents = (residual / residual[0].numel()).unsqueeze(0)
    return gram_of(denoiser, inputs, cotangents, params=names, engine=engine, memory=memory)


def _checked_inputs(
    denoiser: Denoiser,
    x0: Tensor,
    log_snr: Tensor | float,
    epsilon: Tensor | None,
    seed: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """x0, log_snr [N] and ε in the network's dtype and on its device."""
    if x0.ndim < 2 or x0.shape[0] == 0:
        raise InputError("x0", expected="at least one sample, shape [N, ...]", got=f"shape {tuple(x0.shape)}")
    dtype = next(denoiser.parameters()).dtype
    x0 = x0.to(device=device, dtype=dtype)
    level = torch.as_tensor(log_snr, dtype=torch.float64)
    if level.ndim > 1 or (level.ndim == 1 and level.shape[0] != x0.shape[0]):
        raise InputError(
            "log_snr", expected=f"one number or {x0.shape[0]} of them", got=f"shape {tuple(level.shape)}"
        )
    level = level.expand(x0.shape[0]).to(device=device, dtype=dtype)
    if epsilon is None:
        generator = torch.Generator().manual_seed(seed)
        epsilon = torch.randn(x0.shape, generator=generator)
    if epsilon.shape != x0.shape:
        raise InputError("epsilon", expected=f"the shape of x0 {tuple(x0.shape)}", got=tuple(epsilon.shape))
    noise = epsilon.to(device=device, dtype=dtype)
    for name, values in (("x0", x0), ("log_snr", level), ("epsilon", noise)):
        if not torch.isfinite(values).all():
            raise InputError(name, expected="finite values", got="NaN or infinity")
    return x0, level, noise


def _per_sample(module: nn.Module, inputs: tuple[Tensor, ...], cotangents: Tensor) -> Tensor:
    """Cotangents as [R, N, *out], checked against one forward's output."""
    with torch.no_grad():
        output = module(*inputs)
    if not isinstance(output, Tensor):
        raise InputError("module output", expected="one tensor [N, ...]", got=type(output).__name__)
    samples, out = output.shape[0], output.shape[1:]
    if cotangents.shape[1:] == out:
        return cotangents.unsqueeze(1).expand(cotangents.shape[0], samples, *out)
    if cotangents.shape[1:] == output.shape:
        return cotangents
    raise InputError(
        "cotangents",
        expected=f"[R, {', '.join(map(str, out))}] or [R, {samples}, {', '.join(map(str, out))}]",
        got=tuple(cotangents.shape),
    )


def _standard_error(per_probe: Tensor, estimate: bool) -> Tensor | None:
    if not estimate:
        return torch.zeros_like(per_probe[0])
    count = per_probe.shape[0]
    return per_probe.std(0) / math.sqrt(count) if count > 1 else None


def _finished(
    denoiser: Denoiser,
    matrix: Tensor,
    stderr: Tensor | None,
    per_probe: Tensor | None,
    kernel: str,
    shape: torch.Size,
    level: Tensor,
    names: list[str] | None,
) -> Gram:
    if not torch.isfinite(matrix).all():
        raise MeasurementError(
            "kernel: expected finite entries; got NaN or infinity. Check the network's weights and its output."
        )
    chosen = select_parameters(denoiser, names)
    return Gram(
        matrix=(matrix + matrix.T) / 2,
        stderr=stderr,
        per_probe=per_probe,
        kernel=kernel,
        engine="exact",
        coverage={name.removeprefix("network."): "exact" for name in chosen},
        outputs=math.prod(shape),
        parameters=sum(p.numel() for p in chosen.values()),
        log_snr=level.detach().double().cpu(),
    )
