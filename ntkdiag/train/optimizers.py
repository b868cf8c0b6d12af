"""The optimizer of a training run: AdamW, SGD with momentum, or Muon for matrices with AdamW for everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ntkdiag.errors import InputError
from ntkdiag.state_dicts.fit import check_fit
from ntkdiag.train.config import TrainConfig

# What an optimizer remembers of a parameter, by the name of its class.
_MEMORY = {
    "AdamW": ("step", "exp_avg", "exp_avg_sq"),
    "SGD": ("momentum_buffer",),
    "Muon": ("momentum_buffer",),
}


def optimizers_of(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> tuple[Optimizer, ...]:
    """The optimizers of a run, which share its parameters.

    Args:
        config: `optimizer`, `learning_rate`, `weight_decay`, `beta1` and `beta2` are used. Muon's steps are scaled to the
            size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both.
        parameters: At least one.

    Raises:
        InputError: Muon, where torch has none.
    """
    every = list(parameters)
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    # The fused kernels of one device each.
    fused = every[0].device.type in ("cpu", "cuda")
    adamw = shared | {"betas": (config.beta1, config.beta2), "fused": fused}
    if config.optimizer == "sgd":
        return (torch.optim.SGD(every, momentum=config.beta1, **shared),)
    if config.optimizer == "muon":
        scaled = {"momentum": config.beta1, "adjust_lr_fn": "match_rms_adamw"}
        return muon_and_adamw(every, shared | scaled, adamw)
    return (torch.optim.AdamW(every, **adamw),)


def muon_and_adamw(
    parameters: Iterable[nn.Parameter], muon: Mapping[str, Any], adamw: Mapping[str, Any]
) -> tuple[Optimizer, ...]:
    """Muon for matrices and AdamW for everything else (Jordan et al. 2024); one of them where the other has nothing to do.

    Args:
        parameters: All of them.
        muon, adamw: Settings of each.

    Raises:
        InputError: torch has no Muon.
    """
    made = getattr(torch.optim, "Muon", None)
    if made is None:
        raise InputError(
            "optimizer 'muon'", expected="torch 2.9 or newer, which has it", got=torch.__version__
        )
    every = list(parameters)
    matrices = [p for p in every if p.ndim == 2]
    others = [p for p in every if p.ndim != 2]
    found = [made(matrices, **muon)] if matrices else []
    return (*found, *([torch.optim.AdamW(others, **adamw)] if others else []))


def memory(optimizers: Iterable[Optimizer], names: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What optimizers remember, named parameter/memory; empty before the first step."""
    return {
        f"{name}/{kind}": value
        for optimizer in optimizers
        for name, parameter in names.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def remember(
    optimizers: Iterable[Optimizer],
    names: Mapping[str, nn.Parameter],
    stored: Mapping[str, Tensor],
    what: str,
) -> None:
    """The inverse of `memory`, after all of it was found to fit.

    Args:
        optimizers: Changed in place; unchanged if the tensors do not fit.
        names: Name → parameter; each is held by one of the optimizers.
        stored: As `memory` gave it.
        what: Name of the tensors in an error.

    Raises:
        InputError: a tensor is missing, unexpected, of another shape, or not finite.
    """
    named = {id(parameter): name for name, parameter in names.items()}
    held = [
        [
            (named[id(p)], p, _MEMORY[type(one).__name__])
            for group in one.param_groups
            for p in group["params"]
        ]
        for one in optimizers
    ]
    wanted = {
        f"{name}/{kind}": torch.zeros(()) if kind == "step" else parameter
        for parameters in held
        for name, parameter, kinds in parameters
        if any(f"{name}/{kind}" in stored for kind in kinds)  # none of a parameter that never had a gradient
        for kind in kinds
    }
    check_fit(wanted, stored, what)
    for optimizer, parameters in zip(optimizers, held, strict=True):
        state = {
            index: {kind: stored[f"{name}/{kind}"] for kind in kinds}
            for index, (name, _, kinds) in enumerate(parameters)
            if f"{name}/{kinds[0]}" in stored
        }
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
