"""Spectra of operators that are never formed: Lanczos, quadrature, stochastic traces."""
