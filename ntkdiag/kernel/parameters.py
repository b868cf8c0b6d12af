"""Which parameters the kernel is taken with respect to."""

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
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            some = ", ".join(list(named)[:3])
            raise InputError(
                "params",
                expected=f"a pattern matching some of {len(named)} names ({some}, …)",
                got=repr(pattern),
            )
    return {n: p for n, p in named.items() if any(fnmatchcase(n, pattern) for pattern in patterns)}


def by_layer(name: str) -> str:
    """The layer a parameter belongs to: its name without the last part."""
    return name.rpartition(".")[0] or name


def by_block(name: str) -> str:
    """The first numbered part of a name and what stands before it ("blocks.3"), else the first part."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return parts[0]
