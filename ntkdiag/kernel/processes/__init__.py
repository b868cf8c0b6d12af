"""Processes that measure one kernel together, each with its share of the samples.

`group.py` what they say to each other · `failure.py` how an error of one becomes an error of all · `share.py` who has which
samples
"""

from ntkdiag.kernel.processes.failure import OutOfStep
from ntkdiag.kernel.processes.group import Processes, in_step
from ntkdiag.kernel.processes.share import Share

__all__ = ["OutOfStep", "Processes", "Share", "in_step"]
