"""The registry of rules: how each operation in which a parameter meets the batch yields per-sample gradients.

A rule receives a `Call` before the operation runs and returns its `ParameterUse`s, one for each source among the arguments;
each use turns the gradient of the operation's output into a `PerSampleGradient`. A rule
that cannot serve a particular call raises
`Unsupported` with the reason, and the parameters concerned are measured by the exact engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel.streaming.contraction.gradients import PerSampleGradient
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis


class Saved:
    """A tensor kept for the backward pass, with a check that nobody wrote into it since."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._version = tensor._version

    def get(self) -> Tensor:
        """The tensor.

        Raises:
            MeasurementError: an in-place operation changed it after it was used.
        """
        if self._tensor._version != self._version:
            raise MeasurementError(
                "network: expected activations that stay as they are until the backward pass; one was changed in place "
                "after a layer had used it. Turn in-place operations off there."
            )
        return self._tensor


# (gradient of the output, where its samples are) → per-sample gradients of the source
GradientFormula = Callable[[Tensor, SampleAxis], PerSampleGradient]


@dataclass(frozen=True)
class ParameterUse:
    """One use of a source by an operation."""

    source: Tensor
    gradient: GradientFormula


@dataclass(frozen=True)
class Call:
    """An intercepted operation: its function, arguments as the network gave them, and which of them are sources."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_parameter: Callable[[Any], bool]

    def bind(self, *names: str, **defaults: Any) -> dict[str, Any]:
        """Arguments by name, in the operation's order.

        Raises:
            Unsupported: an argument that the rule does not know.
        """
        if len(self.args) > len(names):
            raise Unsupported(f"{len(self.args)} positional arguments")
        bound = {**defaults, **dict(zip(names, self.args, strict=False)), **self.kwargs}
        unknown = set(bound) - set(names)
        if unknown:
            raise Unsupported(f"argument {sorted(unknown)[0]}")
        return {name: bound.get(name) for name in names}


Rule = Callable[[Call], list[ParameterUse]]

RULES: dict[Callable[..., Any], tuple[str, Rule]] = {}


def rule(family: str, functions: Iterable[Callable[..., Any]]) -> Callable[[Rule], Rule]:
    """Register a rule for several spellings of an operation."""

    def register(function: Rule) -> Rule:
        for spelled in functions:
            RULES[spelled] = (family, function)
        return function

    return register
