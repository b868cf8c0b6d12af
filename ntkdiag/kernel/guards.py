"""Checks that a network treats samples independently of each other and without randomness, as a kernel presupposes.

Dropout, batch statistics and gradients scaled by frequency are found where they are called; anything else that mixes samples
or draws random numbers is found by comparing two forwards.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ntkdiag.errors import MeasurementError
from ntkdiag.kernel.directions import checked_output
from ntkdiag.kernel.precision import TF32, Precision, computed_in

# Largest relative difference of an activation between two batches that still counts as rounding; tuned here.
ROUNDING: dict[Precision, float] = {
    torch.float64: 1e-8, torch.float32: 1e-3, TF32: 0.02, torch.float16: 0.02, torch.bfloat16: 0.1
}  # fmt: skip


class MixingGuard(TorchFunctionMode):
    """Runs a forward with `refuse_mixing` on every call.

    Args:
        root: The network, to name the layer at fault by.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self._root = root

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        refuse_mixing(self._root, func, args, kwargs or {})
        return func(*args, **kwargs or {})


def guarded_output(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The module's output [N, ...] under `MixingGuard`, without a graph; the module is called with copies of its inputs."""

    def call() -> Tensor:
        return checked_output(module(*(tensor.clone() for tensor in inputs)), len(inputs[0])).detach()

    with MixingGuard(module):
        try:
            with torch.no_grad():
                return call()
        except RuntimeError:  # a network may take gradients of its own inside its forward
            with torch.enable_grad():
                return call()


@dataclass(frozen=True)
class _Hazard:
    """An operation that, with some arguments, draws random numbers or mixes samples.

    Attributes:
        arguments: Those it depends on: name → (position, default).
        is_on: Their values → whether it does.
        message: What is wrong then, and what to do, with a place for the layer's name.
    """

    arguments: dict[str, tuple[int, Any]]
    is_on: Callable[..., bool]
    message: str

    def applies(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether it does so in this call."""
        return self.is_on(
            *(
                args[position] if len(args) > position else kwargs.get(name, default)
                for name, (position, default) in self.arguments.items()
            )
        )


def _dropout(arguments: dict[str, tuple[int, Any]]) -> _Hazard:
    return _Hazard(
        arguments,
        lambda p, training=True: bool(training) and p > 0,
        "network: expected a forward without randomness; got dropout that is on in eval mode in {layer}. "
        "Call it with training=self.training, or set its probability to 0.",
    )


def _batch_norm(mean: int, training: int) -> _Hazard:
    return _Hazard(
        {"running_mean": (mean, None), "training": (training, False)},
        lambda running_mean, training: running_mean is None or bool(training),
        "network: expected samples that do not depend on each other; got a batch norm on the batch's own statistics in "
        "{layer}. Give it running statistics (track_running_stats=True), or use a group norm.",
    )


def _frequency(position: int) -> _Hazard:
    return _Hazard(
        {"scale_grad_by_freq": (position, False)},
        bool,
        "network: expected gradients of each sample's own; got an embedding with scale_grad_by_freq=True in {layer}, whose "
        "gradient depends on how often an index occurs in the batch. Set it to False.",
    )


_HAZARDS: dict[Callable[..., Any], _Hazard] = {
    **dict.fromkeys(
        (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d, functional.alpha_dropout,
         functional.feature_alpha_dropout),
        _dropout({"p": (1, 0.5), "training": (2, True)}),
    ),
    **dict.fromkeys(
        (torch.dropout, torch.dropout_, torch.alpha_dropout, torch.alpha_dropout_, torch.feature_dropout,
         torch.feature_dropout_, torch.feature_alpha_dropout, torch.feature_alpha_dropout_),
        _dropout({"p": (1, 0.5), "train": (2, True)}),
    ),
    functional.scaled_dot_product_attention: _dropout({"dropout_p": (4, 0.0)}),
    functional.multi_head_attention_forward: _dropout({"dropout_p": (10, 0.0), "training": (13, True)}),
    functional.embedding: _frequency(5),
    torch.embedding: _frequency(3),
    functional.embedding_bag: _frequency(5),
    torch.embedding_bag: _frequency(3),
    functional.batch_norm: _batch_norm(mean=1, training=5),
    torch.batch_norm: _batch_norm(mean=3, training=5),
}  # fmt: skip


def refuse_mixing(
    root: nn.Module, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise if this call drops activations at random or normalises by statistics of the batch.

    Raises:
        MeasurementError: it does; says in which layer of `root`.
    """
    hazard = _HAZARDS.get(function)
    if hazard is not None and hazard.applies(args, kwargs):
        raise MeasurementError(hazard.message.format(layer=_calling_layer(root)))


def _calling_layer(root: nn.Module) -> str:
    """The innermost layer of `root` whose forward is running, read off the call stack."""
    names = {id(part): name for name, part in root.named_modules()}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            return f"{names[id(owner)] or 'the network itself'} ({type(owner).__name__})"
        frame = frame.f_back
    return "the network"


def require_same(seen: Tensor, expected: Tensor, where: str) -> None:
    """Raise if a sample's values differ between two batches by more than rounding.

    Args:
        seen: Values from one batch.
        expected: Values of the same samples from another batch.
        where: Where in the network, for the message.

    Raises:
        MeasurementError: they differ.
    """
    require_small(relative_difference(seen, expected), computed_in(seen), where)


def require_small(difference: float, precision: Precision, where: str) -> None:
    """Raise if a relative difference between two batches is more than rounding; see `require_same`."""
    if math.isnan(difference):
        raise MeasurementError(
            f"network: expected finite values; got NaN or infinity {where}. Check the network's weights and its inputs."
        )
    if difference > ROUNDING.get(precision, 1e-3):
        raise MeasurementError(
            f"network: expected each sample's values to be its own and the same every time; {where}, they differ "
            f"by {difference:.1e} (relative) between two batches. Look for statistics over the batch, random numbers, or "
            "weights that the forward changes."
        )


def relative_difference(seen: Tensor, expected: Tensor) -> float:
    """Largest difference over largest size; infinities that agree differ by nothing."""
    if seen.numel() == 0:
        return 0.0
    gap = (seen - expected).masked_fill(seen == expected, 0).abs()
    sizes = torch.maximum(seen.abs(), expected.abs())
    largest = sizes.masked_fill(sizes.isinf(), 0).amax()
    return float(gap.amax() / largest) if largest > 0 else float(gap.amax())
