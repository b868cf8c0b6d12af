"""Networks that `fully_shard` (FSDP2) has sharded: measured with the parameters of one unit gathered at a time.

`units.py` says which parameters belong together, `gathering.py` when they are gathered and given up, `values.py`
reads them one after another, and `gathered.py` puts whole parameters into a network for as long as it is measured.
"""

from ntkdiag.kernel.sharded.gathered import gathered
from ntkdiag.kernel.sharded.gathering import Gathering, gathered_whole, gathering_of
from ntkdiag.kernel.sharded.values import sharded_as, tensors_of, with_values

__all__ = [
    "Gathering",
    "gathered",
    "gathered_whole",
    "gathering_of",
    "sharded_as",
    "tensors_of",
    "with_values",
]
