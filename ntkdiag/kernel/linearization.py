"""Linearization: a module's Jacobian by its parameters as a pair of products, never formed.

`pull` is Jᵀ v by reverse mode on a graph that is kept between calls; `push` is J u by forward mode, or, where an operation
has no forward-mode derivative, by differentiating the reverse-mode product once more. Which of the two is found by trying.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntkdiag.kernel.directions import checked_output

# Parameter-shaped tensors, in the order of the linearization's parameters.
Tangent = tuple[Tensor, ...]

FORWARD, DOUBLE_BACKWARD = "forward mode", "double backward"


class Linearization:
    """J = ∂module(*inputs)/∂θ at the current parameters.

    Args:
        module: In eval mode for as long as this is used.
        parameters: Name → parameter.
        inputs: Tensors [N, ...].
        chunk: Samples whose graph is held at a time; None holds that of all samples, which saves one forward a product.

    Attributes:
        method: "forward mode", or "double backward" where an operation lacks a forward-mode derivative.
        output_shape: [N, *out].
        parameter_count: P.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: dict[str, nn.Parameter],
        inputs: tuple[Tensor, ...],
        chunk: int | None = None,
    ) -> None:
        self._module = module
        self._leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        self._inputs = tuple(tensor.detach() for tensor in inputs)
        samples = inputs[0].shape[0]
        self._parts = list(torch.arange(samples).split(samples if chunk is None else chunk))
        self._kept: Tensor | None = None
        with torch.no_grad():
            shape = checked_output(self._call(self._parts[0][:1]), 1).shape
        self.output_shape = torch.Size((samples, *shape[1:]))
        self.parameter_count = sum(leaf.numel() for leaf in self._leaves.values())
        self.method = self._probe()

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device that vectors must have."""
        return next(iter(self._leaves.values())).detach()

    def pull(self, cotangent: Tensor) -> Tangent:
        """Jᵀ v = Σ_i J_iᵀ v_i.

        Args:
            cotangent: v, [N, *out].

        Returns:
            A tensor of each parameter's shape.
        """
        total: list[Tensor] | None = None
        for part in self._parts:
            keep = len(self._parts) == 1
            rows = cotangent if keep else cotangent[part]
            found = grad(
                self._graph(part),
                list(self._leaves.values()),
                rows,
                retain_graph=keep,
                materialize_grads=True,
            )
            total = list(found) if total is None else [a + b for a, b in zip(total, found, strict=True)]
        assert total is not None  # there is at least one part
        return tuple(total)

    def push(self, tangent: Tangent) -> Tensor:
        """J u, [N, *out], for tensors u of each parameter's shape."""
        along = self._forward if self.method == FORWARD else self._double_backward
        parts = [along(part, tangent) for part in self._parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def flatten(self, tangent: Tangent) -> Tensor:
        """One vector [P]."""
        return torch.cat([part.reshape(-1) for part in tangent])

    def unflatten(self, vector: Tensor) -> Tangent:
        """Parameter-shaped tensors of a vector [P]."""
        leaves = list(self._leaves.values())
        pieces = vector.split([leaf.numel() for leaf in leaves])
        return tuple(piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True))

    def _call(self, part: Tensor, values: dict[str, Tensor] | None = None) -> Tensor:
        rows = (
            self._inputs
            if len(part) == self._inputs[0].shape[0]
            else tuple(t[part.to(t.device)] for t in self._inputs)
        )
        return functional_call(self._module, self._leaves if values is None else values, rows)

    def _graph(self, part: Tensor) -> Tensor:
        """The output with its graph; kept if one part holds all samples."""
        if len(self._parts) > 1:
            with torch.enable_grad():
                return self._call(part)
        if self._kept is None:
            with torch.enable_grad():
                self._kept = self._call(part)
        return self._kept

    def _forward(self, part: Tensor, tangent: Tangent) -> Tensor:
        """Forward mode; fused attention has no such derivative, so the plain one is used here and nowhere else."""
        values = {name: leaf.detach() for name, leaf in self._leaves.items()}
        moved = dict(zip(self._leaves, tangent, strict=True))
        call: Callable[[dict[str, Tensor]], Tensor] = lambda theta: self._call(part, theta)  # noqa: E731
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            return jvp(call, (values,), (moved,))[1]

    def _double_backward(self, part: Tensor, tangent: Tangent) -> Tensor:
        """J u = ∂/∂w ⟨Jᵀ w, u⟩: Jᵀ w is linear in w, so any w will do."""
        leaves = list(self._leaves.values())
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            out = self._call(part)
            w = torch.zeros_like(out, requires_grad=True)
            pulled = grad(out, leaves, w, create_graph=True, materialize_grads=True)
            pairs = [(p, t) for p, t in zip(pulled, tangent, strict=True) if p.requires_grad]
            if not pairs:
                return torch.zeros_like(out)
            product = grad([p for p, _ in pairs], w, [t for _, t in pairs], allow_unused=True)[0]
        return torch.zeros_like(out) if product is None else product.detach()

    def _probe(self) -> str:
        """Try forward mode on one sample, with a tangent that reaches every operation."""
        tangent = tuple(torch.ones_like(leaf) for leaf in self._leaves.values())
        try:
            self._forward(self._parts[0][:1], tangent)
        except (NotImplementedError, RuntimeError) as error:
            text = str(error)
            if isinstance(error, NotImplementedError) or "forward AD" in text or "forward-mode" in text:
                return DOUBLE_BACKWARD
            raise
        return FORWARD
