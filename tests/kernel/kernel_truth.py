"""Every kernel of this package read off the Jacobian, which the brute-force loop of `references` collects."""

from __future__ import annotations

import torch
from references import brute_rows
from torch import Tensor, nn

from ntkdiag.denoiser import Denoiser
from ntkdiag.process import target as targets


def jacobian(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """∂output/∂parameters, [N, D, P], parameters in the module's order, each flattened."""
    with torch.no_grad():
        output = module(*inputs)
    samples, outputs = output.shape[0], output[0].numel()
    one_hot = torch.eye(outputs, dtype=output.dtype).reshape(outputs, 1, *output.shape[1:])
    rows = brute_rows(module, inputs, one_hot.expand(-1, samples, *output.shape[1:]))
    return torch.cat(list(rows.values()), 2).movedim(0, 1)


def full(jacobian: Tensor) -> Tensor:
    """J_i J_jᵀ for all samples and outputs, [N·D, N·D], sample-major."""
    rows = jacobian.flatten(0, 1)
    return rows @ rows.T


def trace(jacobian: Tensor) -> Tensor:
    """(1/D) tr J_i J_jᵀ, [N, N]."""
    rows = jacobian.flatten(1)
    return rows @ rows.T / jacobian.shape[1]


def contracted(jacobian: Tensor, cotangents: Tensor) -> Tensor:
    """(J_iᵀ v_ri) · (J_jᵀ v_rj), [R, N, N], for cotangents [R, N, *out] or [R, *out]."""
    samples, outputs = jacobian.shape[:2]
    shared = cotangents[0].numel() == outputs
    flat = cotangents.reshape(len(cotangents), 1 if shared else samples, outputs).expand(-1, samples, -1)
    gradients = torch.einsum("rna,nap->rnp", flat, jacobian)
    return gradients @ gradients.mT


def loss_gradients(denoiser: Denoiser, x0: Tensor, epsilon: Tensor, log_snr: Tensor) -> Tensor:
    """Gradient of half the mean squared error of each sample alone, [N, P]."""
    parameters = list(denoiser.parameters())
    rows = []
    for clean, noise, level in zip(x0.split(1), epsilon.split(1), log_snr, strict=True):
        wanted = targets.value(denoiser.target, denoiser.schedule, level, clean, noise)
        prediction = denoiser(denoiser.schedule.diffuse(clean, noise, level), level)
        loss = (prediction - wanted).square().mean() / 2
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)
