"""The exact engine: row gradients J_iᵀ v of many samples at once, by torch.func; slow, and needs no rule for any operation.

It is one vmap over samples of a gradient. Networks that torch.func cannot take (recurrent cells, gradients inside the
forward, reentrant checkpointing) go through plain autograd, one sample at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntkdiag.errors import NtkdiagError
from ntkdiag.kernel import autograd
from ntkdiag.kernel.eager import uncompiled
from ntkdiag.kernel.row_grams import Rows


def row_gradients(
    module: nn.Module, parameters: dict[str, nn.Parameter], inputs: tuple[Tensor, ...], cotangents: Tensor
) -> Rows:
    """J_iᵀ v_i for every sample i.

    Args:
        module: Called as module(*inputs).
        parameters: Name → parameter to differentiate by.
        inputs: Tensors [n, ...].
        cotangents: v, [n, *out].

    Returns:
        Name → [n, numel].
    """
    try:
        return _vectorised(module, parameters, inputs, cotangents)
    except (torch.OutOfMemoryError, MemoryError, NtkdiagError):
        raise
    except Exception:  # torch.func raises errors of many types at what it cannot vectorise
        return autograd.row_gradients(module, parameters, inputs, cotangents)


def _vectorised(
    module: nn.Module, parameters: dict[str, nn.Parameter], inputs: tuple[Tensor, ...], cotangents: Tensor
) -> Rows:
    """A vmap over vjp inside a vmap over samples would be wrong for some operations in torch 2.13 (the backward of LU)."""
    theta = {name: parameter.detach() for name, parameter in parameters.items()}

    def contracted(values: dict[str, Tensor], sample: tuple[Tensor, ...], direction: Tensor) -> Tensor:
        # copies: a network may write into its inputs
        batch = tuple(part.clone().unsqueeze(0) for part in sample)
        output: Tensor = functional_call(module, values, batch, tie_weights=True).squeeze(0)
        return (output * direction).sum()

    # no_grad: no graph towards the parameters that are not asked for
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), uncompiled():
        per_sample = vmap(grad(contracted), in_dims=(None, 0, 0), randomness="error")
        samples = tuple(tensor.detach() for tensor in inputs)
        found: dict[str, Tensor] = per_sample(theta, samples, cotangents)
    return {name: gradient.reshape(len(cotangents), -1) for name, gradient in found.items()}
