"""The exact engine: row gradients J_iᵀ v of many samples at once, by torch.func; slow, and needs no rule for any operation.

It is one vmap over samples of a gradient. Networks that torch.func cannot take (recurrent cells, gradients inside the
forward, reentrant checkpointing), or takes and gets wrong (LU factorisations), go through plain autograd, one sample at a
time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ntkdiag.errors import NtkdiagError
from ntkdiag.kernel import autograd
from ntkdiag.kernel.eager import uncompiled
from ntkdiag.kernel.row_grams import Rows

# What rests on an LU factorisation. Under vmap, its backward in torch 2.13 writes into gradients that other operations read
# too, so that signs of whole gradients change, and a vmap inside a vmap returns other numbers.
_BY_LU = frozenset(
    {
        "solve",
        "solve_ex",
        "tensorsolve",
        "lu",
        "lu_factor",
        "lu_factor_ex",
        "lu_solve",
        "lu_unpack",
        "det",
        "slogdet",
        "logdet",
    }
)


class _WithoutLU(TorchFunctionMode):
    """Raises at the first operation that rests on an LU factorisation."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "").removeprefix("linalg_") in _BY_LU:
            raise NotImplementedError(f"{func.__name__} inside vmap")
        return func(*args, **(kwargs or {}))


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
    """All samples in one vmap."""
    theta = {name: parameter.detach() for name, parameter in parameters.items()}

    def contracted(values: dict[str, Tensor], sample: tuple[Tensor, ...], direction: Tensor) -> Tensor:
        # copies: a network may write into its inputs
        batch = tuple(part.clone().unsqueeze(0) for part in sample)
        output: Tensor = functional_call(module, values, batch, tie_weights=True).squeeze(0)
        return (output * direction).sum()

    # no_grad: no graph towards the parameters that are not asked for
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), uncompiled(), _WithoutLU():
        per_sample = vmap(grad(contracted), in_dims=(None, 0, 0), randomness="error")
        samples = tuple(tensor.detach() for tensor in inputs)
        found: dict[str, Tensor] = per_sample(theta, samples, cotangents)
    return {name: gradient.reshape(len(cotangents), -1) for name, gradient in found.items()}
