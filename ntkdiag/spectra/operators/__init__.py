"""Spectra of an operator that is only known as a product: block Lanczos, Lanczos quadrature, stochastic traces."""
