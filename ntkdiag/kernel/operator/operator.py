"""NTKOperator: the full kernel J·Jᵀ of size N·D × N·D as an operator, never formed.

A scipy LinearOperator (eigsh, lobpcg and cg take it as it is) and a torch product in one, on the network's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from ntkdiag.conditions import Conditions
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel.engines import require_batch
from ntkdiag.kernel.gram import within_denoiser
from ntkdiag.kernel.inference_mode import usable
from ntkdiag.kernel.operator.linearization import Linearization
from ntkdiag.kernel.operator.network import Tangent
from ntkdiag.kernel.operator.selection import Samples, kept_outputs, positions_of
from ntkdiag.kernel.parameters import select_parameters
from ntkdiag.kernel.preconditioner import checked
from ntkdiag.process.log_snr import level_like


class NTKOperator(LinearOperator):
    """J_rows P⁻¹ J_columnsᵀ of a denoiser; `NTKOperator.of` takes any module.

    Rows and columns are (sample, output) pairs, sample-major: entry (i·D + a, j·D + b) = J_i[a] · J_j[b]. The network is
    called in eval mode and restored after each product; its parameters must not change while the operator is used.

    Args:
        denoiser: The network.
        x: Noisy inputs [N, *shape].
        log_snr: One number, or one for each sample [N].
        cond: Conditions of the network: by name, each [N, ...]; a tensor where it takes a single one; None calls it without.
        params: Name patterns; None takes the trainable parameters.
        chunk: Samples whose graph is kept at a time; None keeps all, which is fastest.
        rows, columns: Samples the operator is restricted to (a bucket, say), as positions or a boolean mask [N]; None
            takes all. Different sets give a cross block, which is not square or symmetric.
        outputs: Boolean mask [*shape] of outputs to keep (a channel, a token); None keeps all D.
        preconditioner: Parameter name → positive p of its shape (see `ntkdiag.kernel.preconditioner.adam`).
        check: Compare Jᵀ v (parameter by parameter), J u and their product with plain autograd of the network as it is, for
            the first and the last sample of the rows and of the columns. A method that differs is passed over for the next
            slower one.

    Attributes:
        jacobian: J of the rows as a LinearOperator [rows, P], with Jᵀ as its adjoint; without the preconditioner.
        gauss_newton: JᵀJ of the rows as a LinearOperator [P, P]; without the preconditioner.
        method: How J u is computed, the fastest first: "forward mode", "double backward", "row by row" (a backward for each
            output of each sample) or "plain autograd" (a forward and a backward for each of them).
        adjoint_method: How Jᵀ v is computed: "reverse mode", or "plain autograd" (a forward and a backward for each sample).
        passed_over: Product and method → why it is not used, for the rows.

    Raises:
        InputError: shapes that do not fit, an empty selection, a sharded network, complex parameters.
        MeasurementError: samples that are not independent, an output without gradients, derivatives that are not finite, or
            no method that agrees with plain autograd.

    Example:
        >>> operator = NTKOperator(denoiser, data.train[:4], 0.0)  # 4 samples of 2 outputs
        >>> operator.shape, (operator @ np.ones(8)).shape
        ((8, 8), (8,))
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        log_snr: Tensor | float,
        *,
        cond: Conditions | Tensor | None = None,
        params: str | Sequence[str] | None = None,
        chunk: int | None = None,
        rows: Samples | None = None,
        columns: Samples | None = None,
        outputs: Tensor | None = None,
        preconditioner: dict[str, Tensor] | None = None,
        check: bool = True,
    ) -> None:
        require_denoiser("network", denoiser)
        x = _real("x", x)
        parameters = select_parameters(denoiser, within_denoiser(params))
        place = next(iter(parameters.values()))
        level = level_like(log_snr, place)
        if level.ndim > 1 or level.numel() not in (1, len(x)):
            raise InputError("log_snr", expected=f"one number or {len(x)}", got=f"shape {tuple(level.shape)}")
        inputs = denoiser.inputs(x.to(place), level.expand(len(x)), cond)
        if preconditioner is not None:
            preconditioner = {f"network.{name}": p for name, p in preconditioner.items()}
        self._bind(denoiser, inputs, parameters, chunk, rows, columns, outputs, preconditioner, check)

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
        check: bool = True,
    ) -> NTKOperator:
        """The operator of any module.

        Args:
            module: Called as module(*inputs); returns [N, *out].
            inputs: Tensors [N, ...], on the module's device.
            params, chunk, rows, columns, outputs, preconditioner, check: See the class; `outputs` has the shape [*out].
        """
        operator: NTKOperator = object.__new__(cls)
        parameters = select_parameters(module, params)
        operator._bind(module, inputs, parameters, chunk, rows, columns, outputs, preconditioner, check)
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
        check: bool,
    ) -> None:
        count = require_batch(inputs)
        self._scale = tuple(checked(preconditioner, parameters).values())
        chosen, others = positions_of("rows", rows, count), positions_of("columns", columns, count)

        def linearized(samples: Tensor) -> Linearization:
            some = _select(inputs, samples)
            return Linearization(module, parameters, some, chunk, outputs=outputs, check=check)

        self._rows = linearized(chosen)
        self._columns = self._rows if torch.equal(chosen, others) else linearized(others)
        self._kept = kept_outputs(outputs, self._rows.output_shape[1:]).to(self.like.device)
        width = len(self._kept)
        # numpy knows neither bfloat16 nor what the network would do with halves
        precision = np.float64 if self.like.dtype == torch.float64 else np.float32
        shape = (len(chosen) * width, len(others) * width)
        super().__init__(dtype=np.dtype(precision), shape=shape)  # type: ignore[call-arg]  # the stubs give it object's
        if check:
            self._require_product()
        for linear in (self._rows, self._columns):
            linear.forget()

    @property
    def method(self) -> str:
        return self._rows.method

    @property
    def adjoint_method(self) -> str:
        return self._columns.adjoint_method

    @property
    def passed_over(self) -> dict[str, str]:
        return dict(self._rows.passed_over)

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
            vectors: [columns] or [columns, k], real numbers.

        Returns:
            [rows] or [rows, k], in the dtype of `like`.

        Raises:
            InputError: another length, complex numbers, or no tensor.
        """
        vectors = self._tensor(vectors)
        size = self.shape[1]
        if vectors.ndim not in (1, 2) or vectors.shape[0] != size:
            raise InputError("vectors", expected=f"[{size}] or [{size}, k]", got=tuple(vectors.shape))
        if vectors.ndim == 1:
            return self._product(vectors, self._columns, self._rows)
        products = [self._product(column, self._columns, self._rows) for column in vectors.unbind(1)]
        return torch.stack(products, 1) if products else vectors.new_zeros(self.shape[0], 0)

    def _product(self, vector: Tensor, columns: Linearization, rows: Linearization) -> Tensor:
        pulled = self._pulled(columns, vector)
        if self._scale:
            pulled = tuple(part / scale for part, scale in zip(pulled, self._scale, strict=True))
        return self._pushed(rows, pulled)

    def _matvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._array(self._product(self._tensor(x).reshape(-1), self._columns, self._rows))

    def _rmatvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._array(self._product(self._tensor(x).reshape(-1), self._rows, self._columns))

    def _pushed(self, linear: Linearization, tangent: Tangent) -> Tensor:
        """J u of the kept outputs, [samples · kept]."""
        return self._kept_of(linear.push(tangent)).reshape(-1).to(self.like.dtype)

    def _pulled(self, linear: Linearization, vector: Tensor) -> Tangent:
        """Jᵀ v for v [samples · kept], zero at other outputs."""
        shape = linear.output_shape
        full = vector.new_zeros(shape).reshape(shape[0], -1)
        full[:, self._kept] = vector.reshape(shape[0], -1)
        return linear.pull(full.reshape(shape))

    def _require_product(self) -> None:
        """Raise a MeasurementError if the product for the two samples differs from plain autograd's v_iᵀ J_i P⁻¹ Jᵀ v."""
        rows, columns = self._rows.reference, self._columns.reference
        assert rows is not None and columns is not None  # it is called before they are dropped
        self._require_in_range(float(rows.sizes_of_products(columns, self._scale).max()))
        unit = float(columns.norms.square().sum().sqrt()) or 1.0  # half precision would overflow
        vector = self._kept_of(columns.vectors / unit).reshape(-1).to(self.like.dtype)
        found = self._product(vector, self._columns.at(columns.positions), self._rows.at(rows.positions))
        left = self._kept_of(rows.vectors).double()
        products = (left * found.reshape(left.shape)).sum(1) * unit
        reason = rows.fault_of_product(products, columns, self._scale)
        if reason is not None:
            raise MeasurementError(
                f"operator: expected what plain autograd finds for two samples; got a product that {reason}."
            )

    def _require_in_range(self, size: float) -> None:
        """Raise a MeasurementError if products with vectors of numbers of size 1 underflow or overflow."""
        limits = torch.finfo(self.like.dtype)
        short = self.like.dtype == torch.float16  # its range is left by ordinary networks, for some vectors
        if size and not short and not limits.tiny / limits.eps < size < limits.max:
            raise MeasurementError(
                f"operator: expected products within the range of {self.like.dtype}; got about {size:.1e}. Multiply the "
                "network's output by a constant, or use float64."
            )

    def _kept_of(self, outputs: Tensor) -> Tensor:
        """The kept ones of outputs [m, *out], [m, kept]."""
        return outputs.reshape(len(outputs), -1)[:, self._kept]

    def _tensor(self, values: object) -> Tensor:
        return _real("vectors", values).to(self.like)

    def _array(self, vector: Tensor) -> NDArray[Any]:
        return vector.detach().cpu().to(torch.float64 if self.dtype == np.float64 else torch.float32).numpy()


def _select(inputs: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor[samples.to(tensor.device)] for tensor in inputs)


def _real(what: str, values: object) -> Tensor:
    """A tensor of real numbers, of a tensor or an array; autograd can save it.

    Raises:
        InputError: anything else.
    """
    try:
        found = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError):  # no numbers
        raise InputError(
            what, expected="a tensor or an array of real numbers", got=type(values).__name__
        ) from None
    if found.is_complex():
        raise InputError(
            what,
            expected="real numbers",
            got="complex numbers",
            fix="Apply the operator to the real and to the imaginary part.",
        )
    return usable(found.detach())
