"""Data to train and measure on: two data sets that need no download, and samples from whatever people have."""

from __future__ import annotations

from ntkdiag.data.dataset import Data
from ntkdiag.data.digits import digits
from ntkdiag.data.given import DATASETS, as_data, load
from ntkdiag.data.mixture import mixture
from ntkdiag.data.samples import LazySamples, in_memory
from ntkdiag.errors import explain_calls

__all__ = ["DATASETS", "Data", "LazySamples", "as_data", "digits", "in_memory", "load", "mixture"]

explain_calls(__name__, "nd.data.load('digits'), or nd.data.as_data(samples)")
