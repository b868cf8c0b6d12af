"""Selects the parameters that the kernel is taken with respect to, and refuses those that no engine can serve."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from ntkdiag.errors import InputError, kind_of, listed


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
        InputError: nothing is selected, a pattern matches no parameter, or a parameter cannot be differentiated by (it is
            sharded, has no values, or is not a real floating-point tensor).
    """
    require_whole(module)
    chosen = _selected(module, patterns)
    for name, parameter in chosen.items():
        _require_differentiable(name, parameter)
    return chosen


def require_whole(module: nn.Module) -> None:
    """Raise an InputError if the network is sharded over processes; nothing of it runs.

    Its parameters are then pieces, and a kernel of pieces would be wrong without a sign of it.
    """
    wrappers = (
        *_class("torch.distributed.fsdp", "FullyShardedDataParallel"),
        *_class(
            "torch.distributed.fsdp", "FSDPModule"
        ),  # of fully_shard: after a forward its parameters look whole
    )
    pieces = _class("torch.distributed.tensor", "DTensor")
    wrapped = [
        name or "the network itself" for name, part in module.named_modules() if isinstance(part, wrappers)
    ]
    sharded = [
        name for name, p in (*module.named_parameters(), *module.named_buffers()) if isinstance(p, pieces)
    ]
    if wrapped or sharded:
        kind = f"a sharded module in {listed(wrapped)}" if wrapped else f"DTensor in {listed(sharded)}"
        raise InputError(
            "network",
            expected="whole parameters on one device",
            got=kind,
            fix="Call nd.gram, nd.gram_of, nd.measure or nd.verify in every process with their argument 'distributed', "
            "which gathers the parameters of fully_shard. Or build the network once more without sharding, load the "
            "gathered weights (get_model_state_dict of torch.distributed.checkpoint.state_dict, with a full state dict), "
            "and pass that.",
        )


def _class(module: str, name: str) -> tuple[type, ...]:
    """A class of torch if its module has been imported; before that, no network can be made of it."""
    return (getattr(sys.modules[module], name),) if module in sys.modules else ()


def _require_differentiable(name: str, parameter: Tensor) -> None:
    if not parameter.is_floating_point():
        raise InputError(
            name,
            expected="real floating-point parameters",
            got=str(parameter.dtype).removeprefix("torch."),
            fix="Choose others by {params}.",
            arguments={"params": None},
        )
    if parameter.is_meta:
        raise InputError(
            name, expected="a parameter with values", got="one on the meta device", fix="Load the weights."
        )
    if parameter.is_inference():
        raise InputError(
            name,
            expected="a parameter that autograd can follow",
            got="one made inside torch.inference_mode()",
            fix="Load the network outside of it.",
        )


def _selected(module: nn.Module, patterns: str | Sequence[str] | None) -> dict[str, nn.Parameter]:
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
    matched = _matching(module, pattern_list(patterns))
    return {name: parameter for name, parameter in named.items() if id(parameter) in matched}


def pattern_list(patterns: str | Sequence[str]) -> list[str]:
    """One pattern or several, as a list.

    Raises:
        InputError: something else than texts.
    """
    several = (
        [patterns] if isinstance(patterns, str) or not isinstance(patterns, Iterable) else list(patterns)
    )
    if not all(isinstance(pattern, str) for pattern in several):
        raise InputError("params", expected="name patterns such as 'blocks.*'", got=kind_of(patterns))
    return several


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
