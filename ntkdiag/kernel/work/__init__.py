"""What a kernel costs before it is computed: operations, bytes exchanged, memory and seconds of each of several processes.

`layers.py` the gradients of a network, seen in a sweep over two samples · `operations.py` the operations of a forward ·
`counts.py` what is counted from them · `speed.py` how fast the network runs here · `contraction.py` the same of products
between samples · `seconds.py` the sum
"""

from ntkdiag.kernel.work.counts import Kernel, Sweeps, Work, work_of
from ntkdiag.kernel.work.layers import Layer, Shape, shape_of
from ntkdiag.kernel.work.seconds import RATES, Rates, Timed, timed
from ntkdiag.kernel.work.speed import Speed, speed_of

__all__ = [
    "RATES",
    "Kernel",
    "Layer",
    "Rates",
    "Shape",
    "Speed",
    "Sweeps",
    "Timed",
    "Work",
    "shape_of",
    "speed_of",
    "timed",
    "work_of",
]
