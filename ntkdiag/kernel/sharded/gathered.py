"""Networks that `fully_shard` (FSDP2) has sharded: whole parameters are put into them for as long as they are measured.

The whole parameters get their values a unit at a time (`gathering.py`). Networks are measured without FSDP's hooks, in the
dtype in which their parameters are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from ntkdiag.distributed import Processes
from ntkdiag.errors import MeasurementError
from ntkdiag.kernel.eager import uncompiled
from ntkdiag.kernel.sharded.gathering import Gathering, by_units
from ntkdiag.kernel.sharded.units import Place, units_of

# Dictionaries of a module that hold hooks of its forward.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


@contextmanager
def gathered(processes: Processes | None, *networks: object) -> Iterator[None]:
    """Inside the block, networks sharded by `fully_shard` have whole parameters; called by all processes.

    Args:
        processes: Those that measure together; None for this one alone, which gathers nothing.
        networks: Modules, or mappings of them by name; anything else is left to the checks of arguments.

    Raises:
        MeasurementError: something has put other parameters into the network inside the block.
    """
    if processes is None or "torch.distributed.fsdp" not in sys.modules:
        yield
        return
    with ExitStack() as stack:
        for root in _modules(networks):
            if _is_fully_sharded(root):
                stack.enter_context(
                    uncompiled()
                )  # a compiled graph would keep the parameters that it was made with
                stack.enter_context(_with_whole_parameters(processes, root))
        yield


@contextmanager
def _with_whole_parameters(processes: Processes, root: nn.Module) -> Iterator[None]:
    modules = list(root.modules())
    places, hooks = _sharded_parameters(modules), _hooks_of_fsdp(modules)
    units = units_of(root, places, [part for part in modules if _without_fsdp(type(part)) is not type(part)])
    whole = {key: parameter for unit in units for key, parameter in unit.whole.items()}
    classes = [(part, type(part)) for part in modules]
    try:
        for part, kind in classes:
            part.__class__ = _without_fsdp(kind)
        for part, name, parameter in places:
            part._parameters[name] = whole[id(parameter)]
        for part, where, every in hooks:
            setattr(
                part, where, type(every)((key, hook) for key, hook in every.items() if not _of_fsdp(hook))
            )
        with by_units(root, Gathering(processes, units), units):
            yield
        if any(part._parameters[name] is not whole[id(parameter)] for part, name, parameter in places):
            raise MeasurementError(
                "network: expected parameters that stay gathered while it is measured; got others. Look for hooks of the "
                "forward that shard them, or build the network without sharding."
            )
    finally:
        for part, kind in classes:
            part.__class__ = kind
        for part, name, parameter in places:
            part._parameters[name] = parameter
        for part, where, every in hooks:
            setattr(part, where, every)


def _modules(networks: tuple[object, ...]) -> Iterator[nn.Module]:
    for each in networks:
        if isinstance(each, nn.Module):
            yield each
        elif isinstance(each, Mapping):
            yield from (one for one in each.values() if isinstance(one, nn.Module))


def _is_fully_sharded(root: nn.Module) -> bool:
    """Whether all sharded parameters are those of `fully_shard`, along one dimension; a forward leaves them gathered."""
    from torch.distributed.fsdp import FSDPModule

    shards = [part for part in root.modules() if isinstance(part, FSDPModule)]
    for part in shards:
        part.reshard()
    pieces: list[Any] = [parameter for parameter in root.parameters() if _is_piece(parameter)]
    return bool(shards) and all(
        sum(placement.is_shard() for placement in parameter.placements) == 1
        for parameter in pieces
        if parameter.device_mesh.size() > 1
    )


def _without_fsdp(kind: type) -> type:
    """The class that `fully_shard` has derived its own from."""
    from torch.distributed.fsdp import FSDPModule

    return kind.__mro__[kind.__mro__.index(FSDPModule) + 1] if issubclass(kind, FSDPModule) else kind


def _is_piece(parameter: object) -> Any:
    from torch.distributed.tensor import DTensor

    return isinstance(parameter, DTensor)


def _sharded_parameters(modules: list[nn.Module]) -> list[Place]:
    """Module, name and sharded parameter; a tied one at each of its places."""
    return [
        (part, name, parameter)
        for part in modules
        for name, parameter in part._parameters.items()
        if _is_piece(parameter)
    ]


def _hooks_of_fsdp(modules: list[nn.Module]) -> list[tuple[nn.Module, str, Any]]:
    """Module, which dictionary, and the dictionary."""
    return [
        (part, kind, getattr(part, kind))
        for part in modules
        for kind in _HOOKS
        if any(_of_fsdp(hook) for hook in getattr(part, kind).values())
    ]


def _of_fsdp(hook: Any) -> bool:
    """Whether a hook gathers and shards parameters: a method of FSDP's state, or a function around one."""
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed.fsdp")
