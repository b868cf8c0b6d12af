"""The operator as the estimators here use it: products that are checked, in a unit in which nothing over- or underflows.

The unit is a power of two near the operator's size, taken from the first product that is not zero, so no product is spent on
it and dividing by it rounds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ntkdiag.errors import InputError, MeasurementError, require_positive_int

# [n, b] → [n, b]
Apply = Callable[[Tensor], Tensor]

_PRECISIONS = (torch.float32, torch.float64)


class ScaledOperator:
    """An operator divided by a power of two; call it as the operator itself.

    Args:
        apply: The operator, [n, b] → [n, b].
        like: A tensor of the operator's dtype and device.
        size: n.

    Attributes:
        unit: What the products are divided by; 1 until a product is not zero.
        products: Number of columns that the operator was applied to.

    Raises:
        InputError: a dtype other than float32 and float64, a size below 1; when called, products of another shape or dtype.
        MeasurementError: when called, products that are NaN or infinite, or too small for their dtype.
    """

    def __init__(self, apply: Apply, like: Tensor, size: int) -> None:
        require_precision("like", like)
        require_positive_int("size", size)
        self._apply, self._like = apply, like
        self._found = False
        self.unit = 1.0
        self.products = 0

    def __call__(self, block: Tensor) -> Tensor:
        images = self._apply(block)
        self.products += block.shape[1]
        self._require_product(images, block)
        if not self._found and images.numel():
            self._choose_unit(float(images.abs().amax()))
        return images / self.unit

    def _require_product(self, images: Tensor, block: Tensor) -> None:
        if not isinstance(images, Tensor) or images.shape != block.shape or images.dtype != block.dtype:
            is_tensor = isinstance(images, Tensor)
            got = f"{tuple(images.shape)}, {images.dtype}" if is_tensor else type(images).__name__
            raise InputError(
                "operator",
                expected=f"products of shape {list(block.shape)} and {block.dtype}, one column for each vector",
                got=got,
                fix="Pass a square operator, its size, and `like` of its dtype.",
            )
        if not torch.isfinite(images).all():
            raise MeasurementError(
                "operator: expected finite products; got NaN or infinity. Check the network's weights and inputs; where "
                "the products overflow, divide the operator by a constant."
            )

    def _choose_unit(self, largest: float) -> None:
        """The power of two next to the largest entry of a product of unit vectors."""
        if largest == 0:
            return
        limits = torch.finfo(self._like.dtype)
        if largest < limits.tiny / limits.eps:
            raise MeasurementError(
                f"operator: expected products within the range of {self._like.dtype}; got {largest:.1e} at most, where "
                "digits are lost. Multiply the operator by a constant, or use float64."
            )
        self.unit, self._found = math.ldexp(1.0, math.frexp(largest)[1] - 1), True


def require_precision(what: str, tensor: Tensor) -> None:
    """Raise unless this is a tensor of float32 or float64.

    Raises:
        InputError: otherwise.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype not in _PRECISIONS:
        got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(what, expected="a tensor of float32 or float64", got=got)
