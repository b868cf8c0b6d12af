"""Selects the parameters that the kernel is taken with respect to."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from ntkdiag.errors import InputError


def select_parameters(
    module: nn.Module, patterns: str | Sequence[str] | None = None
) -> dict[str, nn.Parameter]:
    """Parameters of `module` by name.

    Args:
        module: Any module.
        patterns: Shell-style name patterns ("blocks.*.attention.*"), one or several; None takes all
            parameters that require a gradient. A parameter reachable by two names (tied weights) is
            taken once, under its first name.

    Returns:
        Name → parameter, in the module's order.

    Raises:
        InputError: nothing is selected, or a pattern matches no parameter.
    """
    named = dict(module.named_parameters())
    if patterns is None:
        chosen = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        if not chosen:
            raise InputError(
                "params",
                expected="a network with trainable parameters",
                got=f"{len(named)} parameters, none of which requires a gradient",
                fix="Name some by pattern, or set requires_grad.",
            )
        return chosen
    matched = _matching(module, [patterns] if isinstance(patterns, str) else list(patterns))
    return {name: parameter for name, parameter in named.items() if id(parameter) in matched}


def _matching(module: nn.Module, patterns: list[str]) -> set[int]:
    """Identities of the parameters that some pattern matches; each pattern must match one."""
    if not patterns:
        raise InputError("params", expected="at least one name pattern", got="an empty list")
    names = dict(module.named_parameters(remove_duplicate=False))
    matched: set[int] = set()
    for pattern in patterns:
        hits = {id(parameter) for name, parameter in names.items() if fnmatchcase(name, pattern)}
        if not hits:
            some = ", ".join(list(names)[:3])
            raise InputError(
                "params",
                expected=f"a pattern matching some of {len(names)} names ({some}, …)",
                got=repr(pattern),
            )
        matched |= hits
    return matched
