"""Processes that do one thing together, each with its share of the samples: measure a kernel, or train.

`group.py` what they say to each other · `failure.py` how an error of one becomes an error of all · `share.py` who has which
samples · `alike.py` whether all were given the same · `in_place.py` tensors that become the same in all
"""

from ntkdiag.distributed.failure import OutOfStep
from ntkdiag.distributed.group import Processes, in_step
from ntkdiag.distributed.share import Share

__all__ = ["OutOfStep", "Processes", "Share", "in_step"]
