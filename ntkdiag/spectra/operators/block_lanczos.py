"""Top eigenpairs of a symmetric positive semi-definite operator from products alone: block Lanczos.

The basis is fully reorthogonalised, because most kernels here have a rank far below their size. Every pair comes with its
residual norm, within which a true eigenvalue lies. A Krylov space holds no more copies of an eigenvalue than its first
block has columns, so after convergence a few steps from random directions search for missed copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.errors import InputError, require_number, require_positive_int
from ntkdiag.randomness import generator
from ntkdiag.spectra.operators.product import Apply, ScaledOperator

# Steps from a random block that search for missed copies of an eigenvalue, tuned here: with blocks of 4 they found one
# copy that is larger than the rest by a factor of 2 in 60 of 60 tries up to n = 32,768, whatever the rest was. Where the
# factor is smaller, a missed copy changes the values little.
CONFIRMATION_STEPS = 4


@dataclass(frozen=True, eq=False)
class TopEigenpairs:
    """The largest eigenvalues of an operator.

    Attributes:
        values: θ_1 ≥ … ≥ θ_k, [k] float64 on the CPU.
        vectors: Unit Ritz vectors in columns, [n, k], on the operator's device.
        residuals: ‖A u − θ u‖, [k]: an eigenvalue of A lies within it of θ (Parlett 1998, theorem 4.5.1).
        converged: Whether every residual is within the tolerance.
        products: Number of operator-vector products.
        restarts: How often the space was continued from random directions: where it closed, and to search for copies.

    Example:
        >>> matrix = torch.diag(torch.arange(1.0, 31, dtype=torch.float64))
        >>> top = nd.spectra.top_eigenpairs(lambda v: matrix @ v, matrix, 30, count=2)
        >>> top.converged, tuple(top.vectors.shape)
        (True, (30, 2))
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: bool
    products: int
    restarts: int


def top_eigenpairs(
    apply: Apply,
    like: Tensor,
    size: int,
    count: int,
    *,
    block: int = 4,
    tolerance: float = 1e-6,
    max_products: int | None = None,
    seed: int = 0,
) -> TopEigenpairs:
    """Block Lanczos with full reorthogonalisation (Golub & Underwood 1977; Parlett 1998, chapter 13).

    Args:
        apply: The operator, [n, b] → [n, b], symmetric.
        like: A tensor of the operator's dtype and device.
        size: n.
        count: k ≤ n.
        block: Directions per step. Further copies of an eigenvalue are found after convergence: a few steps from random
            directions must bring no other values.
        tolerance: Stop when all residuals are below tolerance · θ_1.
        max_products: Stop after so many products, converged or not; None allows 10·k + 20·block, at most n + block.
        seed: Seed of the starting directions, which no other estimator draws.

    Returns:
        `TopEigenpairs`.

    Raises:
        InputError: numbers out of range, an operator that is not square.
        MeasurementError: products that are NaN, infinite, or too small for their dtype.

    Example:
        >>> operator = nd.NTKOperator(denoiser, torch.randn(4, 2), 0.0)
        >>> top = nd.spectra.top_eigenpairs(operator.apply, operator.like, operator.shape[0], count=3)
        >>> top.values.shape, top.converged
        (torch.Size([3]), True)
    """
    scaled = ScaledOperator(apply, like, size)
    require_positive_int("count", count)
    require_positive_int("block", block)
    require_number("tolerance", tolerance, at_least=0)
    if max_products is not None:
        require_positive_int("max_products", max_products)
    if count > size:
        raise InputError("count", expected=f"at most the operator's size {size}", got=count)
    limit = min(size + block, 10 * count + 20 * block) if max_products is None else max_products
    krylov = _Krylov(scaled, like, size, seed)
    krylov.extend(block)
    seen: Tensor | None = None
    while True:
        values, vectors, residuals = krylov.ritz(min(count, krylov.dimension))
        margin = tolerance * max(float(values[0]), 0.0) + krylov.noise
        done = krylov.dimension >= count and bool((residuals <= margin).all())
        confirmed = done and seen is not None and bool((values - seen <= 2 * margin).all())
        if krylov.dimension >= size or confirmed or scaled.products >= limit:
            break
        if done:
            seen = values
            krylov.restart()
        for _ in range(CONFIRMATION_STEPS if done else 1):
            if krylov.dimension < size and scaled.products < limit:
                krylov.extend(block)
    converged = krylov.dimension >= size or done
    return TopEigenpairs(
        values.double().cpu() * scaled.unit,
        vectors,
        residuals.double().cpu() * scaled.unit,
        converged,
        scaled.products,
        krylov.restarts,
    )


class _Krylov:
    """An orthonormal basis Q of a growing Krylov space, and T = Qᵀ A Q."""

    def __init__(self, apply: ScaledOperator, like: Tensor, size: int, seed: int) -> None:
        self._apply, self._like, self._size = apply, like, size
        self._generator = generator(seed, "block Lanczos")
        self._basis = like.new_empty(size, 0)
        self._images = like.new_empty(size, 0)  # A Q
        self._next = like.new_empty(size, 0)
        self.restarts = 0
        self.noise = 0.0

    @property
    def dimension(self) -> int:
        return self._basis.shape[1]

    def restart(self) -> None:
        """Continue from random directions."""
        self._next = self._next[:, :0]

    def extend(self, block: int) -> None:
        """Add one block of directions."""
        if self._next.shape[1] == 0:
            self.restarts += self.dimension > 0
            width = min(block, self._size - self.dimension)
            random = torch.randn(self._size, width, generator=self._generator, dtype=torch.float64)
            self._next = self._orthonormal(random.to(self._like), threshold=0.0)
        images = self._apply(self._next)
        self._basis = torch.cat([self._basis, self._next], 1)
        self._images = torch.cat([self._images, images], 1)
        size = (
            float(torch.linalg.matrix_norm(self._images, 2))
            if self.dimension <= 2 * block
            else self._size_of()
        )
        self.noise = torch.finfo(self._like.dtype).eps * size * self._size**0.5
        self._next = self._orthonormal(images, threshold=self.noise)

    def ritz(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The `count` largest Ritz values, their vectors, and true residual norms (from the stored A Q)."""
        projected = self._basis.mT @ self._images
        values, small = torch.linalg.eigh(((projected + projected.mT) / 2).double())
        values, small = values.flip(0)[:count], small.flip(1)[:, :count].to(self._like.dtype)
        vectors = self._basis @ small
        residuals = (self._images @ small - vectors * values.to(self._like.dtype)).norm(dim=0)
        return values, vectors, residuals

    def _size_of(self) -> float:
        """‖A Q‖ by its largest column: a lower bound of ‖A‖ that grows with the space."""
        return float(self._images.norm(dim=0).max())

    def _orthonormal(self, block: Tensor, threshold: float) -> Tensor:
        """Directions of `block` orthogonal to the basis; those below the threshold are dropped (breakdown)."""
        for _ in range(2):  # twice is enough (Kahan; Parlett 1998, section 6.9)
            block = block - self._basis @ (self._basis.mT @ block)
        left, singular, _ = torch.linalg.svd(block, full_matrices=False)
        kept = left[:, singular > max(threshold, torch.finfo(block.dtype).tiny)]
        kept = kept[:, : self._size - self.dimension]
        kept = kept - self._basis @ (self._basis.mT @ kept)
        basis: Tensor = torch.linalg.qr(kept).Q if kept.shape[1] else kept
        return basis
