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
from torch import Tensor, nn

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.kernel.engines import require_batch
from ntkdiag.kernel.gram import within_denoiser
from ntkdiag.kernel.linearization import Linearization, Tangent
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.preconditioner import checked
from ntkdiag.process.log_snr import as_level

Samples = Sequence[int] | Tensor


class NTKOperator(LinearOperator):
    """J_rows P⁻¹ J_columnsᵀ of a denoiser; `NTKOperator.of` takes any module.

    Rows and columns are (sample, output) pairs, sample-major: entry (i·D + a, j·D + b) = J_i[a] · J_j[b]. The network is
    called in eval mode and restored after each product; its parameters must not change while the operator is used.

    Args:
        denoiser: The network.
        x: Noisy inputs [N, *shape].
        log_snr: One number, or one for each sample [N].
        cond: Conditioning of the network, [N, ...].
        params: Name patterns; None takes the trainable parameters.
        chunk: Samples whose graph is kept at a time; None keeps all, which is fastest.
        rows, columns: Samples the operator is restricted to (a bucket, say), as positions or a boolean mask [N]; None
            takes all. Different sets give a cross block, which is not square or symmetric.
        outputs: Boolean mask [*shape] of outputs to keep (a channel, a token); None keeps all D.
        preconditioner: Parameter name → positive p of its shape (see `ntkdiag.kernel.preconditioner.adam`).

    Attributes:
        jacobian: J of the rows as a LinearOperator [rows, P], with Jᵀ as its adjoint; without the preconditioner.
        gauss_newton: JᵀJ of the rows as a LinearOperator [P, P]; without the preconditioner.
        method: How J u is computed: "forward mode", "double backward" or "row by row", see `Linearization`.

    Raises:
        InputError: shapes that do not fit, an empty selection.
        MeasurementError: samples that are not independent, derivatives that are not finite.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        log_snr: Tensor | float,
        *,
        cond: Tensor | None = None,
        params: str | Sequence[str] | None = None,
        chunk: int | None = None,
        rows: Samples | None = None,
        columns: Samples | None = None,
        outputs: Tensor | None = None,
        preconditioner: dict[str, Tensor] | None = None,
    ) -> None:
        parameters = select_parameters(denoiser, within_denoiser(params))
        place = next(iter(parameters.values()))
        level = as_level(log_snr).to(place)
        if level.ndim > 1 or level.numel() not in (1, len(x)):
            raise InputError("log_snr", expected=f"one number or {len(x)}", got=f"shape {tuple(level.shape)}")
        inputs = (x.to(place), level.expand(len(x)), *(() if cond is None else (cond,)))
        if preconditioner is not None:
            preconditioner = {f"network.{name}": p for name, p in preconditioner.items()}
        self._bind(denoiser, inputs, parameters, chunk, rows, columns, outputs, preconditioner)

    @classmethod
    def of(
        cls,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        params: str | Sequence[str] | None = None,
        chunk: int | None = None,
        rows: Samples | None = None,
        columns: Samples | None = None,
        outputs: Tensor | None = None,
        preconditioner: dict[str, Tensor] | None = None,
    ) -> NTKOperator:
        """The operator of any module.

        Args:
            module: Called as module(*inputs); returns [N, *out].
            inputs: Tensors [N, ...], on the module's device.
            params, chunk, rows, columns, outputs, preconditioner: See the class; `outputs` has the shape [*out].
        """
        operator: NTKOperator = object.__new__(cls)
        parameters = select_parameters(module, params)
        operator._bind(module, inputs, parameters, chunk, rows, columns, outputs, preconditioner)
        return operator

    def _bind(
        self,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        parameters: dict[str, nn.Parameter],
        chunk: int | None,
        rows: Samples | None,
        columns: Samples | None,
        outputs: Tensor | None,
        preconditioner: dict[str, Tensor] | None,
    ) -> None:
        count = require_batch(inputs)
        self._scale = tuple(checked(preconditioner, parameters).values())
        chosen, others = _positions("rows", rows, count), _positions("columns", columns, count)
        self._rows = Linearization(module, parameters, _select(inputs, chosen), chunk)
        same = torch.equal(chosen, others)
        self._columns = (
            self._rows if same else Linearization(module, parameters, _select(inputs, others), chunk)
        )
        self._kept = _kept(outputs, self._rows.output_shape[1:]).to(self.like.device)
        width = len(self._kept)
        # numpy knows neither bfloat16 nor what the network would do with halves
        precision = np.float64 if self.like.dtype == torch.float64 else np.float32
        shape = (len(chosen) * width, len(others) * width)
        super().__init__(dtype=np.dtype(precision), shape=shape)  # type: ignore[call-arg]  # the stubs give it object's

    @property
    def method(self) -> str:
        return self._rows.method

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device of torch products."""
        return self._rows.like

    @property
    def jacobian(self) -> LinearOperator:
        return LinearOperator(
            shape=(self.shape[0], self._rows.parameter_count),
            matvec=lambda u: self._array(self._pushed(self._rows, self._rows.unflatten(self._tensor(u)))),
            rmatvec=lambda v: self._array(self._rows.flatten(self._pulled(self._rows, self._tensor(v)))),
            dtype=self.dtype,
        )

    @property
    def gauss_newton(self) -> LinearOperator:
        def product(u: NDArray[Any]) -> NDArray[Any]:
            pushed = self._pushed(self._rows, self._rows.unflatten(self._tensor(u)))
            return self._array(self._rows.flatten(self._pulled(self._rows, pushed)))

        count = self._rows.parameter_count
        return LinearOperator(shape=(count, count), matvec=product, rmatvec=product, dtype=self.dtype)

    def apply(self, vectors: Tensor) -> Tensor:
        """The product in torch, on the network's device.

        Args:
            vectors: [columns] or [columns, k].

        Returns:
            [rows] or [rows, k].

        Raises:
            InputError: another length.
        """
        if vectors.ndim not in (1, 2) or vectors.shape[0] != self.shape[1]:
            size = self.shape[1]
            raise InputError("vectors", expected=f"[{size}] or [{size}, k]", got=tuple(vectors.shape))
        if vectors.ndim == 2:
            return torch.stack([self.apply(column) for column in vectors.unbind(1)], 1)
        return self._product(vectors, self._columns, self._rows)

    def _product(self, vector: Tensor, columns: Linearization, rows: Linearization) -> Tensor:
        pulled = self._pulled(columns, vector)
        if self._scale:
            pulled = tuple(part / scale for part, scale in zip(pulled, self._scale, strict=True))
        return self._pushed(rows, pulled)

    def _matvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._array(self.apply(self._tensor(x)))

    def _rmatvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._array(self._product(self._tensor(x), self._rows, self._columns))

    def _pushed(self, linear: Linearization, tangent: Tangent) -> Tensor:
        """J u of the kept outputs, [samples · kept]."""
        return linear.push(tangent).flatten(1)[:, self._kept].reshape(-1)

    def _pulled(self, linear: Linearization, vector: Tensor) -> Tangent:
        """Jᵀ v for v [samples · kept], zero at other outputs."""
        full = vector.new_zeros(linear.output_shape).flatten(1)
        full[:, self._kept] = vector.reshape(len(full), -1)
        return linear.pull(full.reshape(linear.output_shape))

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(-1)).to(self.like)

    def _array(self, vector: Tensor) -> NDArray[Any]:
        return vector.detach().cpu().to(torch.float64 if self.dtype == np.float64 else torch.float32).numpy()


