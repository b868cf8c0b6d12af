"""Checks that the weight of a sample does not depend on the rest of its batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.weights.audit.audit_finding import AuditFinding
from ntkdiag.weights.audit.weight_function import CallFailed, WeightFunction

# Largest relative difference between a weight alone and in a batch that counts as rounding.
_ROUNDING = 1e-4
_ONE_DECIDES = (
    "the order of the batch multiplies all of its weights, as if a number of one sample were used for all: "
    "numpy's .min(axis)[0] is the first sample's minimum, where torch's .min(dim)[0] is everybody's"
)


class Curve(NamedTuple):
    """Weights as measured.

    Attributes:
        log_snr: Finite, ascending [n].
        weight: Float64 [n], as the function gives them, NaN and infinities included.
    """

    log_snr: Tensor
    weight: Tensor


def measure(examined: WeightFunction) -> tuple[Curve, list[AuditFinding]]:
    """The weights at the levels of the axis, and what is wrong with how the function treats a batch.

    Where the function returns one weight for a whole batch, the weights are those of batches of one, so that the rule
    can still be identified.

    Raises:
        InputError: the function fails on every input.
    """
    levels = examined.argument.levels()
    argument = examined.argument.of(levels)
    alone = torch.tensor([examined.at(level) for level in levels.tolist()], dtype=torch.float64)
    try:
        batch = examined.call(argument)
    except CallFailed as failure:
        if torch.isnan(alone).all():
            raise InputError(
                "weight function",
                expected=f"weights for a batch of {examined.argument.name}",
                got=str(failure),
            ) from failure
        return Curve(levels, alone), [
            AuditFinding("fails", "mistake", f"on a batch of {len(levels)}: {failure}")
        ]
    if batch.numel() == 1:
        return Curve(levels, alone), _one_for_all(alone, batch.item())
    shape = _shape(batch, len(levels))
    if batch.numel() != len(levels):
        return Curve(levels, alone), shape
    weight = batch.flatten()
    if (again := _again(examined, argument, weight)) is not None:
        return Curve(levels, weight), [*shape, again]
    if _same(weight, weight[0].expand_as(weight)):
        return Curve(levels, alone), [*shape, *_one_for_all(alone, weight[0].item())]
    if _same(weight, alone):
        return Curve(levels, weight), shape
    if _one_decides(examined, argument, weight):
        return Curve(levels, alone), [*shape, AuditFinding("one_scalar_for_batch", "mistake", _ONE_DECIDES)]
    return Curve(levels, weight), [*shape, _depends(weight, alone)]


def _one_for_all(alone: Tensor, value: float) -> list[AuditFinding]:
    """One number for a batch is correct only if all weights are equal."""
    if _same(alone, torch.full_like(alone, value)):
        return []
    low, high = alone.nan_to_num(math.inf).min().item(), alone.nan_to_num(-math.inf).max().item()
    text = f"{value:.3g} for all {len(alone)} samples of a batch, whose own weights go from {low:.3g} to {high:.3g}"
    return [AuditFinding("one_scalar_for_batch", "mistake", text)]


def _one_decides(examined: WeightFunction, argument: Tensor, weight: Tensor) -> bool:
    """Whether another order of the batch multiplies all weights by one number, as if one sample decided for all."""
    half = len(argument) // 2
    try:
        turned = examined.call(argument.roll(half)).flatten().roll(-half)
    except CallFailed:
        return False
    if len(turned) != len(weight):
        return False
    ratio = turned / weight
    return not _same(turned, weight) and _same(ratio, ratio[0].expand_as(ratio))


def _depends(weight: Tensor, alone: Tensor) -> AuditFinding:
    """Each weight in the batch against the same sample's weight alone."""
    sound = torch.isfinite(weight) & torch.isfinite(alone) & (weight > 0) & (alone > 0)
    factor = (weight[sound] / alone[sound]).log().abs().max().exp().item() if sound.any() else math.inf
    text = f"in a batch of {len(alone)}, by a factor of up to {factor:.3g} against the same sample alone"
    return AuditFinding("depends_on_batch", "mistake", text)


def _shape(batch: Tensor, count: int) -> list[AuditFinding]:
    """[n] is right; [n, 1] times a loss [n] is an [n, n] of wrong pairs."""
    if batch.shape == (count,):
        return []
    text = f"weights of shape {tuple(batch.shape)} for a batch of shape ({count},), which the losses [n] do not fit"
    return [AuditFinding("wrong_shape", "mistake", text)]


def _again(examined: WeightFunction, argument: Tensor, weight: Tensor) -> AuditFinding | None:
    """Whether a second call on the same batch gives the same weights."""
    try:
        again = examined.call(argument)
    except CallFailed as failure:
        return AuditFinding("not_repeatable", "mistake", f"the second call on one batch fails: {failure}")
    if again.numel() == len(weight) and _same(again.flatten(), weight):
        return None
    return AuditFinding("not_repeatable", "mistake", "two calls on one batch give different weights")


def _same(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=_ROUNDING, atol=0.0, equal_nan=True)
