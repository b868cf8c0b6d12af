"""What the benchmarks compare: a training step, the kernel by the streaming engine and by torch.func, the float64 reference.

A `Case` is a network with inputs and ±1 probes. A "way" is a function that turns a case into a call without arguments, which
`analysis.stopwatch` times.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import ntkdiag as nd
from ntkdiag.kernel import CheckOnce
from ntkdiag.kernel.probes import sign_probes

Way = Callable[[], Tensor | None]


@dataclass(frozen=True)
class Case:
    """A network, inputs [N, ...] and probes [R, *out] that all samples share."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    probes: Tensor

    @property
    def samples(self) -> int:
        """N."""
        return self.inputs[0].shape[0]

    @property
    def parameters(self) -> int:
        """P."""
        return sum(p.numel() for p in self.module.parameters())

    def first(self, probes: int) -> Case:
        """The same case with the first `probes` probes."""
        return replace(self, probes=self.probes[:probes])

    def take(self, samples: int) -> Case:
        """The same case with the first `samples` samples."""
        return replace(self, inputs=tuple(tensor[:samples] for tensor in self.inputs))

    def to(self, dtype: torch.dtype) -> Case:
        """The same case in another precision; the network is converted in place."""
        inputs = tuple(tensor.to(dtype) for tensor in self.inputs)
        return Case(self.module.to(dtype), inputs, self.probes.to(dtype))


def dit_case(
    *,
    samples: int,
    patch: int,
    side: int = 32,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    probes: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Case:
    """A DiT on 4×side×side latents, (side/patch)² tokens, at log-SNRs spread over [-6, 6]."""
    shape = (4, side, side)
    module = nd.models.build("dit", shape, seed=seed, patch=patch, width=width, depth=depth, heads=heads)
    x = torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed + 1))
    inputs = (x.to(device), torch.linspace(-6, 6, samples, device=device))
    return Case(module.to(device), inputs, sign_probes(x.shape[1:], probes, seed + 2, x.dtype).to(device))


def training_step(case: Case) -> Way:
    """Forward and backward pass of a mean squared loss, to all parameter gradients, without an optimizer step."""
    module, target = case.module, torch.zeros(case.samples, *case.probes.shape[1:]).to(case.probes)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        nn.functional.mse_loss(module(*case.inputs), target).backward()

    return step


def streaming(case: Case, *, check: bool | CheckOnce = True) -> Way:
    """The streaming engine as users call it, with its checks; `check` is that against plain autograd (see `nd.gram_of`)."""
    return lambda: nd.gram_of(case.module, case.inputs, case.probes, engine="streaming", check=check)


def sketched(case: Case, *, size: int = 64, check: bool | CheckOnce = True) -> Way:
    """The sketch engine as users call it, with its checks."""
    return lambda: nd.gram_of(
        case.module, case.inputs, case.probes, engine="sketch", sketch=size, check=check
    )


def torch_func(case: Case, written_out_attention: bool = False) -> Way:
    """Jacobian contraction of the first probe, after PyTorch's "Neural Tangent Kernels" tutorial.

    The network has one scalar output vᵀf, so its per-sample Jacobians are per-sample gradients, vmap(grad);
    the Jacobian of the one set of samples is computed once (the tutorial has two sets).

    Args:
        case: The network, inputs and probes.
        written_out_attention: Compute attention by matrix products, for which vmap has batching rules, instead of
            the fused operation.
    """
    module, probe = case.module, case.probes[0]
    values = {name: parameter.detach() for name, parameter in module.named_parameters()}

    def scalar(parameters: dict[str, Tensor], *sample: Tensor) -> Tensor:
        batch = tuple(part.unsqueeze(0) for part in sample)
        return (functional_call(module, parameters, batch).squeeze(0) * probe).sum()

    gradients = vmap(grad(scalar), in_dims=(None, *(0 for _ in case.inputs)))

    def contract() -> Tensor:
        attention: AbstractContextManager = nullcontext()
        if written_out_attention:
            attention = sdpa_kernel(SDPBackend.MATH)
        with attention:
            rows = [rows.flatten(1) for rows in gradients(values, *case.inputs).values()]
        return torch.stack([part @ part.T for part in rows]).sum(0)

    return contract


def float64_truth(case: Case) -> Tensor:
    """The reference kernel [N, N]: autograd in float64, one sample at a time, then one product of all gradients."""
    exact = case.to(torch.float64)
    parameters = list(exact.module.parameters())
    rows = torch.empty(case.samples, case.parameters, dtype=torch.float64, device=exact.probes.device)
    for index in range(case.samples):
        sample = tuple(tensor[index : index + 1] for tensor in exact.inputs)
        scalar = (exact.module(*sample) * exact.probes[0]).sum()
        gradients = torch.autograd.grad(scalar, parameters)
        torch.cat([gradient.flatten() for gradient in gradients], out=rows[index])
    return rows @ rows.T


def first_samples_truth(case: Case, samples: int) -> Tensor:
    """`float64_truth` for the first samples alone, [samples, samples]: all gradients of a large network take much memory."""
    return float64_truth(case.take(min(samples, case.samples)))
