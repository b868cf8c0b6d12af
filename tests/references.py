"""Slow references that the engines are compared with: a loop of autograd over samples, nothing shared with the package."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Inputs = tuple[Tensor, ...]


def brute_rows(
    module: nn.Module, inputs: Inputs, cotangents: Tensor, names: list[str] | None = None
) -> dict[str, Tensor]:
    """J_iᵀ v by a backward each, every sample through the network in a batch of its own.

    Args:
        module: Called as module(*inputs), in the mode it is in.
        inputs: Tensors [N, ...].
        cotangents: [R, N, *out].
        names: Parameters to differentiate by; None takes those that require a gradient.

    Returns:
        Name → [R, N, numel].
    """
    named = dict(module.named_parameters())
    chosen = {n: p for n, p in named.items() if (p.requires_grad if names is None else n in names)}
    flags = {n: p.requires_grad for n, p in chosen.items()}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    rows: dict[str, list[Tensor]] = {name: [] for name in chosen}
    for directions in cotangents:
        for i, direction in enumerate(directions):
            out = module(*(tensor[i : i + 1].clone() for tensor in inputs))
            if out.requires_grad:
                out.backward(direction.unsqueeze(0).to(out))
            for name, parameter in chosen.items():
                value = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                rows[name].append(value.detach().flatten())
                parameter.grad = None
    for name, parameter in chosen.items():
        parameter.requires_grad_(flags[name])
    probes, samples = cotangents.shape[:2]
    return {name: torch.stack(each).reshape(probes, samples, -1) for name, each in rows.items()}


def brute_gram(
    module: nn.Module,
    inputs: Inputs,
    cotangents: Tensor,
    names: list[str] | None = None,
    preconditioner: dict[str, Tensor] | None = None,
) -> Tensor:
    """Entry (r, i, j) = Σ_p (J_iᵀ v_ri)_p (J_jᵀ v_rj)_p / scale_p, [R, N, N] float64."""
    total = torch.zeros(())
    for name, rows in brute_rows(module, inputs, cotangents, names).items():
        rows = rows.double()
        scaled = rows if preconditioner is None else rows / preconditioner[name].double().flatten()
        total = total + (scaled @ rows.mT).cpu()
    return total


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Largest difference, in units of the truth's largest entry."""
    found, truth = found.detach().double().cpu(), truth.detach().double().cpu()
    return float((found - truth).abs().max() / truth.abs().max().clamp(min=1e-300))
