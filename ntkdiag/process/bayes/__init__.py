"""Optimal denoisers: the prediction of the best possible network, and the loss that no training removes.

An oracle computes the posterior mean of x0 given its noisy version, for one distribution of the data: a Gaussian,
a mixture of Gaussians, or a finite set of points. `floor` and `bayes_share` convert its error to any target.
"""

from ntkdiag.process.bayes.bounds import MIN_POINTS, Bound, UnseenErrors, best_bound, cross_fitted
from ntkdiag.process.bayes.finite import FiniteOracle
from ntkdiag.process.bayes.floor import bayes_share, floor, linear_mmse
from ntkdiag.process.bayes.gaussian import GaussianOracle
from ntkdiag.process.bayes.mixture import MixtureOracle
from ntkdiag.process.bayes.oracle import Oracle, PosteriorOracle

__all__ = [
    "MIN_POINTS",
    "Bound",
    "FiniteOracle",
    "GaussianOracle",
    "MixtureOracle",
    "Oracle",
    "PosteriorOracle",
    "UnseenErrors",
    "bayes_share",
    "best_bound",
    "cross_fitted",
    "floor",
    "linear_mmse",
]
