"""The values of a network's tensors, one after another, so that a sharded network is never gathered whole to read them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from ntkdiag.kernel.sharded.gathering import gathering_of


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers as in the state dict, without extra state that is not a tensor."""
    state = network.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def sharded_as(parameter: Tensor, values: Tensor) -> Tensor:
    """Whole values, or where the parameter is sharded each process's piece of them; called by all processes then."""
    if "torch.distributed.tensor" not in sys.modules:
        return values
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return values
    return distribute_tensor(values.to(parameter.device), parameter.device_mesh, parameter.placements)


def with_values(network: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Some of a network's parameters and buffers, or copies of them, in order; called by all processes that measure it."""
    gathering = gathering_of(network)
    for tensor in tensors.values():
        if gathering is None or not gathering.serves(tensor):
            yield tensor.detach()
        else:
            gathering.require([tensor])
            yield tensor.detach().clone()  # memory that is shown as a numpy array could not be given up
