"""Which kernel predicts the loss change better, bucket by bucket: the plain one, J Jᵀ, or the preconditioned, J P⁻¹ Jᵀ.

Both go down the mean training gradient G. To first order the loss of a bucket then changes by −⟨∇L_b, G⟩ or −⟨∇L_b, P⁻¹ G⟩,
times a number of steps and a learning rate that are one factor for all buckets. The factor of each kernel is fitted to the
true changes, so that what is compared is how the change is spread over noise levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntkdiag.confidence import quantile

PLAIN, PRECONDITIONED, UNDECIDED = "plain", "preconditioned", "cannot say"
LEVEL = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KernelComparison:
    """Two predictions of the loss change of every bucket beside the true one.

    Attributes:
        true: Mean loss change over continuations, [B].
        plain, preconditioned: Predictions, [B], each with its fitted factor.
        better: "plain", "preconditioned" or "cannot say", B of them: whose error is smaller, with a paired 95% interval over
            continuations; one continuation has none.
        plain_explained, preconditioned_explained: 1 − Σ (prediction − true)²/Σ true² over buckets; at most 1.
    """

    true: Array
    plain: Array
    preconditioned: Array
    better: tuple[str, ...]
    plain_explained: float
    preconditioned_explained: float


def compare_kernels(true: Array, plain: Array, preconditioned: Array) -> KernelComparison:
    """Compare the predictions of two kernels.

    Args:
        true: Loss changes, [R, B] of R ≥ 1 continuations.
        plain, preconditioned: First-order changes in any unit, [B].

    Example:
        >>> true = np.array([[-2.0, -1.0], [-2.1, -1.01], [-1.9, -0.99]])
        >>> found = compare_kernels(true, np.array([-1.0, -9.0]), np.array([-4.0, -2.0]))
        >>> found.better, round(found.preconditioned_explained, 6)
        (('preconditioned', 'preconditioned'), 1.0)
    """
    mean = true.mean(0)
    scaled = [_fitted(prediction, mean) for prediction in (plain, preconditioned)]
    errors = [np.abs(prediction - true) for prediction in scaled]
    better = tuple(_word(difference) for difference in (errors[0] - errors[1]).T)
    explained = [_explained(prediction, mean) for prediction in scaled]
    return KernelComparison(mean, scaled[0], scaled[1], better, explained[0], explained[1])


def _fitted(prediction: Array, true: Array) -> Array:
    """The prediction times the factor ≥ 0 of least squares: no kernel may turn its changes round."""
    size = float(prediction @ prediction)
    factor = max(0.0, float(prediction @ true) / size) if size > 0 else 0.0
    found: Array = factor * prediction
    return found


def _explained(prediction: Array, true: Array) -> float:
    size = float(true @ true)
    return 1 - float(((prediction - true) ** 2).sum()) / size if size > 0 else float("nan")


def _word(difference: Array) -> str:
    """Whose error is smaller, by the t-interval of the paired differences [R]."""
    if len(difference) < 2:
        return UNDECIDED
    reach = quantile(LEVEL, len(difference) - 1) * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    mean = float(difference.mean())
    if mean - reach > 0:
        return PRECONDITIONED
    return PLAIN if mean + reach < 0 else UNDECIDED
