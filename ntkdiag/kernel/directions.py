"""Directions: the cotangents that each sample's output is contracted with, as a function of the output.

A direction function maps (output of some samples, their positions) to cotangents [R, m, *out]: residuals need the output,
and an engine that works on tiles of samples asks only for the cotangents of one tile.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.kernel.inference_mode import usable

# (output [m, *out], positions of its samples [m]) → cotangents [R, m, *out]
Directions = Callable[[Tensor, Tensor], Tensor]


def given(cotangents: Tensor, samples: int | None = None) -> Directions:
    """Cotangents that do not depend on the output.

    Args:
        cotangents: [R, N, *out], or [R, *out] shared by all samples.
        samples: N, to be checked against; None trusts `cotangents`.

    Returns:
        A direction function; it raises InputError if the module's output has another shape.
    """

    if not isinstance(cotangents, Tensor) or cotangents.is_complex():
        got = "complex numbers" if isinstance(cotangents, Tensor) else type(cotangents).__name__
        raise InputError("cotangents", expected="a tensor of real numbers", got=got)
    cotangents = usable(cotangents)

    def directions(output: Tensor, picked: Tensor) -> Tensor:
        out = tuple(output.shape[1:])
        if tuple(cotangents.shape[1:]) == out:
            return cotangents.to(output).unsqueeze(1).expand(-1, output.shape[0], *out)
        each = cotangents.ndim == output.ndim + 1 and tuple(cotangents.shape[2:]) == out
        if each and samples in (None, cotangents.shape[1]):
            if len(picked) == cotangents.shape[1]:
                return cotangents.to(output)
            return cotangents.to(output).index_select(1, picked.to(output.device))
        sizes = ", ".join(map(str, out))
        raise InputError(
            "cotangents",
            expected=f"[R, {sizes}] or [R, N, {sizes}]",
            got=tuple(cotangents.shape),
            fix=None if samples is None else f"N is {samples}.",
        )

    return directions


def residual(wanted: Tensor) -> Directions:
    """r_i / D with r the residual: half the gradient of the mean-squared loss.

    Args:
        wanted: Targets [N, *out].
    """

    def directions(output: Tensor, picked: Tensor) -> Tensor:
        target = usable(wanted).index_select(0, picked.to(wanted.device))
        return ((output.detach() - target) / output[0].numel()).unsqueeze(0)

    return directions


def checked_output(output: object, samples: int) -> Tensor:
    """The module's output, checked to be a tensor with one row for each sample."""
    if not isinstance(output, Tensor):
        raise InputError("module output", expected="one tensor [N, ...]", got=type(output).__name__)
    if not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise InputError(
            "module output",
            expected="real floating-point numbers",
            got=kind,
            fix="Return real and imaginary parts side by side (torch.view_as_real)."
            if output.is_complex()
            else None,
        )
    if output.ndim == 0 or output.shape[0] != samples:
        raise InputError(
            "module output",
            expected=f"{samples} rows, one for each sample",
            got=f"shape {tuple(output.shape)}",
        )
    return output
