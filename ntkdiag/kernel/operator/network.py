"""A module on fixed samples: called with other values in place of its parameters, or as it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel.autograd import Direction, PlainAutograd
from ntkdiag.kernel.directions import checked_output
from ntkdiag.kernel.eager import plain_eager
from ntkdiag.kernel.guards import require_same
from ntkdiag.kernel.inference_mode import usable
from ntkdiag.modes import measuring

# Parameter-shaped tensors, in the order of the network's parameters.
Tangent = tuple[Tensor, ...]
# (position of one sample [1], direction) → its output [1, *out] and Jᵀ v by parameter, see `PlainAutograd.pull`
PlainGradient = Callable[[Tensor, Direction], tuple[Tensor, dict[str, Tensor | None]]]


class Network:
    """A module, its parameters and its samples.

    Args:
        module: Called in eval mode; after each call it is as it was.
        parameters: Name → parameter. They must not change while this is used.
        inputs: Tensors [N, ...].
        keep: Whether to keep the graph of all samples.

    Attributes:
        leaves: Name → the parameter's values, as a leaf of autograd.
        everything: Positions of all samples.
        alone: Position → the sample's output in a batch of its own, until it has been compared with that in a larger batch.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        inputs: tuple[Tensor, ...],
        *,
        keep: bool = True,
    ) -> None:
        self.module = module
        self.parameters = dict(parameters)
        self.inputs = tuple(usable(tensor.detach()) for tensor in inputs)
        self.leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        self.everything = torch.arange(len(inputs[0]))
        self.alone: dict[int, Tensor] = {}
        self._still = {name: p.detach() for name, p in module.named_parameters() if name not in parameters}
        self._keep = keep
        self._kept: Tensor | None = None
        self._before = self._state()

    def samples(self, part: Tensor) -> tuple[Tensor, ...]:
        """Copies of the inputs of some samples."""
        return tuple(tensor[part.to(tensor.device)] for tensor in self.inputs)

    def call(self, part: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """The module on some samples with these values in place of its parameters.

        It is called with copies of its inputs and buffers, because it may write into them.

        Raises:
            MeasurementError: the first or the last sample has another output in this batch than alone.
        """
        with torch.enable_grad(), plain_eager(), measuring(self.module):
            buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
            replaced = {**buffers, **self._still, **values}
            out = checked_output(functional_call(self.module, replaced, self.samples(part)), len(part))
        self._compare_with_alone(part, out)
        return out

    def keeps(self, part: Tensor) -> bool:
        """Whether the graph of these samples is kept: of all of them, given as `everything`."""
        return self._keep and part is self.everything

    def graph(self, part: Tensor) -> Tensor:
        """The output of some samples, with its graph to the leaves; see `keeps`."""
        if not self.keeps(part):
            return self.call(part, self.leaves)
        if self._kept is None:
            self._kept = self.call(part, self.leaves)
        return self._kept

    @contextmanager
    def as_it_stands(self) -> Iterator[PlainGradient]:
        """Plain autograd of the module, in which nothing is replaced."""
        with PlainAutograd(self.module, self.parameters) as plain:

            def gradient(position: Tensor, direction: Direction) -> tuple[Tensor, dict[str, Tensor | None]]:
                with measuring(self.module):
                    return plain.pull(self.samples(position), direction)

            yield gradient

    def filled(self, found: Mapping[str, Tensor | None]) -> Tangent:
        """Gradients by name in the order of the parameters, zero where autograd passes none."""
        pairs = ((found[name], leaf) for name, leaf in self.leaves.items())
        return tuple(torch.zeros_like(leaf) if gradient is None else gradient for gradient, leaf in pairs)

    def require_unchanged(self) -> None:
        """Raise a MeasurementError if parameters have been written into or replaced."""
        if self._state() != self._before:
            raise MeasurementError(
                "network: expected parameters that stay as they are while the operator is used; got some written into. "
                "Make a new operator after each training step."
            )

    def _state(self) -> list[tuple[int, int]]:
        return [(leaf._version, self.parameters[name].data_ptr()) for name, leaf in self.leaves.items()]

    def _compare_with_alone(self, part: Tensor, out: Tensor) -> None:
        if len(part) < 3 or not self.alone:  # both ends in a batch of two have been compared
            return
        place = {position: k for k, position in enumerate(part.tolist())}
        values = forward_ad.unpack_dual(out).primal.detach()
        for position in [position for position in self.alone if position in place]:
            require_same(values[place[position]], self.alone.pop(position), "in the output")
