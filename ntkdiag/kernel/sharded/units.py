"""Units: the parameters of a sharded network that are gathered together, as `fully_shard` was called for their module.

A parameter belongs to the innermost module around it for which `fully_shard` was called. While its unit is not gathered it
has a shape but no memory; views of it, and what autograd keeps of them, get their values back with the unit's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Module, name and sharded parameter; a tied one at each of its places.
Place = tuple[nn.Module, str, Any]


class Unit:
    """Parameters that are gathered together.

    Args:
        modules: For which `fully_shard` was called; several where they share parameters.
        places: Where the parameters are.
        name: For messages.

    Attributes:
        whole: id of a sharded parameter → the whole one.
        filled: Whether the whole parameters have values.
        addresses: Where their memory begins, as long as they have values.
    """

    def __init__(self, modules: list[nn.Module], places: list[Place], name: str) -> None:
        self.modules = modules
        self.places = places
        self.name = name
        self.sharded = {id(parameter): parameter for _, _, parameter in places}
        self.whole = {key: _without_memory(parameter) for key, parameter in self.sharded.items()}
        self.filled = False
        self.addresses: set[int] = set()
        self._parts = {id(part) for module in modules for part in module.modules()}

    def is_in_line_with(self, other: Unit) -> bool:
        """Whether one of the two is inside the other, so that both are needed at the same time."""
        return any(id(module) in self._parts for module in other.modules) or any(
            id(module) in other._parts for module in self.modules
        )

    def allocate(self) -> None:
        """Take memory for the whole parameters."""
        for parameter in self.whole.values():
            memory = parameter.untyped_storage()
            if memory.nbytes() == 0:
                memory.resize_(parameter.nbytes)

    def gather(self) -> None:
        """Get their values; called by all processes at the same time."""
        with torch.no_grad():
            for key, parameter in self.whole.items():
                # through .data: the version of what autograd has kept stays the same, as its values do
                parameter.data.copy_(self.sharded[key].detach().full_tensor())
        self.addresses = {address(parameter) for parameter in self.whole.values()} - {0}
        self.filled = True

    def free(self) -> None:
        """Give up the memory of the whole parameters."""
        self.filled, self.addresses = False, set()
        for parameter in self.whole.values():
            memory = parameter.untyped_storage()
            if memory.resizable():  # that of one which was shown as a numpy array is not
                memory.resize_(0)


def units_of(root: nn.Module, sharded: Iterable[Place], wrapped: list[nn.Module]) -> list[Unit]:
    """The units of a network.

    Args:
        root: The network.
        sharded: Its sharded parameters.
        wrapped: The modules for which `fully_shard` was called, those inside others behind them.
    """
    owner = {id(part): root for part in root.modules()}
    for module in wrapped:
        owner |= {id(part): module for part in module.modules()}
    names = {id(part): name or "the network itself" for name, part in root.named_modules()}
    groups: list[tuple[list[nn.Module], list[Place]]] = []
    for place in sharded:
        module = owner[id(place[0])]
        same = [
            group
            for group in groups
            if any(module is other for other in group[0]) or any(place[2] is p for _, _, p in group[1])
        ]
        modules = [each for group in same for each in group[0]]
        modules += [] if any(module is other for other in modules) else [module]
        places = [each for group in same for each in group[1]]
        groups = [group for group in groups if not any(group is other for other in same)]
        groups.append((modules, [*places, place]))
    return [Unit(modules, places, names[id(modules[0])]) for modules, places in groups]


def _without_memory(parameter: Any) -> nn.Parameter:
    """A whole parameter that has no values yet."""
    with torch.inference_mode(False):
        values = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
        whole = nn.Parameter(values, requires_grad=parameter.requires_grad)
    whole.untyped_storage().resize_(0)
    return whole


def address(tensor: Tensor) -> int:
    """Where a tensor's memory begins; 0 if it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:  # sparse tensors have no storage of their own
        return 0
