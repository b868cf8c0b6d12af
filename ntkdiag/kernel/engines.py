"""Which engine computes a kernel, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.kernel.directions import Directions, of_output
from ntkdiag.kernel.exact import gram_exact
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.streaming import gram_streaming

ENGINES = ("auto", "streaming", "exact")


@dataclass(frozen=True)
class Measured:
    """What an engine returns.

    Attributes:
        per_probe: [R, N, N] float64 on the CPU.
        engine: streaming, exact, or "streaming + exact" where some parameters needed the exact one.
        coverage: Parameter name → how its gradient was obtained.
        parameters: P, scalar parameters the kernel is over.
        groups: Group label → [R, N, N].
    """

    per_probe: Tensor
    engine: str
    coverage: dict[str, str]
    parameters: int
    groups: dict[str, Tensor] = field(default_factory=dict)


def run(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    directions: Directions,
    *,
    params: str | Sequence[str] | None = None,
    engine: str = "auto",
    memory: int | None = None,
    group: Callable[[str], str] | None = None,
    preconditioner: dict[str, Tensor] | None = None,
) -> Measured:
    """Gram matrices of J_iᵀ v by the engine asked for; see `gram_of` for the other arguments.

    Args:
        directions: See `ntkdiag.kernel.directions`.

    Raises:
        InputError: shapes that do not fit, unknown engine, nothing to differentiate by.
    """
    require_one_of("engine", engine, ENGINES)
    with measuring(module):
        parameters = select_parameters(module, params)
        scaling = _checked(preconditioner, parameters)
        count = sum(p.numel() for p in parameters.values())
        if engine == "exact":
            rows = of_output(module, inputs, directions)
            return _exact(module, parameters, inputs, rows, memory, group, scaling, count)
        found = gram_streaming(
            module, parameters, inputs, directions, memory=memory, group=group, preconditioner=scaling
        )
        fallen_back = any(how.startswith("exact") for how in found.coverage.values())
        name = "streaming + exact" if fallen_back else "streaming"
        return Measured(found.per_probe, name, found.coverage, count, found.groups if group else {})


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


def _exact(
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: tuple[Tensor, ...],
    rows: Tensor,
    memory: int | None,
    group: Callable[[str], str] | None,
    scaling: dict[str, Tensor],
    count: int,
) -> Measured:
    members: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in parameters.items():
        members.setdefault(group(name) if group else "", {})[name] = parameter
    weights = {name: 1 / p for name, p in scaling.items()}
    grams = {
        label: gram_exact(module, some, inputs, rows, memory, {n: weights[n] for n in some if n in weights})
        for label, some in members.items()
    }
    total = torch.stack(list(grams.values())).sum(0)
    coverage = dict.fromkeys(parameters, "exact")
    return Measured(total, "exact", coverage, count, grams if group else {})


def _checked(
    preconditioner: dict[str, Tensor] | None, parameters: dict[str, nn.Parameter]
) -> dict[str, Tensor]:
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
