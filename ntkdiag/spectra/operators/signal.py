"""Where a signal's energy lies in an operator's spectrum, and bounds on how gradient flow would remove it.

A Lanczos run started at the signal gives two quadrature rules for Σ_k p_k f(e_k), p_k being the share of its energy along
each eigenvector. For f = e^{−2τe}, whose derivatives alternate in sign, the Gauss rule lies below and the
Gauss-Radau rule with a node at 0 above (Golub & Meurant 1994, "Matrices, moments and quadrature").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.errors import require_positive_int
from ntkdiag.spectra.operators.lanczos import Apply

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SignalSpectrum:
    """Quadrature rules of one signal.

    Attributes:
        lower, upper: (nodes, weights) of the Gauss rule, and of the one with a further node at 0; weights sum to 1. They
            are the same where the Krylov space closed: then both are exact.
        products: Operator-vector products spent.
    """

    lower: tuple[Array, Array]
    upper: tuple[Array, Array]
    products: int

    def left(self, times: Array) -> tuple[Array, Array]:
        """Bounds on what gradient flow leaves of the signal's energy, C(τ) = Σ_k p_k e^{−2τ e_k}.

        Args:
            times: τ ≥ 0 in units of 1/e, [n].

        Returns:
            low [n] and high [n], in [0, 1].
        """
        low, high = (
            np.exp(-2 * np.multiply.outer(times, nodes)) @ weights
            for nodes, weights in (self.lower, self.upper)
        )
        return np.clip(low, 0, 1), np.clip(np.maximum(low, high), 0, 1)


def signal_spectrum(apply: Apply, signal: Tensor, *, steps: int = 40) -> SignalSpectrum | None:
    """Lanczos from a signal, with full reorthogonalisation.

    Args:
        apply: The operator, [n, b] → [n, b], symmetric and positive semi-definite.
        signal: [n], in the operator's dtype and on its device.
        steps: Products to spend; fewer where the Krylov space closes, at most n.

    Returns:
        Rules of `steps` nodes, one more in the upper; None for a signal of zero.

    Raises:
        InputError: steps not positive.
    """
    require_positive_int("steps", steps)
    size = float(signal.norm())
    if size == 0:
        return None
    basis = [(signal / size)[:, None]]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(signal))):
        image = apply(basis[-1])
        diagonal.append(float((basis[-1] * image).sum()))
        known = torch.cat(basis, 1)
        for _ in range(2):
            image = image - known @ (known.mT @ image)
        beside.append(float(image.norm()))
        rounding = torch.finfo(signal.dtype).eps * math.sqrt(len(signal)) * max(map(abs, diagonal))
        if beside[-1] <= 10 * rounding or len(basis) == len(signal):
            rule = _rule(diagonal, beside[:-1])
            return SignalSpectrum(rule, rule, len(diagonal))
        basis.append(image / beside[-1])
    return SignalSpectrum(_rule(diagonal, beside[:-1]), _rule(*_with_zero(diagonal, beside)), len(diagonal))


def _with_zero(diagonal: list[float], beside: list[float]) -> tuple[list[float], list[float]]:
    """The tridiagonal matrix, longer by one, that has 0 among its eigenvalues (Golub 1973)."""
    matrix = _tridiagonal(diagonal, beside[:-1])
    last = np.zeros(len(diagonal))
    last[-1] = beside[-1] ** 2
    return [*diagonal, float(np.linalg.lstsq(matrix, last)[0][-1])], beside


def _rule(diagonal: list[float], beside: list[float]) -> tuple[Array, Array]:
    """Nodes and weights of a tridiagonal matrix (Golub & Welsch 1969); nodes below zero are rounding."""
    nodes, vectors = np.linalg.eigh(_tridiagonal(diagonal, beside))
    return np.clip(nodes, 0, None), vectors[0] ** 2


def _tridiagonal(diagonal: list[float], beside: list[float]) -> Array:
    matrix: Array = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    return matrix
