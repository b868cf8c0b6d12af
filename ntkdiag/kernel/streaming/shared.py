"""Kernels of samples that several processes share: what they exchange, and what they add up at the end.

Rows of gradients, or of their sketches, are exchanged by columns: each process receives its columns of every sample, and
multiplies them. So no process ever has all gradients, and the Gram matrices of the processes add up to the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ntkdiag.distributed import Share
from ntkdiag.distributed.alike import Fact, of_values, require_alike
from ntkdiag.distributed.parcels import Parcel
from ntkdiag.kernel.problem import Problem
from ntkdiag.kernel.streaming.sweep import AllSamples

# Bytes that a process receives in one exchange; tuned here: larger ones take pages that the system has to make first, and
# three times the time of a byte.
EXCHANGED_BYTES = 8 * 1024**2


def columns_of_all(kept: Mapping[str, Tensor], share: Share) -> Iterator[tuple[str, Tensor]]:
    """This process's columns of the rows of all samples.

    Args:
        kept: Parameter name → rows of the samples that this process ran, [n, length].
        share: Of the samples.

    Yields:
        Parameter name, rows [N, part of the length].
    """
    processes, own = share.processes, share.own.stop - share.own.start
    for names in _exchanges({name: rows[0].nbytes for name, rows in kept.items()}, share):
        parcels = [Parcel(kept[name][:own], columns=True) for name in names]
        every = processes.exchange(f"rows of {names}", parcels, share.counts)
        yield from zip(names, every, strict=True)


def _exchanges(row_bytes: Mapping[str, int], share: Share) -> Iterator[list[str]]:
    """Names of what is exchanged together."""
    names: list[str] = []
    for name in row_bytes:
        names.append(name)
        received = sum(row_bytes[each] for each in names) * share.samples // share.processes.count
        if received >= EXCHANGED_BYTES:
            yield names
            names = []
    if names:
        yield names


def added_up(found: AllSamples, share: Share) -> AllSamples:
    """The result for all samples, from that of each process.

    Args:
        found: Parts of the sums; the output of the samples that this process ran.
        share: Of the samples.
    """
    processes, names = share.processes, sorted(found.corners)
    parts = torch.stack([found.corners[name].double() for name in names]) if names else torch.zeros(0)
    corners = dict(zip(names, processes.total(f"corners of {names}", parts), strict=True))
    return AllSamples(
        {label: processes.total(f"kernel of {label}", gram) for label, gram in found.grams.items()},
        {name: corner.to(found.corners[name]) for name, corner in corners.items()},
        share.of_every(found.output),
        found.coverage,
    )


def agreed(wrong: dict[str, str], output: Tensor, problem: Problem) -> dict[str, str]:
    """What the check of any process found, after the directions of all are seen to be the same.

    Args:
        wrong: Parameter name → reason, as this process found.
        output: Of all samples, [N, *out].
        problem: What is measured, with a share.

    Raises:
        InputError: the directions of processes differ.
    """
    assert problem.share is not None  # several processes
    ends = torch.tensor([0, problem.samples - 1])
    cotangents = problem.directions(output[ends.to(output.device)], ends)
    given: dict[str, Fact] = {
        "directions (a sum)": of_values(cotangents),
        "shape of the directions": str(tuple(cotangents.shape)),
    }
    require_alike(problem.share.processes, given)
    every = problem.share.processes.each_says("verdict of the check", wrong)
    return {name: reason for each in reversed(every) for name, reason in each.items()}
