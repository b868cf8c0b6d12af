"""Eigenvalues, effective ranks and other statistics of a Gram matrix in memory."""
