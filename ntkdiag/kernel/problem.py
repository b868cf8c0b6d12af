"""What every engine is given: the module, the parameters, the samples and the directions of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ntkdiag.distributed import Share
from ntkdiag.kernel.directions import Directions
from ntkdiag.kernel.sketch import Sketch


@dataclass(frozen=True)
class Problem:
    """The Gram matrices of J_iᵀ v that are asked for, one for each group of parameters.

    Attributes:
        module: Called as module(*inputs), in eval mode.
        parameters: Name → parameter.
        inputs: Tensors [N, ...].
        directions: See `ntkdiag.kernel.directions`.
        group: Parameter name → group label.
        inverse_preconditioner: Parameter name → 1/p of its shape: entries become Σ g_i g_j / p. Empty for none.
        memory: Bytes to work in; None takes most of what the device has free.
        in_one_sweep: Rather than run a network again for pairs of tiles, the streaming engine raises `SeveralSweeps`.
        sketch: Entries are those of sketched gradients, whose projections hold the preconditioner; None for the gradients.
        share: How many processes share the samples; None for this one alone.
    """

    module: nn.Module
    parameters: dict[str, nn.Parameter]
    inputs: tuple[Tensor, ...]
    directions: Directions
    group: Callable[[str], str]
    inverse_preconditioner: dict[str, Tensor]
    memory: int | None = None
    in_one_sweep: bool = False
    sketch: Sketch | None = None
    share: Share | None = None

    @property
    def samples(self) -> int:
        """N."""
        return self.inputs[0].shape[0]

    def only(self, names: Container[str]) -> Problem:
        """The same with some of the parameters."""
        return replace(self, parameters={name: p for name, p in self.parameters.items() if name in names})

    def of_this_process(self) -> Problem:
        """The same with the samples that this process runs. Directions are asked for by position among these."""
        if self.share is None:
            return self
        ran, every = self.share.ran, self.directions
        return replace(
            self,
            inputs=tuple(tensor[ran] for tensor in self.inputs),
            directions=lambda output, picked: every(output, picked + ran.start),
        )

    def measured(self, name: str, gradients: Tensor, probe: int) -> Tensor:
        """What the kernel is made of: gradients [n, *shape or flattened], or their sketches; [n, length]."""
        if self.sketch is None:
            return gradients.reshape(len(gradients), -1)
        return self.sketch.of(name, self.parameters[name], probe).rows(gradients)

    def at(self, positions: Tensor) -> tuple[Tensor, ...]:
        """The inputs of some samples."""
        return tuple(tensor.index_select(0, positions.to(tensor.device)) for tensor in self.inputs)


def few_samples(samples: int, *, besides: set[int], at_least: int = 1) -> Tensor:
    """Positions of a few samples, the last and the first in turn.

    Args:
        samples: N.
        besides: Numbers of samples that these must differ from.
        at_least: How many there must be. Two put the last sample before the first, which shows a dependence on samples
            before or behind.
    """
    count = next(m for m in range(at_least, at_least + len(besides) + 1) if m not in besides)
    return torch.tensor([samples - 1, 0] * count)[:count]