def _positions(what: str, chosen: Samples | None, count: int) -> Tensor:
    """Samples to take, as positions."""
    if chosen is None:
        return torch.arange(count)
    picked = torch.as_tensor(chosen).cpu()
    if picked.dtype == torch.bool and picked.shape == (count,):
        picked = picked.nonzero().flatten()
    whole = not (picked.is_floating_point() or picked.is_complex() or picked.dtype == torch.bool)
    if not whole or picked.ndim != 1 or len(picked) == 0 or picked.min() < 0 or picked.max() >= count:
        raise InputError(what, expected=f"positions from 0 to {count - 1}, or a mask of {count}", got=chosen)
    if len(picked.unique()) < len(picked):
        raise InputError(what, expected="each sample once", got=picked.tolist())
    return picked.long()


def _select(inputs: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor[samples.to(tensor.device)] for tensor in inputs)


def _kept(outputs: Tensor | None, shape: torch.Size) -> Tensor:
    """Positions of the outputs to keep among a sample's."""
    if outputs is None:
        return torch.arange(math.prod(shape))
    if outputs.dtype != torch.bool or outputs.shape != shape or not bool(outputs.any()):
        raise InputError(
            "outputs",
            expected=f"a boolean mask of shape {tuple(shape)} with something in it",
            got=f"{outputs.sum()} of {tuple(outputs.shape)}, {outputs.dtype}",
        )
    return outputs.flatten().nonzero().flatten()
