"""Linearization: a module's Jacobian with respect to its parameters as two products, without forming it.

`pull` is Jᵀ v by reverse mode on a graph that is kept between calls. `push` is J u by forward mode; where that fails, by
differentiating the reverse-mode product once more. The first method that agrees with `pull` on two samples is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, grad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntkdiag.errors import MeasurementError, require_positive_int
from ntkdiag.kernel.directions import checked_output
from ntkdiag.kernel.eager import plain_eager
from ntkdiag.kernel.engines import require_batch
from ntkdiag.kernel.guards import MixingGuard, require_same
from ntkdiag.modes import measuring

# Parameter-shaped tensors, in the order of the linearization's parameters.
Tangent = tuple[Tensor, ...]

FORWARD, DOUBLE_BACKWARD, ROWS = "forward mode", "double backward", "row by row"
# ⟨J u, v⟩ and ⟨u, Jᵀ v⟩ may differ by this share of ‖J u‖ ‖v‖, tuned here: a network that casts to the next lower
# precision inside is within it, a branch whose derivative is missing is not.
_AGREEMENT = {torch.float64: 1e-5, torch.float32: 0.01}


class Linearization:
    """J = ∂module(*inputs)/∂θ at the current parameters.

    Args:
        module: Called in eval mode; after each call it is as it was.
        parameters: Name → parameter. They must not change while this is used.
        inputs: Tensors [N, ...].
        chunk: Samples whose graph is kept at a time; None keeps that of all samples, which saves a forward in each product.

    Attributes:
        method: How J u is computed. "forward mode" costs three to four forwards; "double backward" about six, where an
            operation has no forward-mode derivative or one that reverse mode does not share (what is under no_grad,
            for one); "row by row", a backward for each output of each sample, where it can be differentiated only once.
        output_shape: [N, *out].
        parameter_count: P.

    Raises:
        InputError: inputs that are no batch, a chunk below 1, a module that does not return one row for each sample.
        MeasurementError: samples that are not independent, an output that is not finite or not the same every time.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        inputs: tuple[Tensor, ...],
        chunk: int | None = None,
    ) -> None:
        samples = require_batch(inputs)
        size = samples if chunk is None else require_positive_int("chunk", chunk)
        self._module = module
        self._leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        self._still = {name: p.detach() for name, p in module.named_parameters() if name not in parameters}
        self._version = self._versions()
        self._inputs = tuple(tensor.detach() for tensor in inputs)
        self._parts = list(torch.arange(samples).split(size))
        self._kept: Tensor | None = None
        self.output_shape = torch.Size((samples, *self._checked_shape()))
        self.parameter_count = sum(leaf.numel() for leaf in self._leaves.values())
        self.method = self._choose_method()

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
        self._require_unchanged()
        total = self._backward(self._parts[0], cotangent)
        for part in self._parts[1:]:
            found = self._backward(part, cotangent)
            total = tuple(a + b for a, b in zip(total, found, strict=True))
        return total

    def push(self, tangent: Tangent) -> Tensor:
        """J u, [N, *out], for tensors u of each parameter's shape."""
        self._require_unchanged()
        along = self._methods()[self.method]
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

    def _call(self, part: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """The module on some samples, called with copies of its inputs and buffers because it may write into them."""
        inputs = tuple(tensor[part.to(tensor.device)] for tensor in self._inputs)
        with torch.enable_grad(), plain_eager(), measuring(self._module):
            buffers = {name: buffer.clone() for name, buffer in self._module.named_buffers()}
            out: Tensor = functional_call(self._module, {**buffers, **self._still, **values}, inputs)
        return out

    def _backward(self, part: Tensor, cotangent: Tensor) -> Tangent:
        """Jᵀ v of some samples; the graph is kept if they are all samples."""
        whole = len(part) == self._inputs[0].shape[0]
        out = self._kept if whole and self._kept is not None else self._call(part, self._leaves)
        if whole:
            self._kept = out
        leaves = list(self._leaves.values())
        if not out.requires_grad:
            return tuple(torch.zeros_like(leaf) for leaf in leaves)
        rows = cotangent if whole else cotangent[part.to(cotangent.device)]
        return grad(out, leaves, rows, retain_graph=whole, materialize_grads=True)

    def _forward(self, part: Tensor, tangent: Tangent) -> Tensor:
        """J u by forward mode; fused attention has no such derivative, so the plain one is used inside this function."""
        with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            pairs = zip(self._leaves.items(), tangent, strict=True)
            values = {name: forward_ad.make_dual(leaf.detach(), moved) for (name, leaf), moved in pairs}
            out = self._call(part, values)
            moved = forward_ad.unpack_dual(out).tangent
            return torch.zeros_like(out) if moved is None else moved.detach()

    def _double_backward(self, part: Tensor, tangent: Tangent) -> Tensor:
        """J u = ∂/∂w ⟨Jᵀ w, u⟩: Jᵀ w is linear in w, so any w will do (Townsend 2017)."""
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            out = self._call(part, self._leaves)
            w = torch.zeros_like(out, requires_grad=True)
            if not out.requires_grad:
                return w.detach()
            pulled = grad(out, list(self._leaves.values()), w, create_graph=True, materialize_grads=True)
            pairs = [(p, u) for p, u in zip(pulled, tangent, strict=True) if p.requires_grad]
            if not pairs:
                return w.detach()
            product = grad([p for p, _ in pairs], w, [u for _, u in pairs], materialize_grads=True)[0]
        return product.detach()

    def _row_by_row(self, part: Tensor, tangent: Tangent) -> Tensor:
        """Every row of J in turn, times u."""
        out, leaves = self._call(part, self._leaves), list(self._leaves.values())
        if not out.requires_grad:
            return torch.zeros_like(out)
        products = []
        for one in out.flatten():
            row = grad(one, leaves, retain_graph=True, materialize_grads=True)
            products.append(torch.stack([(g * u).sum() for g, u in zip(row, tangent, strict=True)]).sum())
        return torch.stack(products).reshape(out.shape)

    def _methods(self) -> dict[str, Callable[[Tensor, Tangent], Tensor]]:
        """Cheapest first."""
        return {FORWARD: self._forward, DOUBLE_BACKWARD: self._double_backward, ROWS: self._row_by_row}

    def _checked_shape(self) -> torch.Size:
        """The shape of a sample's output, after two forwards that must agree on the first sample."""
        values = {name: leaf.detach() for name, leaf in self._leaves.items()}
        with MixingGuard(self._module):
            alone = checked_output(self._call(torch.arange(1), values), 1)
            beside = self._call(torch.arange(min(2, len(self._inputs[0]))), values)[:1]
        require_same(alone.detach(), beside.detach(), "in the output")
        return alone.shape[1:]

    def _choose_method(self) -> str:
        """The first method for J u that works and has ⟨J u, v⟩ = ⟨u, Jᵀ v⟩, tried on up to two samples."""
        generator = torch.Generator().manual_seed(0)

        def normal(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.like)

        few = torch.arange(min(2, self.output_shape[0]))
        v = normal((len(few), *self.output_shape[1:]))
        u = tuple(normal(leaf.shape) for leaf in self._leaves.values())
        pulled = self._backward(few, v)
        expected = sum(float((a.double() * b.double()).sum()) for a, b in zip(u, pulled, strict=True))
        for method, along in self._methods().items():
            try:
                pushed = along(few, u).double()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # an operation without this kind of derivative
                continue
            allowed = _AGREEMENT.get(self.like.dtype, 0.1) * float(pushed.norm() * v.double().norm())
            if abs(float((pushed * v.double()).sum()) - expected) <= allowed:
                return method
        raise MeasurementError(
            "network: expected derivatives that are finite and the same every time; got ⟨J u, v⟩ other than ⟨u, Jᵀ v⟩ "
            "whichever way it is computed. Look for a root or a norm at zero, and for random numbers."
        )

    def _versions(self) -> list[int]:
        return [leaf._version for leaf in self._leaves.values()]

    def _require_unchanged(self) -> None:
        if self._versions() != self._version:
            raise MeasurementError(
                "network: expected parameters that stay as they are while the operator is used; got some written into. "
                "Make a new operator after each training step."
            )
