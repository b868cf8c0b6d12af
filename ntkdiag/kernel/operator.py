"""NTKOperator: the full kernel J·Jᵀ of size N·D × N·D as an operator, never formed.

A scipy LinearOperator (eigsh, lobpcg and cg take it as it is) and a torch product in one, on the network's device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.kernel.gram import within_denoiser
from ntkdiag.kernel.linearization import Linearization
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.process.schedule import as_level


class NTKOperator(LinearOperator):
    """J_rows P⁻¹ J_columnsᵀ of a denoiser.

    Rows and columns are (sample, output) pairs, sample-major: entry (i·D + a, j·D + b) = J_i[a] · J_j[b].

    Args:
        denoiser: The network; put into eval mode for as long as the operator is used.
        x: Noisy inputs [N, *shape].
        log_snr: One number, or one a sample [N].
        cond: Conditioning handed to the network.
        params: Name patterns; None takes the trainable parameters.
        chunk: Samples whose graph is held at a time; None holds all, which is fastest.
        rows, columns: Samples the operator is restricted to (a bucket, say); None takes all. Different sets give a
            cross block, which is not square or symmetric.
        outputs: Boolean mask [*shape] of outputs to keep (a channel, a token); None keeps all D.
        preconditioner: Parameter name → positive p of its shape (see `ntkdiag.kernel.preconditioner.adam`).

    Attributes:
        jacobian: J as a LinearOperator [rows, P], with Jᵀ as its adjoint.
        gauss_newton: JᵀJ as a LinearOperator [P, P].
        method: How J u is computed: "forward mode" or "double backward".

    Raises:
        InputError: shapes that do not fit, an empty selection.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        log_snr: Tensor | float,
        *,
        cond: Any = None,
        params: str | Sequence[str] | None = None,
        chunk: int | None = None,
        rows: Sequence[int] | Tensor | None = None,
        columns: Sequence[int] | Tensor | None = None,
        outputs: Tensor | None = None,
        preconditioner: dict[str, Tensor] | None = None,
    ) -> None:
        denoiser.eval()
        parameters = select_parameters(denoiser, within_denoiser(params))
        place = next(iter(parameters.values()))
        x = x.to(place)
        level = as_level(log_snr).to(place).expand(x.shape[0])
        inputs = (x, level) if cond is None else (x, level, cond)
        self._linear = Linearization(denoiser, parameters, inputs, chunk)
        self._outputs = _mask(outputs, self._linear.output_shape[1:], place.device)
        self._rows = _samples("rows", rows, x.shape[0])
        self._columns = _samples("columns", columns, x.shape[0])
        self._scale = _scale(preconditioner, parameters)
        kept = int(self._outputs.sum())
        size = (len(self._rows) * kept, len(self._columns) * kept)
        numpy_type = np.dtype(str(place.dtype).removeprefix("torch."))
        super().__init__(dtype=numpy_type, shape=size)  # type: ignore[call-arg]  # the stubs give it object's

    @property
    def method(self) -> str:
        return self._linear.method

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device of torch products."""
        return self._linear.like

    @property
    def jacobian(self) -> LinearOperator:
        return LinearOperator(
            shape=(self.shape[0], self._linear.parameter_count),
            matvec=lambda u: self._push_flat(_tensor(u, self.like)).cpu().numpy(),
            rmatvec=lambda v: self._pull_flat(_tensor(v, self.like), self._rows).cpu().numpy(),
            dtype=self.dtype,
        )

    @property
    def gauss_newton(self) -> LinearOperator:
        def product(u: NDArray[Any]) -> NDArray[Any]:
            pushed = self._push_flat(_tensor(u, self.like))
            return self._pull_flat(pushed, self._rows).cpu().numpy()

        count = self._linear.parameter_count
        return LinearOperator(shape=(count, count), matvec=product, rmatvec=product, dtype=self.dtype)

    def apply(self, vectors: Tensor) -> Tensor:
        """The product in torch, on the network's device.

        Args:
            vectors: [columns] or [columns, k].

        Returns:
            [rows] or [rows, k].
        """
        if vectors.ndim == 2:
            return torch.stack([self.apply(column) for column in vectors.unbind(1)], 1)
        return self._one(vectors, self._columns, self._rows)

    def _one(self, vector: Tensor, source: Tensor, destination: Tensor) -> Tensor:
        pulled = self._linear.pull(self._spread(vector, source))
        if self._scale is not None:
            pulled = tuple(part / scale for part, scale in zip(pulled, self._scale, strict=True))
        return self._gather(self._linear.push(pulled), destination)

    def _matvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self.apply(_tensor(x, self.like)).cpu().numpy()

    def _rmatvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._one(_tensor(x, self.like), self._rows, self._columns).cpu().numpy()

    def _push_flat(self, vector: Tensor) -> Tensor:
        return self._gather(self._linear.push(self._linear.unflatten(vector)), self._rows)

    def _pull_flat(self, vector: Tensor, source: Tensor) -> Tensor:
        return self._linear.flatten(self._linear.pull(self._spread(vector, source)))

    def _spread(self, vector: Tensor, samples: Tensor) -> Tensor:
        """[samples · kept outputs] → [N, *out], zero elsewhere."""
        full = vector.new_zeros(self._linear.output_shape).flatten(1)
        part = vector.new_zeros(len(samples), full.shape[1])
        part[:, self._outputs] = vector.reshape(len(samples), -1)
        full[samples] = part
        return full.reshape(self._linear.output_shape)

    def _gather(self, full: Tensor, samples: Tensor) -> Tensor:
        return full.flatten(1)[samples][:, self._outputs].reshape(-1)


def _tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(-1)).to(like)


def _mask(outputs: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    if outputs is None:
        return torch.ones(math.prod(shape), dtype=torch.bool, device=device)
    if outputs.dtype != torch.bool or outputs.shape != shape or not bool(outputs.any()):
        raise InputError(
            "outputs",
            expected=f"a boolean mask of shape {tuple(shape)} with something in it",
            got=f"{outputs.dtype} of shape {tuple(outputs.shape)}",
        )
    return outputs.flatten().to(device)


def _samples(what: str, chosen: Sequence[int] | Tensor | None, count: int) -> Tensor:
    if chosen is None:
        return torch.arange(count)
    picked = torch.as_tensor(chosen, dtype=torch.int64)
    if picked.ndim != 1 or len(picked) == 0 or picked.min() < 0 or picked.max() >= count:
        raise InputError(what, expected=f"positions below {count}", got=picked.tolist())
    if len(picked.unique()) < len(picked):
        raise InputError(what, expected="each sample once", got=picked.tolist())
    return picked


def _scale(preconditioner: dict[str, Tensor] | None, parameters: dict[str, Any]) -> tuple[Tensor, ...] | None:
    if preconditioner is None:
        return None
    missing = [n for n in parameters if n.removeprefix("network.") not in preconditioner]
    if missing:
        raise InputError("preconditioner", expected=f"a tensor for {missing[0]}", got="none")
    return tuple(preconditioner[n.removeprefix("network.")].to(p) for n, p in parameters.items())
