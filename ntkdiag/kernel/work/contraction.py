"""How long products of gradients between samples take on this machine: a part of each is made, and timed."""

from __future__ import annotations

from functools import cache

import torch

from ntkdiag.kernel.streaming.accumulate import NARROW
from ntkdiag.kernel.streaming.contraction.contract import TILE_BYTES, add_products, between
from ntkdiag.kernel.work.counts import Kernel, Part, pairs_of
from ntkdiag.kernel.work.layers import Layer
from ntkdiag.kernel.work.speed import processor_seconds

# Numbers of a matrix that is made to be timed, and samples at most.
_NUMBERS, _SAMPLES = 2**21, 2048


def seconds_of(layer: Layer, part: Part, kernel: Kernel, samples: int) -> float:
    """Of a process's part of a layer's products for one probe; gradients without factors are formed already.

    Args:
        layer: One of them.
        part: Of it, see `part_of`.
        kernel: What is asked for.
        samples: N, of all processes in one sweep.
    """
    count, sums = kernel.processes, adding(samples)
    if part.kind == "blocks":
        t = layer.tokens
        pairs = pairs_of(samples, t, count)
        product = _tokens(t, layer.rows, layer.columns, samples)
        return pairs * (t * t * product + sums / samples**2)
    if part.kind == "factors":
        p, q = max(layer.rows, layer.columns), min(layer.rows, layer.columns)
        rows = -(-p // count)
        tile = max(1, min(rows, TILE_BYTES["cpu"] // (samples * q * 4)))
        forming = samples * rows / tile * _forming(layer.tokens, tile, q, samples)
        return forming + rows * q * _products(tile * q, samples) + sums
    if part.kind == "rows":
        return part.numbers * _products(max(1, int(part.numbers)), samples, True)
    width = max(1, int(part.numbers))
    return part.numbers * _products(max(width, NARROW), samples) + sums * min(1.0, width / NARROW)


@cache
def _tokens(tokens: int, p: int, q: int, samples: int) -> float:
    """Seconds of a product between two tokens of two samples."""
    others = max(1, min(samples, _SAMPLES // tokens))
    some = max(1, min(others, _NUMBERS // (others * tokens**2)))
    one, two = (torch.ones(n, tokens, p) for n in (some, others))
    right, other = (torch.ones(n, tokens, q) for n in (some, others))
    return processor_seconds(lambda: between(one, right, two, other)) / (some * others * tokens**2)


@cache
def _forming(tokens: int, p: int, q: int, samples: int) -> float:
    """Seconds of a sample for p × q elements of its gradient."""
    some = max(1, min(samples, 2 * _NUMBERS // (tokens * (p + q))))
    left, right, out = torch.ones(some, tokens, p), torch.ones(some, tokens, q), torch.empty(some, p, q)
    return processor_seconds(lambda: torch.bmm(left.mT, right, out=out)) / some


@cache
def _products(width: int, samples: int, wide: bool = False) -> float:
    """Seconds of one column of rows of all samples times themselves; `wide` where they are added to a sum in float64."""
    some = min(samples, _SAMPLES)
    columns = max(1, min(width, _NUMBERS // some))
    rows, gram = (
        torch.ones(some, columns),
        torch.zeros(some, some, dtype=torch.float64 if wide else torch.float32),
    )
    return processor_seconds(lambda: add_products(gram, rows)) / columns * (samples / some) ** 2


@cache
def adding(samples: int) -> float:
    """Seconds of adding a matrix between samples to the sum over parameters."""
    some = min(samples, _SAMPLES)
    gram, block = torch.zeros(some, some, dtype=torch.float64), torch.ones(some, some)
    return processor_seconds(lambda: gram.add_(block)) * (samples / some) ** 2
