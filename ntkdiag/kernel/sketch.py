"""Sketches: short rows, linear in a gradient, whose inner products are unbiased for those of the gradients.

A gradient G [p, q] becomes H = Sᵀ G R with S [p, k] and R [q, k] of independent entries ±1/√k, the same for all samples.
Since E S Sᵀ and E R Rᵀ are identities, E ⟨H_i, H_j⟩ = ⟨G_i, G_j⟩.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.randomness import stream_seed

# Largest error, as a share of the largest entry, of √(1/p) as a product of a factor a row and one a column. Tuned here.
_RANK_ONE = 1e-4


@dataclass(frozen=True)
class Projection:
    """The map from the gradient of one parameter to its row.

    Attributes:
        matrix: (p, q): the gradient's elements in order, as a matrix.
        dtype: Of the rows.
        left: S [p, k]; None keeps this side.
        right: R [q, k]; None keeps this side.
        scale: Factors of the elements of a gradient that is kept whole, flattened; None for ones.
    """

    matrix: tuple[int, int]
    dtype: torch.dtype
    left: Tensor | None = None
    right: Tensor | None = None
    scale: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether the row is the gradient itself."""
        return self.left is None and self.right is None

    def rows(self, gradients: Tensor) -> Tensor:
        """Rows [n, length] of gradients [n, *shape of the parameter]."""
        gradients = gradients.to(self.dtype)
        if self.whole:
            flat = gradients.reshape(len(gradients), -1)
            return flat if self.scale is None else flat * self.scale
        found = gradients.reshape(len(gradients), *self.matrix)
        if self.left is not None and self.right is not None and self.matrix[1] > self.matrix[0]:
            return (self.left.T @ (found @ self.right)).flatten(1)  # the longer side first: it costs less
        if self.left is not None:
            found = self.left.T @ found
        return (found if self.right is None else found @ self.right).flatten(1)

    def at(self, rows: Tensor, columns: Tensor) -> Projection:
        """The projection of a gradient that is zero but for these rows and columns of its matrix; not of a whole one."""
        sides = zip((self.left, self.right), self.matrix, (rows, columns), strict=True)
        left, right = (
            torch.eye(size, dtype=self.dtype, device=index.device)[index] if factor is None else factor[index]
            for factor, size, index in sides
        )
        return Projection((len(rows), len(columns)), self.dtype, left, right)


@dataclass(frozen=True)
class Sketch:
    """Projections of all parameters: independent ones for every parameter and every probe.

    A parameter of at most k² elements and a vector are kept whole, and of a matrix a side no longer than k.

    Attributes:
        size: k.
        seed: Of the signs, which depend on the parameter's name and the number of the probe besides.
        roots: Parameter name → √(1/p) for a preconditioner p: either of the parameter's shape, for one that is kept
            whole, or its factors u [p] and v [q].
    """

    size: int
    seed: int
    roots: dict[str, Tensor | tuple[Tensor, Tensor]] = field(default_factory=dict)

    def of(self, name: str, parameter: Tensor, probe: int) -> Projection:
        """The projection of a parameter's gradient, in its dtype (float32 at least) and on its device."""
        matrix, root, device = matrix_of(parameter.shape), self.roots.get(name), parameter.device
        dtype = full_precision(parameter.dtype)
        if self.keeps_whole(parameter.shape):
            scale = root.flatten().to(device, dtype) if isinstance(root, Tensor) else None
            return Projection(matrix, dtype, scale=scale)
        factors = root if isinstance(root, tuple) else (None, None)
        left, right = (
            self._side(size, factor, f"sketch {probe} {side} {name}", dtype, device)
            for size, factor, side in zip(matrix, factors, ("left", "right"), strict=True)
        )
        return Projection(matrix, dtype, left, right)

    def length(self, shape: torch.Size) -> int:
        """Numbers in the row of a parameter of this shape."""
        p, q = matrix_of(shape)
        return p * q if self.keeps_whole(shape) else min(p, self.size) * min(q, self.size)

    def keeps_whole(self, shape: torch.Size) -> bool:
        """Whether a parameter's gradients are rows as they are."""
        p, q = matrix_of(shape)
        return p * q <= self.size**2 or min(p, q) == 1

    def _side(
        self, size: int, factor: Tensor | None, stream: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor | None:
        """S or R, with the preconditioner's factor; None for a side that stays as it is."""
        factor = None if factor is None else factor.to(device, dtype)
        if size <= self.size:
            return None if factor is None else torch.diag(factor)
        count, unit = size * self.size, 1 / math.sqrt(self.size)
        random = np.random.default_rng(stream_seed(self.seed, stream)).bytes(-(-count // 8))
        packed = torch.frombuffer(bytearray(random), dtype=torch.uint8).to(device)  # an eighth of the traffic
        bits = (packed[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=device)) & 1
        side = bits.flatten()[:count].reshape(size, self.size).to(dtype).mul_(2 * unit).sub_(unit)
        return side if factor is None else side * factor[:, None]


def sketch_of(
    size: int, seed: int, parameters: Mapping[str, nn.Parameter], inverse_preconditioner: Mapping[str, Tensor]
) -> Sketch:
    """The sketch of a kernel, preconditioned where there is a preconditioner p.

    A gradient is scaled by √(1/p) before it is sketched, which is possible if √(1/p) = u vᵀ.

    Args:
        size: k.
        seed: Of the signs.
        parameters: Name → parameter.
        inverse_preconditioner: Name → 1/p.

    Raises:
        InputError: k is no positive integer, or the preconditioner of a parameter does not factor.
    """
    plain = Sketch(require_positive_int("sketch", size), seed)
    roots: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
    for name, inverse in inverse_preconditioner.items():
        root = inverse.detach().cpu().to(full_precision(inverse.dtype)).sqrt()
        shape = parameters[name].shape
        roots[name] = root if plain.keeps_whole(shape) else _factors(name, root.reshape(matrix_of(shape)))
    return Sketch(plain.size, seed, roots)


def _factors(name: str, root: Tensor) -> tuple[Tensor, Tensor]:
    """u [p] and v [q] with root = u vᵀ."""
    u, v = root.sum(1), root.sum(0) / root.sum()
    error = float((root - u[:, None] * v).abs().max() / root.abs().max())
    if not error <= _RANK_ONE:
        raise InputError(
            f"preconditioner of {name}",
            expected="one factor for each row times one for each column of the parameter, as a sketch needs",
            got=f"one that differs from such a product by {error:.2g} of its largest value",
            fix="Leave it out, or choose {engine}.",
            arguments={"engine": "'streaming'"},
        )
    return u, v


def matrix_of(shape: torch.Size) -> tuple[int, int]:
    """(p, q) of the matrix that a gradient of this shape is sketched as: as square as its dimensions allow."""
    sizes = [size for size in shape if size != 1]
    splits = [(math.prod(sizes[:i]), math.prod(sizes[i:])) for i in range(1, len(sizes))]
    return min(splits, key=max) if splits else (math.prod(sizes), 1)


def full_precision(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision: sums of rounded gradients are formed in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
