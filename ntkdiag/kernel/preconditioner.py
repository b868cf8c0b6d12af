"""Diagonal preconditioners, as adaptive optimizers apply them to the gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError


def adam(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """√v̂ + eps of a running Adam or AdamW, by parameter name.

    Adam divides the (averaged) gradient by this, so function space moves by the kernel J P⁻¹ Jᵀ
    (Kingma & Ba 2015, with the bias correction of the second moment, v̂ = v / (1 − β₂^t)).

    Args:
        optimizer: An Adam or AdamW that has taken at least one step.
        network: The module whose parameters it holds.

    Returns:
        Name → tensor of the parameter's shape, positive.

    Raises:
        InputError: another optimizer, or a parameter it has no second moment for.

    Example:
        >>> network = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(network.parameters(), eps=0.0)
        >>> network(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> adam(optimizer, network)["weight"]  # the size of a gradient of 1
        tensor([[1., 1.]])
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    found: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        if id(parameter) not in groups:
            continue
        state, group = optimizer.state.get(parameter, {}), groups[id(parameter)]
        if "exp_avg_sq" not in state or "betas" not in group:
            raise InputError(
                f"optimizer state of {name}",
                expected="a second moment, as Adam and AdamW keep after a step",
                got=f"{type(optimizer).__name__} with {sorted(map(str, state)) or 'no state'}",
            )
        corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
        found[name] = corrected.sqrt() + group["eps"]
    return found


def checked(
    preconditioner: Mapping[str, Tensor] | None, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The preconditioner in the order, dtypes and on the devices of these parameters; empty for None.

    Raises:
        InputError: a parameter has none, or one of another shape, or one that is not positive throughout.
    """
    if preconditioner is None:
        return {}
    for name, parameter in parameters.items():
        scale = preconditioner.get(name)
        if scale is None or scale.shape != parameter.shape or not bool((scale > 0).all()):
            got = (
                "none"
                if scale is None
                else f"shape {tuple(scale.shape)} with minimum {scale.min().item():.3g}"
            )
            raise InputError(
                f"preconditioner of {name}",
                expected=f"positive values of shape {tuple(parameter.shape)}",
                got=got,
            )
    return {name: preconditioner[name].to(parameters[name]) for name in parameters}
