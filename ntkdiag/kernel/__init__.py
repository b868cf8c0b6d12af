"""Empirical neural tangent kernels: J(x) J(x')ᵀ contracted with chosen output directions.

`gram` measures a Denoiser, `gram_of` any module; both return sample-by-sample Gram matrices. `autograd.py` is the slow
engine that every other engine is compared with.
"""

from ntkdiag.kernel.check import CheckOnce
from ntkdiag.kernel.gram import Gram, gram, gram_of
from ntkdiag.kernel.operator import NTKOperator

__all__ = ["CheckOnce", "Gram", "NTKOperator", "gram", "gram_of"]
