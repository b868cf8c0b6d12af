"""From a model and data to a `Diagnosis`: kernels, spectra and recoverability per log-SNR bucket, saved as a folder."""

from ntkdiag.diagnosis.controls import fresh_controls
from ntkdiag.diagnosis.full_kernel import FullKernel, FullSettings
from ntkdiag.diagnosis.measure import measure
from ntkdiag.diagnosis.result import Diagnosis

__all__ = ["Diagnosis", "FullKernel", "FullSettings", "fresh_controls", "measure"]
