"""One forward of a network under the recorder, and the check that no use of a parameter was missed.

The recorder replaces parameters by detached values, so the output's autograd graph must not end in any of them. A
parameter in which it does end was used by an operation that the recorder does not see (a custom autograd function, say);
it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.kernel.directions import checked_output
from ntkdiag.kernel.sharded import gathering_of
from ntkdiag.kernel.streaming.recording.derived import parameter_itself
from ntkdiag.kernel.streaming.recording.recorder import RecordedOperation, Recorder


@dataclass(frozen=True)
class Network:
    """A module and the parameters that the streaming engine serves."""

    module: nn.Module
    parameters: dict[str, nn.Parameter]

    def without(self, names: set[str]) -> Network:
        """The same with fewer parameters."""
        return Network(self.module, {name: p for name, p in self.parameters.items() if name not in names})

    def require(self, names: Iterable[str]) -> None:
        """See to it that parameters have values, where the network is sharded over processes."""
        gathering = gathering_of(self.module)
        if gathering is not None:
            gathering.require(self.parameters[name] for name in names)

    def any_process(self, own: bool) -> bool:
        """Whether something is so in any process that has a part of a sharded network: all run it equally often."""
        gathering = gathering_of(self.module)
        return own if gathering is None else gathering.any_process(own)

    def looking(self) -> AbstractContextManager[None]:
        """See `Gathering.looking`."""
        gathering = gathering_of(self.module)
        return nullcontext() if gathering is None else gathering.looking()


@dataclass(frozen=True)
class Forward:
    """Result of a recorded forward.

    Attributes:
        output: [m, ...].
        ends: Leaves of the output's graph; a backward to them passes every operation that the output depends on.
        refused: Parameter name → why no rule serves it.
    """

    output: Tensor
    ends: list[Tensor]
    refused: dict[str, str]

    def kept(self) -> Iterator[Tensor]:
        """Tensors that autograd keeps for the backward."""
        nodes = _nodes(self.output)
        shown_by = {
            kind: [name for name in dir(kind) if name.startswith("_saved_") or name == "saved_tensors"]
            for kind in {type(node) for node in nodes}
        }
        for node in nodes:
            for name in shown_by[type(node)]:
                try:
                    value = getattr(node, name)
                except RuntimeError:  # overwritten since: autograd will say so if it comes to need it
                    continue
                yield from (
                    v for v in (value if isinstance(value, tuple) else [value]) if isinstance(v, Tensor)
                )


class _Tap(torch.autograd.Function):
    """Makes a tensor require a gradient in place, so that a hook on it is called; its graph then ends in the anchor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None


def forward(
    network: Network, inputs: tuple[Tensor, ...], on_operation: Callable[[RecordedOperation], None]
) -> Forward:
    """Run the network on copies of `inputs`.

    Args:
        network: What is measured.
        inputs: Tensors [m, ...].
        on_operation: Called with every recorded operation, once its output requires a gradient.
    """
    inputs = tuple(tensor.detach().clone() for tensor in inputs)  # a network may write into its inputs
    leaves = {name: parameter.detach().requires_grad_() for name, parameter in network.parameters.items()}
    anchor = torch.zeros((), requires_grad=True, device=inputs[0].device)

    def note(operation: RecordedOperation) -> None:
        if not operation.output.requires_grad:
            _Tap.apply(operation.output, anchor)
        on_operation(operation)

    parameters = {}
    for name, leaf in leaves.items():
        parameters[id(leaf)] = parameters[id(network.parameters[name])] = parameter_itself(name, leaf)
    others = {
        id(p): p.detach() for p in network.module.parameters() if id(p) not in parameters and p.requires_grad
    }
    recorder = Recorder(network.module, parameters, others, inputs, note)
    with torch.enable_grad(), recorder:
        output = checked_output(network.module(*inputs), inputs[0].shape[0])
    ends = [node.variable for node in _nodes(output) if hasattr(node, "variable")]
    unseen = {id(end) for end in ends}
    refused = dict(recorder.unsupported)
    for name, leaf in leaves.items():
        if id(leaf) in unseen or id(network.parameters[name]) in unseen:
            refused.setdefault(name, "reaches the output by an operation that cannot be seen")
    return Forward(output, ends, refused)


def _nodes(output: Tensor) -> list[Any]:
    """All nodes of a tensor's graph."""
    found: dict[Any, None] = {}
    stack = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found[node] = None
            stack.extend(parent for parent, _ in node.next_functions)
    return list(found)
