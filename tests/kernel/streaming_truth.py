"""What the tests of the streaming engine share: cotangents, a run with all of its result, and what a module is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from networks.case import Inputs
from torch import Tensor, nn

from ntkdiag.kernel.directions import given
from ntkdiag.kernel.engines import Measured, run


def cotangents_for(module: nn.Module, inputs: Inputs, probes: int = 2, seed: int = 1) -> Tensor:
    """[R, N, *out] of random numbers."""
    out = module(*(tensor.clone() for tensor in inputs))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(probes, *out.shape, generator=generator, dtype=torch.float64).to(out)


def streamed(module: nn.Module, inputs: Inputs, cotangents: Tensor, **options: Any) -> Measured:
    """The streaming engine on given cotangents."""
    return run(module, inputs, given(cotangents), engine="streaming", **options)


def state(module: nn.Module) -> dict[str, Any]:
    """Everything that measuring must leave as it is: attributes, hooks, flags and values of each part."""
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            shown = [(k, id(v)) for k, v in value.items()] if isinstance(value, dict) else id(value)
            found[f"{name}.{key}"] = shown
    for name, parameter in module.named_parameters():
        found[f"parameter {name}"] = (
            parameter.requires_grad,
            parameter.grad,
            parameter._version,
            id(parameter),
        )
    for name, buffer in module.named_buffers():
        found[f"buffer {name}"] = buffer.tolist()
    return found


def raising(error: BaseException) -> Callable[..., Any]:
    """A function that raises."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise error

    return function
