"""Linearization: a module's Jacobian with respect to its parameters as two products, without forming it.

`pull` is Jᵀ v, by reverse mode on a graph that is kept between calls. `push` is J u, by forward mode; where that fails, by
differentiating the reverse-mode product once more, or row by row. Each is tried on two samples and must agree with plain
autograd of the untouched module, which is the last resort itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from ntkdiag.errors import require_positive_int
from ntkdiag.kernel.autograd import gradients_set_aside
from ntkdiag.kernel.engines import require_batch
from ntkdiag.kernel.inference_mode import outside_inference_mode
from ntkdiag.kernel.operator.choice import choose
from ntkdiag.kernel.operator.network import Network, Tangent
from ntkdiag.kernel.operator.products import PULLS, PUSHES
from ntkdiag.kernel.operator.reference import Reference, reference_for


class Linearization:
    """J = ∂module(*inputs)/∂θ at the current parameters.

    Args:
        module: Called in eval mode; after each call it is as it was.
        parameters: Name → parameter. They must not change while this is used.
        inputs: Tensors [N, ...].
        chunk: Samples whose graph is kept at a time; None keeps that of all samples, which saves a forward in each product.
        outputs: Boolean mask [*out] of the outputs that matter, for the check; None takes all.
        check: Compare J u and Jᵀ v with plain autograd of the untouched module, for the first and the last sample. Without
            it they are compared with each other.

    Attributes:
        method: How J u is computed. "forward mode" costs three to four forwards; "double backward" about six, where an
            operation has no forward-mode derivative or one that reverse mode does not share (what is under no_grad,
            for one); "row by row", a backward for each output of each sample, where it can be differentiated only once;
            "plain autograd", a forward and a backward for each of them, where only the untouched module is right.
        adjoint_method: How Jᵀ v is computed: "reverse mode", or "plain autograd", a forward and a backward for each sample.
        passed_over: Product and method → why it is not used.
        reference: What they were compared with, which holds two gradients of all parameters; None after `forget`.
        output_shape: [N, *out].
        parameter_count: P.

    Raises:
        InputError: inputs that are no batch, a chunk below 1, a module that does not return one row for each sample.
        MeasurementError: samples that are not independent, an output that is not finite or not the same every time, or
            without gradients; no method agrees.
    """

    @outside_inference_mode()
    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        inputs: tuple[Tensor, ...],
        chunk: int | None = None,
        *,
        outputs: Tensor | None = None,
        check: bool = True,
    ) -> None:
        samples = require_batch(inputs)
        size = samples if chunk is None else require_positive_int("chunk", chunk)
        network = Network(module, parameters, inputs, keep=size >= samples)
        with gradients_set_aside(module):
            reference = reference_for(network, outputs, check=check)
            chosen = choose(network, reference)
        self._network = network
        self._parts = [network.everything] if size >= samples else list(network.everything.split(size))
        self.method, self.adjoint_method, self.passed_over = chosen.push, chosen.pull, chosen.passed_over
        self.reference: Reference | None = reference
        self.output_shape = torch.Size((samples, *reference.outputs.shape[1:]))
        self.parameter_count = sum(leaf.numel() for leaf in network.leaves.values())
        network.alone = dict(zip(reference.positions.tolist(), reference.outputs, strict=True))

    @property
    def like(self) -> Tensor:
        """An empty tensor of the dtype and device that vectors have."""
        leaves = list(self._network.leaves.values())
        widest = reduce(torch.promote_types, (leaf.dtype for leaf in leaves))
        return torch.empty(0, dtype=widest, device=leaves[0].device)

    def forget(self) -> None:
        """Drop the reference."""
        self.reference = None

    def at(self, positions: Tensor) -> Linearization:
        """J for some of the samples, by the same methods."""
        some = copy.copy(self)
        some._parts = [positions]
        some.output_shape = torch.Size((len(positions), *self.output_shape[1:]))
        return some

    @outside_inference_mode()
    def pull(self, cotangent: Tensor) -> Tangent:
        """Jᵀ v = Σ_i J_iᵀ v_i.

        Args:
            cotangent: v, [N, *out].

        Returns:
            A tensor of each parameter's shape.
        """
        self._network.require_unchanged()
        along = PULLS[self.adjoint_method]
        pieces = cotangent.split([len(part) for part in self._parts])
        with gradients_set_aside(self._network.module):
            found = (along(self._network, part, v) for part, v in zip(self._parts, pieces, strict=True))
            return reduce(_sum, found)

    @outside_inference_mode()
    def push(self, tangent: Tangent) -> Tensor:
        """J u, [N, *out], for tensors u of each parameter's shape."""
        self._network.require_unchanged()
        along = PUSHES[self.method]
        with gradients_set_aside(self._network.module):
            parts = [along(self._network, part, tangent) for part in self._parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def flatten(self, tangent: Tangent) -> Tensor:
        """One vector [P]."""
        return torch.cat([part.reshape(-1) for part in tangent])

    def unflatten(self, vector: Tensor) -> Tangent:
        """Parameter-shaped tensors of a vector [P]."""
        leaves = list(self._network.leaves.values())
        pieces = vector.split([leaf.numel() for leaf in leaves])
        return tuple(
            piece.reshape(leaf.shape).to(leaf.dtype) for piece, leaf in zip(pieces, leaves, strict=True)
        )


def _sum(a: Tangent, b: Tangent) -> Tangent:
    return tuple(x + y for x, y in zip(a, b, strict=True))
