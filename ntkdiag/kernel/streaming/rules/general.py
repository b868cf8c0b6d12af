"""The registry of rules, and what a rule is to the engine: from one call of an operation to its uses of parameters.

Most operations are served by formulas alone (`rule.py`). `general_rule` is for those that place or broadcast a parameter
anywhere, so that the rule itself must look at where the sample axis is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel.streaming.contraction.gradients import PerSampleGradient
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis

Function = Callable[..., Any]

# (gradient of the operation's output, its sample axis) → per-sample gradients of the parameter
ToGradient = Callable[[Tensor, SampleAxis], PerSampleGradient]


class SavedTensor:
    """A tensor that is kept for the backward pass, with a check that it was not overwritten in the meantime."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._version = tensor._version

    def get(self) -> Tensor:
        """The tensor.

        Raises:
            MeasurementError: an in-place operation changed it after it was saved.
        """
        if self._tensor._version != self._version:
            raise MeasurementError(
                "network: expected activations that stay as they are until the backward pass; one was changed in place "
                "after a layer had used it. Turn in-place operations off there."
            )
        return self._tensor


@dataclass(frozen=True)
class ParameterUse:
    """One use of a parameter (or of a tensor derived from parameters) as an argument of an operation."""

    tensor: Tensor
    gradient: ToGradient


@dataclass(frozen=True)
class Call:
    """One call of an operation: its function, its arguments, and a test for which of them are parameters."""

    function: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_parameter: Callable[[Any], bool]

    def bind(self, *names: str, **defaults: Any) -> dict[str, Any]:
        """Arguments by name, in the operation's order.

        Raises:
            Unsupported: an argument that is not among `names`.
        """
        if len(self.args) > len(names):
            raise Unsupported(f"{len(self.args)} positional arguments")
        bound = {**defaults, **dict(zip(names, self.args, strict=False)), **self.kwargs}
        unknown = set(bound) - set(names)
        if unknown:
            raise Unsupported(f"argument {sorted(unknown)[0]}")
        return {name: bound.get(name) for name in names}


GeneralRule = Callable[[Call], list[ParameterUse]]

# Function of torch → the family of its rule, and the rule
RULES: dict[Function, tuple[str, GeneralRule]] = {}


def general_rule(family: str, functions: Iterable[Function]) -> Callable[[GeneralRule], GeneralRule]:
    """Register a rule that receives the `Call` before the operation runs, and returns one `ParameterUse` for each
    parameter among the arguments. A call that it cannot serve raises `Unsupported` with the reason.

    Args:
        family: The rule's name in the coverage.
        functions: All functions of torch that run the operation.

    Raises:
        InputError: a function that has a rule already.
    """

    def register(function: GeneralRule) -> GeneralRule:
        for each in dict.fromkeys(functions):  # torch has the same function under several names
            if each in RULES:
                raise InputError(
                    f"rule '{family}'",
                    expected="an operation without a rule",
                    got=f"{each.__name__}, which the rule '{RULES[each][0]}' serves",
                    fix="Remove that one first (RULES.pop).",
                )
            RULES[each] = (family, function)
        return function

    return register
