"""The full kernel as a product.

`operator.py` is for users, `linearization.py` is J u and Jᵀ v, `reference.py` what they are compared with.
"""

from ntkdiag.kernel.operator.operator import NTKOperator

__all__ = ["NTKOperator"]
