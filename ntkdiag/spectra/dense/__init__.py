"""Spectra of a Gram matrix that is held in memory."""
