"""`rule`: add an operation to the streaming engine by writing down its per-sample gradients.

The package's docstring shows a worked example.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ntkdiag.kernel.streaming.contraction.gradients import Dense, PerSampleGradient
from ntkdiag.kernel.streaming.refusal import Unsupported
from ntkdiag.kernel.streaming.rules.general import (
    Call,
    Function,
    ParameterUse,
    SavedTensor,
    ToGradient,
    general_rule,
)
from ntkdiag.kernel.streaming.sample_axis.axis import SampleAxis

# (output gradient, operands it names …) → [N, *shape of the argument], or factors of it
Formula = Callable[..., Tensor | PerSampleGradient]
# The operation's arguments → a formula for each argument that may be a parameter
Formulas = Callable[..., dict[str, Formula]]
Core = int | Mapping[str, int]


def rule(
    family: str, functions: Iterable[Function], *, core: Core | Callable[..., Core] = 1
) -> Callable[[Formulas], Formulas]:
    """Register the formulas of an operation.

    The decorated function takes the operation's arguments, under torch's names, and returns {argument: formula} for those
    that may be parameters. A formula takes the gradient of the output, and by name those tensor arguments that it needs
    (only these are kept for the backward). It receives them as [N, T, *core dimensions]: N samples, T all other places
    at which the operation does the same (tokens, frames; 1 if there are none). It returns [N, *shape of the argument], or
    `Outer` or `Compressed`, which are cheaper to contract. An argument that is itself a parameter comes as it is.
    For a call that the formulas do not cover the function raises `Unsupported` with the reason.

    Args:
        family: The rule's name in the coverage.
        functions: All functions of torch that run the operation.
        core: How many trailing dimensions the operation works on; over all others it is repeated. One number for the
            output's gradient and all tensor arguments, {"grad" or argument: number}, or a function of the arguments that
            returns one of these. An argument that is not named has none.

    Raises:
        InputError: a function that has a rule already.

    Example:
        >>> from ntkdiag.kernel.streaming.rules import RULES, rule
        >>> @rule("bilinear", [torch.nn.functional.bilinear])
        ... def bilinear(input1, input2, weight, bias=None):
        ...     return {
        ...         "weight": lambda grad, input1, input2: torch.einsum("nto,nti,ntj->noij", grad, input1, input2),
        ...         "bias": lambda grad: grad.sum(1),
        ...     }
        >>> RULES.pop(torch.nn.functional.bilinear)[0]  # docs/extend/layer_rule.py measures with it
        'bilinear'
    """

    def register(formulas: Formulas) -> Formulas:
        arguments = inspect.signature(formulas).parameters.values()
        names = [each.name for each in arguments]
        defaults = {each.name: each.default for each in arguments if each.default is not each.empty}

        @general_rule(family, functions)
        def uses(call: Call) -> list[ParameterUse]:
            bound = call.bind(*names, **defaults)
            by_argument = formulas(**bound)
            parameters = {name: value for name, value in bound.items() if call.is_parameter(value)}
            unexpected = parameters.keys() - by_argument.keys()
            if unexpected:
                raise Unsupported(f"a parameter as its {min(unexpected)}")
            dims = core(**bound) if callable(core) else core
            return [
                ParameterUse(value, _gradient(f"rule '{family}', {name}", by_argument[name], value, bound, parameters, dims))
                for name, value in parameters.items()
            ]  # fmt: skip

        return formulas

    return register


def _gradient(
    what: str, formula: Formula, parameter: Tensor, bound: dict[str, Any], parameters: Mapping[str, Tensor], core: Core
) -> ToGradient:  # fmt: skip
    """A formula as the engine calls it: with the gradient of the output, and where the samples are in it."""
    shape, at_output = parameter.shape, _dims(core, "grad")
    kept: list[tuple[SavedTensor | None, int | None]] = []  # each operand, and its core dimensions
    for name in _operands(what, formula, bound):
        value = bound[name]
        dims = None if name in parameters else _dims(core, name)
        kept.append((None, None) if value is None else (SavedTensor(value), dims))

    def gradient(grad: Tensor, axis: SampleAxis) -> PerSampleGradient:
        values: list[Tensor | None] = [axis.rows(grad, at_output)]
        mixed = False
        for saved, dims in kept:
            value = None if saved is None else saved.get()
            if value is not None:
                value = value if dims is None else axis.rows(value, dims)
                mixed |= value.dtype != grad.dtype
            values.append(value)
        found = formula(*(_same_dtype(values) if mixed else values))
        if not isinstance(found, Tensor):
            return found
        if found.shape != (axis.samples, *shape):
            raise ValueError(f"{what}: expected {(axis.samples, *shape)}; got {tuple(found.shape)}.")
        return Dense(found)

    return gradient


def _dims(core: Core, name: str) -> int:
    return core if isinstance(core, int) else core.get(name, 0)


def _operands(what: str, formula: Formula, bound: dict[str, Any]) -> tuple[str, ...]:
    """Names of the operands that a formula takes beside the output's gradient."""
    code = formula.__code__  # of a function or a lambda: inspect.signature takes longer
    names: tuple[str, ...] = code.co_varnames[1 : code.co_argcount]
    unknown = [name for name in names if not isinstance(bound.get(name, ...), Tensor | None)]
    if unknown:
        raise ValueError(
            f"{what}: expected tensor arguments of the operation ({', '.join(bound)}); got {unknown[0]}."
        )
    return names


def _same_dtype(values: list[Tensor | None]) -> list[Tensor | None]:
    """Floating-point values in their common dtype: under autocast some are half precision. Indices stay integers."""
    floating = [value.dtype for value in values if value is not None and value.is_floating_point()]
    common = reduce(torch.promote_types, floating)
    return [v.to(common) if v is not None and v.is_floating_point() else v for v in values]
