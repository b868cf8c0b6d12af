"""Optimal denoisers: what the best possible network would answer, and the loss no training removes.

An oracle knows the posterior of x0 given its noisy version for one distribution of data: Gaussian,
Gaussian mixture, or a finite set of points. `floor` and `bayes_share` turn its error into those of any
prediction target.
"""

from ntkdiag.process.bayes.finite import FiniteOracle
from ntkdiag.process.bayes.floor import bayes_share, floor, linear_mmse
from ntkdiag.process.bayes.gaussian import GaussianOracle
from ntkdiag.process.bayes.mixture import MixtureOracle
from ntkdiag.process.bayes.oracle import Oracle, PosteriorOracle

__all__ = [
    "FiniteOracle",
    "GaussianOracle",
    "MixtureOracle",
    "Oracle",
    "PosteriorOracle",
    "bayes_share",
    "floor",
    "linear_mmse",
]
